"""What a run does where nothing was said: as in its checkpoint, as a recipe has it, or by data set and device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertdata.errors import TrainingError
from trainer.config import ModelOptions, TrainOptions, load_model_options
from trainer.data import TrainingData
from trainer.initial import initial_model_options
from trainer.phases import check_beginning, settings_from_run
from trainer.plan import num_lanes_of
from trainer.presets import Phase, Preset, find_phase
from trainer.step import default_precision

__all__ = ["Choice", "Request", "choose"]

_LEARNING_RATES = {"tiny": 3e-3, "mini": 1e-3, "small": 5e-4, "base": 1e-4, "large": 1e-4}  # for a batch of 256

_LAMB_FACTOR = 4.4
"""Times these for LAMB: 6.25e-4 for a batch of 512 and BERT-large (You et al. 2020, table 4)."""

_OF_THE_MACHINE = (
    *("out", "model", "micro_batch_size", "precision", "compile", "activation_checkpointing", "num_loader_workers"),
    *("pad_to_multiple", "compile_mode", "skip_bad_blocks", "next_sentence"),
)
"""Settings that a continued run does not take from its checkpoint."""

_GPU_TOKENS = 32768
"""Tokens of a micro-batch of the base model that a GPU with 16 GB holds; other models by layers times width."""

_CPU_TOKENS = 8192
"""The same for a CPU: some 5 GB of the base model. More gain nothing, fewer add gradients more often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was asked for on the command line; None is "choose for me".

    Attributes:
        out: Folder of the run.
        size: Name of a published model size.
        config: A config.json to take the model's shape from.
        hidden_dropout: Dropout of embeddings and layer outputs.
        epochs: Times that every sample is shown, may be a fraction.
        settings: Values for fields of `TrainOptions`, by name; None for those not given.
    """

    out: str
    size: str | None = None
    config: Path | None = None
    hidden_dropout: float | None = None
    epochs: float | None = None
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Complete options for a run, and where each of them is from.

    Attributes:
        options: The options.
        origins: Of each field of `TrainOptions`, where its value is from: "given", "checkpoint", "init" (the run or
            folder of --init), "preset" or "default".
        preset: The recipe and its phase, if there is one.
    """

    options: TrainOptions
    origins: dict[str, str]
    preset: tuple[Preset, Phase] | None


def choose(
    request: Request,
    *,
    data: TrainingData,
    device_type: str,
    world_size: int,
    before: dict[str, Any] | None,
    run: dict[str, Any] | None = None,
) -> Choice:
    """Returns complete options for a run.

    A value comes from the first of these that has one: what was given, the run's own checkpoint, the run that its
    weights come from, the preset, the data set and the device.

    Args:
        request: What was asked for.
        data: The data to train on.
        device_type: "cpu" or "cuda".
        world_size: Number of processes.
        before: `TrainOptions.to_json()` in the run's checkpoint; None for a new run. What is not asked for is then as
            it was, except what belongs to the machine.
        run: Checkpoint of the run of --init, from `trainer.phases.find_run`; None where there is none.

    Raises:
        TrainingError: When an option is not allowed, or the data set has no training samples or too long ones.
    """
    if data.num_samples("train") == 0:
        raise TrainingError(f"{data} has no training samples; build it from more text")
    given = {name: value for name, value in request.settings.items() if value is not None}
    kept = {name: value for name, value in (before or {}).items() if name not in _OF_THE_MACHINE}
    preset = _find_preset(given, kept)
    check_beginning(given, kept=kept, is_new=before is None, preset=preset, run=run, out=request.out)
    from_run = settings_from_run(run, given=given, preset=preset) if run and before is None else {}
    from_preset = dict(preset[1].settings) if preset else {}
    if preset and len(preset[0].phases) > 1:
        from_preset["phase"] = 1
    if run is None:
        from_preset.pop("init_optimizer", None)  # an exported model has no state of an optimizer

    on_gpu = device_type == "cuda"
    model, model_origin = _choose_model(request, data=data, on_gpu=on_gpu, before=before, preset=preset, run=run)
    layers = {"preset": from_preset, "init": from_run, "checkpoint": kept, "given": given}  # later ones come first
    if "batch_size" not in _merge(layers):
        batch_size = _choose_batch_size(data.num_samples("train"), on_gpu=on_gpu, world_size=world_size)
        layers = {"default": {"batch_size": batch_size}} | layers
    if request.epochs and "max_steps" not in given:
        steps = _steps_of(request.epochs, data=data, batch_size=_merge(layers)["batch_size"])
        layers["given"] = given | {"max_steps": steps}
    settled = _merge(layers)
    is_whole_schedule = not (settled.get("schedule_steps") or settled.get("schedule_start"))
    if is_whole_schedule and settled.get("max_steps") != kept.get("max_steps"):
        kept.pop("warmup_steps", None)  # it was, or would have been, chosen by the number of steps
    chosen = _choose_rest(_merge(layers), model=model, data=data, on_gpu=on_gpu, world_size=world_size)
    layers["default"] = chosen | layers.get("default", {})
    layers = {"default": layers.pop("default")} | layers
    origins = {name: origin for origin, values in layers.items() for name in values}
    options = TrainOptions(out=request.out, model=model, **_merge(layers))
    origins = dict.fromkeys(options.to_json(), "default") | origins | {"out": "given", "model": model_origin}
    return Choice(options=options, origins=origins, preset=preset)


def _merge(layers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: value for values in layers.values() for name, value in values.items()}


def _find_preset(given: dict[str, Any], kept: dict[str, Any]) -> tuple[Preset, Phase] | None:
    name, number = given.get("preset", kept.get("preset")), given.get("phase", kept.get("phase"))
    if number and not name:
        raise TrainingError(f"--phase is {number}, but of no recipe; give --preset, too")
    return find_phase(name, number) if name else None


def _choose_rest(
    settled: dict[str, Any], *, model: ModelOptions, data: TrainingData, on_gpu: bool, world_size: int
) -> dict[str, Any]:
    """Returns values by data set and device for what is not settled yet, and for some of what is."""
    batch_size = settled["batch_size"]
    share = max(1, batch_size // world_size)
    max_steps = settled.get("max_steps") or _steps_of(
        _choose_epochs(data.num_samples("train"), batch_size=batch_size, on_gpu=on_gpu),
        data=data,
        batch_size=batch_size,
    )
    longest = data.max_seq_length
    if longest > model.max_position_embeddings:
        raise TrainingError(
            f"the samples have up to {longest} tokens, the model {model.max_position_embeddings} positions; give a "
            "--config with a larger max_position_embeddings, or build with a smaller --max-seq-length"
        )
    return {
        "micro_batch_size": min(share, _micro_batch_size(model, longest=longest, on_gpu=on_gpu)),
        "max_steps": max_steps,
        "learning_rate": _learning_rate(model, batch_size=batch_size, optimizer=settled.get("optimizer", "adamw")),
        "warmup_steps": min(10_000, max_steps // 10),
        "precision": default_precision("cuda" if on_gpu else "cpu"),
        "compile": False,
        "num_loader_workers": 1 if on_gpu else 0,
        "next_sentence": data.has_next_sentence,
        "save_every": min(1000, max(1, max_steps // 20)),
        "log_every": 50,
    }


def _steps_of(epochs: float, *, data: TrainingData, batch_size: int) -> int:
    steps = epochs * data.num_samples("train") / batch_size
    if not math.isfinite(steps):
        raise TrainingError(f"--epochs is {epochs:g}; give a finite number of them, or --max-steps")
    return max(1, math.ceil(steps))


def _choose_model(
    request: Request,
    *,
    data: TrainingData,
    on_gpu: bool,
    before: dict[str, Any] | None,
    preset: tuple[Preset, Phase] | None,
    run: dict[str, Any] | None,
) -> tuple[ModelOptions, str]:
    """Returns the model's shape, and where it is from."""
    vocab_size, dropout = data.tokenizer.vocab_size, request.hidden_dropout
    kept, init = (before or (run or {}).get("options") or {}).get("model"), request.settings.get("init")
    if dropout is None:
        dropout = kept["hidden_dropout_prob"] if kept else 0.1
    if request.config is not None:
        return load_model_options(request.config, vocab_size=vocab_size, hidden_dropout_prob=dropout), "given"
    if request.size is not None:
        return ModelOptions.of_size(request.size, vocab_size=vocab_size, hidden_dropout_prob=dropout), "given"
    if before is not None:
        return ModelOptions(**(before["model"] | {"hidden_dropout_prob": dropout})), "checkpoint"
    if init:
        found = initial_model_options(
            Path(init),
            run,
            vocab_size=vocab_size,
            hidden_dropout_prob=dropout,
            max_seq_length=data.max_seq_length,
        )
        return found, "init"
    num_tokens, origin = data.num_tokens("train"), "preset" if preset else "default"
    # About 20 tokens per parameter of a GPU's model; a CPU trains nothing larger than tiny in minutes.
    by_data = "tiny" if not on_gpu or num_tokens < 20e6 else "small" if num_tokens < 500e6 else "base"
    size = preset[0].size if preset else by_data
    return ModelOptions.of_size(size, vocab_size=vocab_size, hidden_dropout_prob=dropout), origin


def _choose_batch_size(num_samples: int, *, on_gpu: bool, world_size: int) -> int:
    """Returns a power of two times the processes: at least 50 steps per epoch, 64 samples on a CPU, 256 on GPUs.

    It is one whose lanes the processes can share, if there is any.
    """
    largest = 256 if on_gpu else 64
    chosen = batch_size = world_size
    while batch_size * 2 <= largest and batch_size * 100 <= num_samples:
        batch_size *= 2
        if num_lanes_of(batch_size) % world_size == 0:
            chosen = batch_size
    return chosen


def _micro_batch_size(model: ModelOptions, *, longest: int, on_gpu: bool) -> int:
    tokens = (_GPU_TOKENS if on_gpu else _CPU_TOKENS) * (12 * 768) // (model.num_hidden_layers * model.hidden_size)
    return max(1, min(tokens, 4 * _GPU_TOKENS) // longest) if on_gpu else max(1, min(tokens // longest, 128))


def _choose_epochs(num_samples: int, *, batch_size: int, on_gpu: bool) -> int:
    """Returns the epochs that make about 600 steps on a CPU, 100,000 on GPUs; at most 40, as published."""
    steps = 100_000 if on_gpu else 600
    return min(40, max(1, round(steps * batch_size / num_samples)))


def _learning_rate(model: ModelOptions, *, batch_size: int, optimizer: str) -> float:
    """Returns a rate by the model's width, for a batch of 256; it grows with the square root of the batch."""
    sizes = {128: "tiny", 256: "mini", 512: "small", 768: "base"}
    width = min((width for width in sizes if width >= model.hidden_size), default=None)
    rate = _LEARNING_RATES[sizes[width] if width else "large"] * math.sqrt(batch_size / 256)
    return float(f"{rate * (_LAMB_FACTOR if optimizer == 'lamb' else 1):.2g}")
