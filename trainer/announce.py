"""What a run says before its first step: every value that it goes by, and where each is from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import groupby

from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.defaults import Choice
from trainer.phases import SCHEDULE
from trainer.presets import find_mismatches
from trainer.schedule import learning_rate_at, schedule_length

__all__ = ["announce", "describe_run", "find_warnings"]

_log = logging.getLogger(__name__)


def announce(data: TrainingData, choice: Choice, *, device: str, num_processes: int) -> None:
    """Logs what a run is about to do, and warns of what its recipe would have otherwise and of what will be slow."""
    for line in describe_run(data, choice, device=device, num_processes=num_processes):
        _log.info("%s", line)
    for warning in find_warnings(data, choice):
        _log.warning("warning: %s: %s", choice.options.preset, warning)
    options = choice.options
    if options.compile and options.compile_mode == "reduce-overhead" and options.pad_to_multiple is None:
        _log.warning(
            "warning: --compile-mode reduce-overhead makes a CUDA graph for every shape of a batch, and without "
            "padding these are many; give --pad-to-multiple, too"
        )


def find_warnings(data: TrainingData, choice: Choice) -> list[str]:
    """Returns what of a recipe the data set or the options given do not keep."""
    if choice.preset is None:
        return []
    options, (preset, phase) = choice.options, choice.preset
    found = find_mismatches(preset, phase, data=data)
    if choice.origins["schedule_steps"] == "preset" and options.max_steps < phase.settings["max_steps"]:
        end, whole = options.schedule_start + options.max_steps, schedule_length(options)
        rate, warmup_steps = learning_rate_at(options.max_steps - 1, options), round(options.warmup_steps * end / whole)
        found.append(
            f"the run ends at step {end:,} of the recipe's {whole:,}, at a rate of {rate:.3g}; for the same curve over "
            f"fewer steps, give --schedule-steps {end} and --warmup-steps {warmup_steps}, too"
        )
    if choice.origins["schedule_start"] == "init" and options.schedule_start != phase.settings["schedule_start"]:
        found.append(
            f"the phase before ended at step {options.schedule_start:,}, the recipe's at "
            f"{phase.settings['schedule_start']:,}; the schedule goes on where it ended"
        )
    others = [
        f"--{name.replace('_', '-')} {getattr(options, name)}, the recipe {phase.settings.get(name)}"
        for name in SCHEDULE
        if choice.origins[name] == "init" and getattr(options, name) != phase.settings.get(name)
    ]
    if others:
        found.append(f"the schedule is that of the phase before, which has {'; '.join(others)}")
    end = options.schedule_start + options.max_steps
    if choice.origins["schedule_steps"] == "init" and end < schedule_length(options):
        found.append(
            f"the run ends at step {end:,} of the {schedule_length(options):,} of the schedule, at a rate of "
            f"{learning_rate_at(options.max_steps - 1, options):.3g}; leave --max-steps out to go to its end"
        )
    return found


def describe_run(data: TrainingData, choice: Choice, *, device: str, num_processes: int) -> Iterator[str]:
    """Yields the lines of the message."""
    options = choice.options
    yield (
        f"{data.num_samples('train'):,} samples of {data}, {data.num_samples('eval'):,} held out; {num_processes} x "
        f"{device}"
    )
    if choice.preset is not None:
        preset, _ = choice.preset
        phases = f", phase {options.phase} of {len(preset.phases)}" if options.phase else ""
        yield f"preset      {options.preset}{phases}: {preset.title}"
        yield f"            source: {preset.source}"
        for difference in preset.differences:
            yield f"            but: {difference}"
    for title, parts in _parts(options, num_samples=data.num_samples("train")):
        yield f"{title:<12}{_with_origins(parts, choice)}"


def _parts(options: TrainOptions, *, num_samples: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yields the lines, each as a title, and texts with the field that decides them."""
    model = options.model
    shape = f"{model.num_hidden_layers} layers, hidden size {model.hidden_size}, {model.num_attention_heads} heads"
    text = f"BERT of {shape}, vocabulary {model.vocab_size}, dropout {model.hidden_dropout_prob:g}"
    yield "model", [(text, "model")]
    if options.init is not None:
        state = "with" if options.init_optimizer else "without"
        yield "begins from", [(options.init, "init"), (f"{state} its optimizer's state", "init_optimizer")]
    yield (
        "batch",
        [
            (_count(options.batch_size, "sample"), "batch_size"),
            (f"micro-batches of {options.micro_batch_size}", "micro_batch_size"),
        ],
    )
    epochs = options.max_steps * options.batch_size / num_samples
    yield "length", [(f"{options.max_steps} steps, {epochs:.3g} epochs", "max_steps")]
    yield (
        "optimizer",
        [
            ({"adamw": "AdamW", "lamb": "LAMB"}[options.optimizer], "optimizer"),
            (f"beta1 {options.adam_beta1:g}", "adam_beta1"),
            (f"beta2 {options.adam_beta2:g}", "adam_beta2"),
            (f"epsilon {options.adam_epsilon:g}", "adam_epsilon"),
            ("bias correction" if options.bias_correction else "no bias correction", "bias_correction"),
            (f"weight decay {options.weight_decay:g}", "weight_decay"),
            (_clipping(options), "max_grad_norm"),
        ],
    )
    yield "rate", _schedule(options)
    rates = [learning_rate_at(step, options) for step in (0, options.max_steps - 1)]
    first, last = options.schedule_start, options.schedule_start + options.max_steps - 1
    yield "", [(f"here: from {rates[0]:.3g} at step {first} to {rates[1]:.3g} at step {last}", "")]
    yield (
        "computing",
        [
            (options.precision, "precision"),
            ("compiled" if options.compile else "not compiled", "compile"),
            *([("activations computed again", "activation_checkpointing")] if options.activation_checkpointing else []),
            ("MLM and NSP" if options.next_sentence else "MLM only", "next_sentence"),
        ],
    )
    every = _every(options.eval_every) if options.eval_every else "after every epoch"
    some = f" on {options.eval_samples} samples" if options.eval_samples else ""
    yield (
        "the rest",
        [
            (f"seed {options.seed}", "seed"),
            (_count(options.num_loader_workers, "loader worker"), "num_loader_workers"),
            (f"a line {_every(options.log_every)}", "log_every"),
            (f"evaluation {every}{some}", "eval_every"),
            (f"a checkpoint {_every(options.save_every)}", "save_every"),
            (f"the newest {options.keep} kept", "keep"),
        ],
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _every(steps: int) -> str:
    return "every step" if steps == 1 else f"every {steps:,} steps"


def _clipping(options: TrainOptions) -> str:
    return f"gradients clipped at norm {options.max_grad_norm:g}" if options.max_grad_norm else "no clipping"


def _schedule(options: TrainOptions) -> list[tuple[str, str]]:
    curve = "linearly" if options.decay_power == 1 else f"as the power {options.decay_power:g} of the steps left"
    parts = [
        (f"up to {options.learning_rate:g}", "learning_rate"),
        (f"in {_count(options.warmup_steps, 'step')}", "warmup_steps"),
        (f"then falling {curve}", "decay_power"),
        ("from there" if options.decay_from == "peak" else "as if from the first step", "decay_from"),
        (f"to {options.learning_rate * options.decay_to:g}", "decay_to"),
        (f"at step {schedule_length(options):,}", "schedule_steps"),
    ]
    if options.schedule_start:
        parts.append((f"of which {options.schedule_start} are done", "schedule_start"))
    return parts


def _with_origins(parts: Iterable[tuple[str, str]], choice: Choice) -> str:
    """Joins texts; behind those that are from the same place, its name in brackets."""
    names = {"preset": str(choice.options.preset), "init": "--init"}
    texts = []
    for origin, group in groupby(parts, key=lambda part: choice.origins.get(part[1], "")):
        joined = ", ".join(text for text, _ in group)
        texts.append(f"{joined} ({names.get(origin, origin)})" if origin else joined)
    return ", ".join(texts)
