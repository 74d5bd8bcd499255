"""The training run, from the plan to the exported model, in the order of the data."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from bertdata.errors import OutputError, TrainingError
from bertdata.seeds import hash64_int, stage_key
from trainer.attention import needs_padding
from trainer.batch import Batch, Cutting, StepBatches
from trainer.checkpoint import check_continues, save_checkpoint
from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.evaluate import evaluate
from trainer.export import export_model
from trainer.loader import Loader
from trainer.metrics import SUMS, MetricsFile, describe, load_metrics, means, pretraining_sums
from trainer.model import build_model
from trainer.optimizer import learning_rate_at, make_optimizer
from trainer.reader import BlockReader
from trainer.signals import StopSignals

__all__ = ["backward", "train"]

MAX_PADDING = 0.03
"""Padding per token where attention needs it."""

_log = logging.getLogger(__name__)


def autocast_for(options: TrainOptions, *, device: torch.device) -> AbstractContextManager[Any]:
    """Returns the context in which the model runs; it can be entered many times."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if options.precision == "bf16" else nullcontext()


def backward(
    model: nn.Module,
    micro_batches: Sequence[Batch],
    *,
    num_predictions: int,
    num_samples: int,
    world: World,
    seed: int,
    autocast: AbstractContextManager[Any],
) -> Tensor:
    """Adds the gradient of one global batch to the parameters.

    The loss is the mean MLM loss over all predictions plus the mean NSP loss over all samples of the global batch. Each
    process adds its own sums, divided by the global counts, times the number of processes because
    DistributedDataParallel averages: any micro-batch size and any number of processes give the same gradient.

    Args:
        model: The model, wrapped in DistributedDataParallel where there are several processes.
        micro_batches: This process's share.
        num_predictions: Masked positions of the global batch.
        num_samples: Samples of the global batch.
        world: The processes.
        seed: Number that this step's dropout comes from.
        autocast: Context that sets the precision.

    Returns:
        float64 [7], `trainer.metrics.SUMS` of this process's share.
    """
    sums = torch.zeros(len(SUMS), dtype=torch.float64, device=world.device)
    for number, batch in enumerate(micro_batches):
        batch = batch.to(world.device)
        torch.manual_seed(hash64_int(seed, world.rank, number))
        is_last = number == len(micro_batches) - 1
        # Gradients are exchanged once a step, during the last backward pass.
        waiting = model.no_sync() if isinstance(model, DistributedDataParallel) and not is_last else nullcontext()
        with waiting:
            with autocast:
                outputs = model(batch)
            mlm_loss, nsp_loss, measured = pretraining_sums(outputs, batch)
            loss = mlm_loss * (world.size / max(num_predictions, 1)) + nsp_loss * (world.size / max(num_samples, 1))
            loss.backward()  # type: ignore[no-untyped-call]
        sums += measured
    return sums


def waits(batches: Iterator[StepBatches]) -> Iterator[tuple[StepBatches, float]]:
    """Yields each of the batches and the seconds that it took to come."""
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - asked


def count_bad(reader: BlockReader, *, world: World) -> dict[str, int]:
    """Returns how many blocks any process has left out, and their samples; a block of two processes counts once."""
    times_met = np.zeros(len(reader.block_sizes), dtype=np.int32)
    times_met[reader.bad_blocks] = 1
    is_bad = world.sum(torch.from_numpy(times_met)).numpy() > 0
    return {"bad_blocks": int(is_bad.sum()), "bad_samples": int(reader.block_sizes[is_bad].sum())}


def check_finite(value: Tensor, *, step: int, options: TrainOptions) -> None:
    """Ends a run whose losses or gradients are no longer numbers, before they reach a checkpoint.

    Raises:
        TrainingError: The value is infinite or not a number.
    """
    if not math.isfinite(float(value)):
        raise TrainingError(
            f"the loss or its gradient is no longer finite at step {step}; start in another --out folder with a lower "
            f"--learning-rate than {options.learning_rate:g} or more --warmup-steps than {options.warmup_steps}"
        )


def cutting_for(data: TrainingData, options: TrainOptions, *, device: torch.device) -> Cutting:
    """Returns how a process cuts its samples into micro-batches."""
    head_size = options.model.hidden_size // options.model.num_attention_heads
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    # Cuts by padding have as many shapes as there are batches, which compiled graphs do not want.
    is_cut = options.pad_to_multiple is None and needs_padding(device, dtype=dtype, head_size=head_size)
    return data.make_cutting(
        micro_batch_size=options.micro_batch_size,
        max_padding=MAX_PADDING if is_cut else None,
        pad_to_multiple=options.pad_to_multiple,
    )


def train(
    data: TrainingData, options: TrainOptions, *, world: World, checkpoint: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Trains a model, or continues a run, to its last step or until a signal asks to stop.

    Args:
        data: The data sets.
        options: What to do.
        world: The processes.
        checkpoint: Where to continue, from `trainer.checkpoint.load_latest`; None to begin.

    Returns:
        All rows of the run's `metrics.jsonl`; empty in processes other than the first.

    Raises:
        TrainingError: The checkpoint belongs to another run or is past the last step, the loss is no longer finite, or
            batch size, data set and number of processes do not fit each other.
        ShardError: A block of the data set is damaged.
    """
    out = Path(options.out)
    data_state = data.initial_state(
        seed=options.seed,
        batch_size=options.batch_size,
        window_blocks=options.window_blocks,
        shuffle_shards=options.shuffle_shards,
    )
    plan = data.make_plan(data_state)
    reader = data.open_split("train", skip_bad_blocks=options.skip_bad_blocks)
    cutting = cutting_for(data, options, device=world.device)
    loader = Loader(
        plan,
        reader,
        rank=world.rank,
        world_size=world.size,
        cutting=cutting,
        num_workers=options.num_loader_workers,
    )
    held_out = data.open_split("eval", skip_bad_blocks=options.skip_bad_blocks)

    bare_model = build_model(
        options.model, next_sentence=options.next_sentence, seed=stage_key(options.seed, "initial-weights")
    ).to(world.device)
    optimizer = make_optimizer(bare_model, learning_rate=options.learning_rate, weight_decay=options.weight_decay)
    first_step = 0
    interval_sums = torch.zeros(len(SUMS), dtype=torch.float64, device=world.device)
    epoch_sums = torch.zeros_like(interval_sums)
    if checkpoint is not None:
        check_continues(checkpoint, options=options.to_json(), data=data_state, folder=out)
        bare_model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        first_step = int(checkpoint["step"])
        if world.is_main:  # saved sums are those of all processes together
            interval_sums += checkpoint["interval_sums"].to(world.device)
            epoch_sums += checkpoint["epoch_sums"].to(world.device)
        _log.info("continuing %s at step %d", out, first_step)
    if world.sum_numbers(first_step) != [first_step * world.size]:
        raise TrainingError(
            f"process {world.rank} found step {first_step} in {out}, others another one; --out must be one folder that "
            "all machines share"
        )
    model: nn.Module = bare_model
    if options.compile:
        bare_model.compile(dynamic=True)  # in place, so that the names of the parameters stay
    if world.size > 1:
        model = DistributedDataParallel(bare_model, gradient_as_bucket_view=True)

    autocast = autocast_for(options, device=world.device)
    dropout_key = stage_key(options.seed, "dropout")
    if world.is_main:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"--out {out} cannot be made ({error}); give another folder") from error
    metrics = MetricsFile(out / "metrics.jsonl", last_step=first_step) if world.is_main else None
    progress = tqdm(total=options.max_steps, initial=first_step, unit="step", disable=None if world.is_main else True)

    def write(row: dict[str, Any]) -> None:
        if metrics is not None:
            metrics.append(row)
            _log.info("%s", describe(row))

    def save(step: int) -> None:
        check_finite(interval_sums.sum() + grad_norm, step=step, options=options)
        sums = {"interval_sums": world.sum(interval_sums).cpu(), "epoch_sums": world.sum(epoch_sums).cpu()}
        if metrics is not None:
            metrics.sync()  # first, so that no power loss leaves a checkpoint whose rows are gone
            state = {
                "step": step,
                "model": bare_model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "options": options.to_json(),
                "data": data_state.at_step(step).to_json(),
            }
            save_checkpoint(out / "checkpoints", state | sums, keep=options.keep)
        world.barrier()

    step, saved_step = first_step, first_step
    grad_norm = torch.zeros((), device=world.device)
    timed_from, timed_step, waited = time.perf_counter(), first_step, 0.0
    with StopSignals() as stop, logging_redirect_tqdm(), progress:
        for batches, seconds_waited in waits(loader.steps(first_step, options.max_steps)):
            waited += seconds_waited
            num_predictions, num_samples, num_stops = world.sum_numbers(
                batches.num_predictions, batches.num_samples, int(stop.received)
            )
            if num_stops:
                break
            if num_samples == 0 and count_bad(reader, world=world)["bad_samples"] == plan.num_samples:
                raise TrainingError(f"all training blocks of {data} are damaged; copy or build it again")

            learning_rate = learning_rate_at(
                step, peak=options.learning_rate, warmup_steps=options.warmup_steps, max_steps=options.max_steps
            )
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            sums = backward(
                model,
                batches.micro_batches,
                num_predictions=num_predictions,
                num_samples=num_samples,
                world=world,
                seed=hash64_int(dropout_key, step),
                autocast=autocast,
            )
            grad_norm = nn.utils.clip_grad_norm_(bare_model.parameters(), options.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            interval_sums += sums
            epoch_sums += sums

            step += 1
            progress.update()
            is_last = step == options.max_steps
            samples_seen = step * options.batch_size
            epochs_done = samples_seen // plan.num_samples
            ends_epoch = epochs_done > (samples_seen - options.batch_size) // plan.num_samples
            if step % options.log_every == 0 or is_last:
                totals = world.sum(interval_sums)
                result = means(totals, next_sentence=options.next_sentence)
                check_finite(totals.sum() + grad_norm, step=step, options=options)
                seconds = time.perf_counter() - timed_from
                speed = {
                    "data_wait": waited / seconds,
                    "sequences_per_second": (step - timed_step) * options.batch_size / seconds,
                    "tokens_per_second": float(totals[SUMS.index("num_tokens")]) / seconds,
                }
                row = {"kind": "train", "step": step, "epoch": samples_seen / plan.num_samples}
                if options.skip_bad_blocks:
                    row |= count_bad(reader, world=world)
                rates = {"learning_rate": learning_rate, "grad_norm": float(grad_norm)}
                write(row | result | rates | speed)
                interval_sums.zero_()
                timed_from, timed_step, waited = time.perf_counter(), step, 0.0
            paused = time.perf_counter()
            if ends_epoch or is_last:
                epoch = epochs_done if ends_epoch else samples_seen / plan.num_samples
                row = {"kind": "epoch", "step": step, "epoch": epoch}
                write(row | means(world.sum(epoch_sums), next_sentence=options.next_sentence))
                epoch_sums.zero_()
            due = step % options.eval_every == 0 if options.eval_every else ends_epoch
            if held_out.num_samples and (due or is_last):
                result = evaluate(
                    bare_model,
                    held_out,
                    world=world,
                    cutting=cutting,
                    max_samples=options.eval_samples,
                    next_sentence=options.next_sentence,
                    vocab_size=options.model.vocab_size,
                    autocast=autocast,
                )
                if result["num_samples"]:
                    write({"kind": "eval", "step": step, "epoch": samples_seen / plan.num_samples} | result)
                elif world.is_main:
                    _log.warning("nothing is evaluated: all held-out blocks of %s are damaged", data)
            if step % options.save_every == 0 or is_last:
                save(step)
                saved_step = step
            timed_from += time.perf_counter() - paused
    if saved_step != step:
        save(step)
    if metrics is not None:
        metrics.close()
    if step == options.max_steps and world.is_main:
        roles, folder = data.tokenizer.roles, data.data_sets[0].folder
        export_model(bare_model, out / "hf", tokenizer_folder=folder, pad_token_id=roles["pad"])
    elif world.is_main:
        _log.info("stopped at step %d of %d; the same command continues", step, options.max_steps)
    return load_metrics(out / "metrics.jsonl") if world.is_main else []


def evaluate_checkpoint(
    data: TrainingData, options: TrainOptions, *, world: World, checkpoint: dict[str, Any] | None
) -> dict[str, float]:
    """Returns losses and accuracies of a checkpoint on the held-out samples.

    Args:
        data: The data sets; they need not be those that the run was trained on.
        options: Options of the run.
        world: The processes.
        checkpoint: From `trainer.checkpoint.load_latest`.

    Raises:
        TrainingError: There is no checkpoint, its vocabulary is another one, or nothing is held out.
    """
    held_out = data.open_split("eval", skip_bad_blocks=options.skip_bad_blocks)
    if checkpoint is None:
        raise TrainingError(f"{options.out} holds no checkpoint to evaluate; train first, without --eval-only")
    if held_out.num_samples == 0:
        raise TrainingError(f"{data} holds no samples for evaluation; build with a larger --eval-fraction")
    model = build_model(options.model, next_sentence=options.next_sentence)
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        raise TrainingError(
            f"the checkpoint in {options.out} does not fit the model asked for or the vocabulary of {data} "
            f"({str(error).splitlines()[-1].strip()}); give the data set and the options of that run"
        ) from error
    result = evaluate(
        model.to(world.device),
        held_out,
        world=world,
        cutting=cutting_for(data, options, device=world.device),
        max_samples=options.eval_samples,
        next_sentence=options.next_sentence,
        vocab_size=options.model.vocab_size,
        autocast=autocast_for(options, device=world.device),
    )
    if not result["num_samples"]:
        raise TrainingError(f"all held-out blocks of {data} are damaged; copy or build it again")
    return {"step": checkpoint["step"]} | result
