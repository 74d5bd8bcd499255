"""The training run, from the plan to the exported model, in the order of the data."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.contrib.logging import logging_redirect_tqdm

from bertdata.errors import TrainingError
from bertdata.seeds import hash64_int, stage_key
from trainer.agreement import check_same
from trainer.batch import StepBatches
from trainer.checkpoint import check_continues, check_room, save_checkpoint
from trainer.compiling import LossSums, compile_step, hold_gradients, holds_gradients
from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.evaluate import evaluate
from trainer.export import export_model
from trainer.initial import load_initial
from trainer.loader import Loader
from trainer.metrics import load_metrics, pretraining_sums
from trainer.model import build_model
from trainer.optimizer import clip_by_global_norm, load_optimizer_state, make_optimizer
from trainer.phases import take_moments
from trainer.run_folder import make_run_folder
from trainer.run_log import RunLog, count_bad
from trainer.schedule import learning_rate_at
from trainer.step import autocast_for, backward, cutting_for
from trainer.weight_files import put_weights

__all__ = ["train"]

_log = logging.getLogger(__name__)


def waits(batches: Iterator[StepBatches]) -> Iterator[tuple[StepBatches, float]]:
    """Yields each of the batches and the seconds that it took to come."""
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - asked


def train(
    data: TrainingData,
    options: TrainOptions,
    *,
    world: World,
    checkpoint: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    echo: Callable[[str], None] | None = None,
    origins: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Trains a model, or continues a run, to its last step or until a signal asks to stop.

    Args:
        data: The data sets.
        options: What to do.
        world: The processes.
        checkpoint: Where to continue, from `trainer.checkpoint.load_latest`; None to begin. It is emptied, so that its
            tensors take no memory during the run, whoever holds it.
        run: Checkpoint of the run that `options.init` names, from `trainer.phases.find_run`; None for an exported
            model. It is emptied, too.
        echo: Takes the lines of the table of epochs, each when its epoch has ended; None for no table.
        origins: Where options come from, by name, such as "given" or "default"; for the report.

    Returns:
        All rows of the run's `metrics.jsonl`; empty in processes other than the first.

    Raises:
        TrainingError: The checkpoint belongs to another run or is past the last step, the loss is no longer finite, or
            batch size, data set and number of processes do not fit each other.
        ShardError: A block of the data set is damaged.
    """
    # The data: global batch s is a pure function of these values, and a process reads its lanes of it.
    out = Path(options.out)
    data_state = data.initial_state(
        seed=options.seed,
        batch_size=options.batch_size,
        window_blocks=options.window_blocks,
        shuffle_shards=options.shuffle_shards,
    )
    plan = data.make_plan(data_state)
    reader = data.open_split("train", skip_bad_blocks=options.skip_bad_blocks)
    held_out = data.open_split("eval", skip_bad_blocks=options.skip_bad_blocks)
    cutting = cutting_for(data, options, device=world.device)
    loader = Loader(
        plan,
        reader,
        rank=world.rank,
        world_size=world.size,
        cutting=cutting,
        num_workers=options.num_loader_workers,
    )

    # The model and what changes it, new or as the checkpoint has them.
    bare_model = build_model(
        options.model,
        next_sentence=options.next_sentence,
        seed=stage_key(options.seed, "initial-weights"),
        activation_checkpointing=options.activation_checkpointing,
    ).to(world.device)
    optimizer = make_optimizer(bare_model, options)
    first_step, evaluation_due = 0, False
    if checkpoint is not None:
        check_continues(checkpoint, options=options.to_json(), data=data_state, folder=out)
        bare_model.load_state_dict(checkpoint["model"])
        load_optimizer_state(optimizer, checkpoint["optimizer"])
        first_step, evaluation_due = int(checkpoint["step"]), bool(checkpoint["evaluation_due"])
        if first_step < options.max_steps:
            _log.info("continuing %s at step %d", out, first_step)
        else:
            _log.info("%s has done its %d steps; only what is missing after them is done", out, first_step)
    elif options.init is not None:
        initial = load_initial(
            Path(options.init),
            run,
            options=options.model,
            next_sentence=options.next_sentence,
            data_set=data.data_sets[0],
            is_main=world.is_main,
        )
        put_weights(bare_model, initial.weights)
        if options.init_optimizer:
            take_moments(optimizer, initial)
        del initial  # it holds weights and moments of its own
        if run is not None:
            run.clear()
    check_same(options, data_state, first_step=first_step, world=world)
    model: nn.Module = bare_model
    loss_sums: LossSums = pretraining_sums
    holds = options.compile and holds_gradients(options.compile_mode)
    if options.compile:
        loss_sums = compile_step(bare_model, mode=options.compile_mode)
    if holds:
        hold_gradients(bare_model)
    if world.size > 1:
        model = DistributedDataParallel(bare_model, gradient_as_bucket_view=True)
    autocast = autocast_for(options, device=world.device)
    dropout_key = stage_key(options.seed, "dropout")

    # What is seen and kept of it.
    if world.is_main:
        make_run_folder(out)
        check_room(out, num_parameters=sum(one.numel() for one in bare_model.parameters()), keep=options.keep)
    run_log = RunLog(
        options,
        world=world,
        data=data,
        reader=reader,
        num_samples=plan.num_samples,
        first_step=first_step,
        sums=checkpoint,
        is_evaluated=not evaluation_due,
        echo=echo,
        origins=origins,
    )
    if checkpoint is not None:
        checkpoint.clear()

    def save(step: int) -> None:
        sums = run_log.saved_sums(step)
        if world.is_main:
            state = {
                "step": step,
                "model": bare_model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "options": options.to_json(),
                "data": data_state.at_step(step).to_json(),
                "tokenizer": data.tokenizer.sha256,
                "evaluation_due": evaluation_due,
            }
            save_checkpoint(out / "checkpoints", state | sums, keep=options.keep)
        world.barrier()

    def evaluate_now(step: int) -> bool:
        """Returns whether the evaluation was done; if not, the run is asked to stop, and does it when it continues."""
        with run_log.pause("evaluation"):
            result = evaluate(
                bare_model,
                held_out,
                world=world,
                cutting=cutting,
                max_samples=options.eval_samples,
                next_sentence=options.next_sentence,
                vocab_size=options.model.vocab_size,
                autocast=autocast,
                should_stop=lambda: world.stop.is_asked,
                on_progress=run_log.show_evaluation,
            )
        if result is None:
            return False
        if result["num_samples"]:
            run_log.write_evaluation(step, result)
        elif world.is_main:
            _log.warning("nothing is evaluated: all held-out blocks of %s are damaged", data)
        return True

    step, saved_step = first_step, first_step
    with logging_redirect_tqdm(), run_log:
        if evaluation_due:
            evaluation_due = not evaluate_now(step)
            with run_log.pause("checkpoint"):
                save(step)
        for batches, seconds_waited in waits(loader.steps(first_step, options.max_steps)):
            # One exchange for the counts that normalize the loss and for the wish to stop, which is everybody's.
            num_predictions, num_samples, num_stops = world.sum_numbers(
                batches.num_predictions, batches.num_samples, int(world.stop.is_asked)
            )
            if num_stops:
                break
            if num_samples == 0 and count_bad(reader, world=world)["bad_samples"] == plan.num_samples:
                raise TrainingError(f"all training blocks of {data} are damaged; copy or build it again")

            learning_rate = learning_rate_at(step, options)
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
                loss_sums=loss_sums,
            )
            grad_norm = clip_by_global_norm(bare_model.parameters(), options.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=not holds)

            step += 1
            is_last = step == options.max_steps
            run_log.add_step(
                step,
                batches,
                sums=sums,
                learning_rate=learning_rate,
                grad_norm=grad_norm,
                seconds_waited=seconds_waited,
            )
            due = step % options.eval_every == 0 if options.eval_every else run_log.ends_epoch(step)
            if held_out.num_samples and (due or is_last):
                evaluation_due = not evaluate_now(step)
            if step % options.save_every == 0 or is_last:
                with run_log.pause("checkpoint"):
                    save(step)
                saved_step = step
        if saved_step != step:
            save(step)
    if step == options.max_steps and not evaluation_due and world.is_main:
        roles, folder = data.tokenizer.roles, data.data_sets[0].folder
        export_model(bare_model, out / "hf", tokenizer_folder=folder, pad_token_id=roles["pad"])
        _log.info("finished: the model is in %s; bert-predict %s TEXT asks it", out / "hf", out)
    elif world.is_main:
        _log.info("stopped at step %d of %d; the same command continues", step, options.max_steps)
    return load_metrics(out / "metrics.jsonl") if world.is_main else []
