"""`bert-train --eval-only`: how well weights predict the held-out samples of any shards.

They are those of --init, a run or a folder for transformers; without it, those of the newest checkpoint in --out. Both
are only read. The shards may be others than a run was trained on, of the same tokenizer. What concerns training alone
has no effect.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bertdata.errors import TrainingError
from trainer.checkpoint import load_shared
from trainer.compiling import compile_step
from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.evaluate import evaluate
from trainer.initial import initial_model_options, load_initial
from trainer.model import BertForPreTraining, build_model
from trainer.phases import find_run
from trainer.step import autocast_for, cutting_for, default_precision
from trainer.weight_files import put_weights

__all__ = ["evaluate_only", "evaluation_table"]

_MICRO_BATCH_SIZE = 1024
"""More than evaluation makes use of, see `trainer.evaluate`."""


def evaluate_only(data: TrainingData, *, folder: Path, settings: dict[str, Any], world: World) -> dict[str, Any]:
    """Returns losses and accuracies of weights on the held-out samples.

    Args:
        data: The data sets; they need not be those that the weights were trained on.
        folder: Folder of the run.
        settings: What was asked for on the command line, None for "choose for me". Of it count `init`, `precision`,
            `compile`, `micro_batch_size`, `pad_to_multiple`, `eval_samples` and `skip_bad_blocks`.
        world: The processes that share the work.

    Returns:
        See `trainer.evaluate`, and the `step` of the checkpoint, where the weights are of one.

    Raises:
        TrainingError: There are no weights, they are of another tokenizer or of shorter samples, they cannot predict
            words, nothing is held out, or a signal asks to stop.
        ShardError: A block is damaged, and such blocks are not left out.
    """
    options, model, step = _load(data, folder=folder, init=settings.get("init"), world=world)
    options = _choose(options, settings=settings)
    model.to(world.device)
    if options.compile:
        compile_step(model)
    held_out = data.open_split("eval", skip_bad_blocks=options.skip_bad_blocks)
    if held_out.num_samples == 0:
        raise TrainingError(f"{data} holds no samples for evaluation; build with a larger --eval-fraction")
    result = evaluate(
        model,
        held_out,
        world=world,
        cutting=cutting_for(data, options, device=world.device),
        max_samples=options.eval_samples,
        next_sentence=options.next_sentence,
        vocab_size=options.model.vocab_size,
        autocast=autocast_for(options, device=world.device),
        should_stop=lambda: world.stop.is_asked,
    )
    if result is None:
        raise TrainingError("the evaluation was asked to stop, and gives no result; run the same command again")
    if not result["num_samples"]:
        raise TrainingError(f"all held-out blocks of {data} are damaged; copy or build it again")
    return ({} if step is None else {"step": step}) | result


def _load(
    data: TrainingData, *, folder: Path, init: str | None, world: World
) -> tuple[TrainOptions, BertForPreTraining, int | None]:
    """Returns options, model and step of what a run would begin with, if that is given, or of the newest checkpoint."""
    if init is not None:
        return _load_initial(data, place=Path(init), world=world)
    checkpoint = load_shared(folder / "checkpoints", world=world)
    if checkpoint is None:
        raise TrainingError(
            f"{folder} holds no checkpoint to evaluate; train first, without --eval-only, or give --init"
        )
    options = TrainOptions.from_json(checkpoint["options"])
    here, there = data.tokenizer, checkpoint["tokenizer"]
    if here.vocab_size != options.model.vocab_size:
        raise TrainingError(
            f"the vocabulary of {data} has {here.vocab_size:,} ids, that of the run in {folder} "
            f"{options.model.vocab_size:,}; give shards that were built with the run's tokenizer"
        )
    if there != here.sha256:
        raise TrainingError(
            f"the tokenizer of {data} is {here.sha256[:12]}, that of the run in {folder} {there[:12]}, and their ids "
            "mean different things; give shards that were built with the run's tokenizer"
        )
    if data.max_seq_length > options.model.max_position_embeddings:
        raise TrainingError(
            f"the samples have up to {data.max_seq_length} tokens, the model {options.model.max_position_embeddings} "
            "positions; build shards with a smaller --max-seq-length"
        )
    next_sentence = options.next_sentence and data.has_next_sentence
    model = build_model(options.model, next_sentence=next_sentence)
    model.load_state_dict(checkpoint["model"])
    return dataclasses.replace(options, next_sentence=next_sentence), model, int(checkpoint["step"])


def _load_initial(
    data: TrainingData, *, place: Path, world: World
) -> tuple[TrainOptions, BertForPreTraining, int | None]:
    run = find_run(place)
    model_options = initial_model_options(
        place, run, vocab_size=data.tokenizer.vocab_size, hidden_dropout_prob=0.0, max_seq_length=data.max_seq_length
    )
    initial = load_initial(
        place,
        run,
        options=model_options,
        next_sentence=data.has_next_sentence,
        data_set=data.data_sets[0],
        is_main=world.is_main,
    )
    new = {name.split(".")[1] for name in initial.new}
    if "predictions" in new:
        raise TrainingError(f"--init {place} has no masked-word head, so there is nothing to evaluate; train it first")
    # A new next-sentence head would say nothing, and none at all is what shards without such labels want.
    next_sentence = data.has_next_sentence and not new
    options = TrainOptions(
        out=str(place),
        model=model_options,
        next_sentence=next_sentence,
        batch_size=_MICRO_BATCH_SIZE,
        micro_batch_size=_MICRO_BATCH_SIZE,
        max_steps=1,
        learning_rate=1.0,
        warmup_steps=0,
        precision=initial.precision or default_precision(world.device.type),
    )
    model = build_model(model_options, next_sentence=next_sentence)
    put_weights(model, initial.weights)
    return options, model, initial.step


def _choose(options: TrainOptions, *, settings: dict[str, Any]) -> TrainOptions:
    """Returns a run's options with all that belongs to this machine and this evaluation as it was asked for now."""
    chosen = {
        "precision": options.precision,  # so that no digit differs from what the run has written
        "compile": False,
        "micro_batch_size": options.micro_batch_size,  # the same
        "pad_to_multiple": None,
        "eval_samples": None,
        "skip_bad_blocks": False,
    }
    given = {name: settings[name] for name in chosen if settings.get(name) is not None}
    return dataclasses.replace(options, **(chosen | given))


def evaluation_table(result: dict[str, Any]) -> str:
    """Returns an evaluation as a table for people."""
    step = f"step {result['step']}: " if "step" in result else ""
    lines = [
        f"{step}{result['num_samples']:,} held-out samples, {result['num_predictions']:,} predictions",
        f"{'':<34}{'accuracy':>9}{'loss':>9}{'perplexity':>12}",
    ]
    for text, accuracy, loss, perplexity in (
        ("masked words", "mlm_accuracy", "mlm_loss", "mlm_perplexity"),
        ("  where [MASK] is seen", "mlm_accuracy_mask", "", ""),
        ("  where a random word is seen", "mlm_accuracy_random", "", ""),
        ("  where the word itself is seen", "mlm_accuracy_kept", "", ""),
        ("  always the most frequent word", "mlm_baseline", "", ""),
        ("next sentences", "nsp_accuracy", "nsp_loss", ""),
        ("  labels that had to be NotNext", "nsp_accuracy_forced", "", ""),
        ("  labels that were drawn", "nsp_accuracy_free", "", ""),
        ("  by the lengths of A and B alone", "nsp_accuracy_by_lengths", "", ""),
    ):
        if accuracy in result:
            cells = [f"{result[accuracy]:>9.1%}", f"{result[loss]:>9.4f}" if loss in result else ""]
            cells.append(f"{result[perplexity]:>12,.1f}" if perplexity in result else "")
            lines.append(f"{text:<34}{''.join(cells)}")
    return "\n".join(lines)
