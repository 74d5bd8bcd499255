"""The command `bert-train`: from shards to a pre-trained BERT."""

from __future__ import annotations

import difflib
import importlib.util
import json
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from bertdata.cache_options import CacheOptions
from bertdata.errors import TrainingError
from bertdata.parameters import Size, repeat_option
from bertdata.program import SETTINGS, ending
from trainer.config import MODEL_SIZES
from trainer.follow_cli import follow
from trainer.place import LAUNCHED, find_place
from trainer.recipe_options import recipe_options
from trainer.report_cli import report

__all__ = ["main"]

_log = logging.getLogger(__name__)

_AT_LEAST_ONE = click.IntRange(min=1)
_AT_LEAST_ZERO = click.IntRange(min=0)


class _TrainCommand(click.Group):
    """A command that trains, unless its first word is the name of another one; --shards takes any number of places."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if not args or args[0].startswith("-"):
            return super().make_context(info_name, args, parent, **extra)
        if (command := self.commands.get(args[0])) is None:
            nearest = difflib.get_close_matches(args[0], self.commands, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]}?" if nearest else f"the commands are {', '.join(self.commands)}."
            context = click.Context(self, info_name=info_name, parent=parent)
            raise click.UsageError(f"{args[0]!r} is no command; {hint} To train, begin with --shards.", context)
        return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **{**self.context_settings, **extra})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        return super().parse_args(ctx, repeat_option(args, "--shards"))

    def invoke(self, ctx: click.Context) -> Any:
        with ending():
            return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.group(
    cls=_TrainCommand,
    invoke_without_command=True,
    subcommand_metavar="",
    context_settings=SETTINGS,
    epilog="Example: bert-train --shards shards/ --out run/",
)
@click.option(
    "--shards",
    multiple=True,
    required=True,
    metavar="PLACE[:WEIGHT]",
    help="Folder that `bertdata build` wrote, or its s3://, gs:// or https:// address; several with a space between. "
    "Weights are their shares in the samples; without them, each counts by its size.",
)
@click.option(
    "--out", default="run", type=click.Path(), help="Folder of the run; an unfinished run there is continued."
)
@click.option(
    "--model", "size", type=click.Choice(list(MODEL_SIZES)), help="Size of the model. [default: by data set and device]"
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A config.json to take the model's shape from, instead of --model. [default: none]",
)
@click.option(
    "--epochs",
    type=click.FloatRange(min=0, min_open=True),
    help="Times that every sample is shown. [default: about 600 steps on a CPU, 100,000 on GPUs, at most 40 epochs]",
)
@click.option(
    "--max-steps",
    type=_AT_LEAST_ONE,
    help="Optimizer steps of the whole run, instead of --epochs. [default: by --epochs]",
)
@click.option(
    "--batch-size",
    type=_AT_LEAST_ONE,
    help="Samples of a global batch, over all processes. [default: up to 64 on a CPU, 256 on GPUs]",
)
@click.option(
    "--micro-batch-size",
    type=_AT_LEAST_ONE,
    help="Samples that a process computes at a time; changes memory, not results. [default: by device and length]",
)
@recipe_options
@click.option("--hidden-dropout", type=click.FloatRange(0, 1, max_open=True), help="Share of values. [default: 0.1]")
@click.option(
    "--precision",
    type=click.Choice(["bf16", "fp32"]),
    help="Precision of the computation. [default: bf16 on GPUs, else fp32]",
)
@click.option(
    "--activation-checkpointing/--no-activation-checkpointing",
    default=None,
    help="Compute activations again in the backward pass instead of keeping them: less memory, a third more work. "
    "[default: no-activation-checkpointing]",
)
@click.option(
    "--compile/--no-compile", "compile_model", default=None, help="Run torch.compile first. [default: no-compile]"
)
@click.option(
    "--compile-mode",
    type=click.Choice(["default", "reduce-overhead", "max-autotune-no-cudagraphs"]),
    help="Mode of --compile: reduce-overhead is with CUDA graphs and wants --pad-to-multiple; "
    "max-autotune-no-cudagraphs tries out kernels first, for minutes. [default: default]",
)
@click.option("--eval-every", type=_AT_LEAST_ONE, help="Steps between evaluations. [default: the steps of an epoch]")
@click.option("--eval-samples", type=_AT_LEAST_ONE, help="Held-out samples to evaluate at most. [default: all]")
@click.option(
    "--eval-only",
    is_flag=True,
    help="Evaluate the weights of --init, or without it the newest checkpoint of --out, on the held-out samples of "
    "--shards, in the precision of their run: print the result as JSON, and do not train. Options of training have no "
    "effect.",
)
@click.option(
    "--save-every",
    type=_AT_LEAST_ONE,
    help="Steps between checkpoints. [default: a twentieth of the steps, at most 1000]",
)
@click.option("--keep", type=_AT_LEAST_ONE, help="Newest checkpoints that are kept. [default: 3]")
@click.option("--log-every", type=_AT_LEAST_ONE, help="Steps between lines of log and metrics. [default: 50]")
@click.option(
    "--tensorboard/--no-tensorboard",
    default=None,
    help="Write the metrics for TensorBoard, too, into --out. [default: no-tensorboard]",
)
@click.option(
    "--gpus", metavar="all|N", help="GPUs of this machine to use; a process is started for each. [default: one]"
)
@click.option(
    "--num-loader-workers",
    type=_AT_LEAST_ZERO,
    help="Threads that prepare batches ahead. [default: 0 on a CPU, 1 on GPUs]",
)
@click.option(
    "--window-blocks",
    type=_AT_LEAST_ONE,
    help="Blocks that each of up to 64 lanes mixes and keeps in memory, about 0.3 MB each for samples of 128 tokens. "
    "[default: 8, or as many as make the lanes together mix all shards]",
)
@click.option(
    "--shuffle-shards",
    type=_AT_LEAST_ONE,
    help="Shards that are shuffled together, for a cache that cannot hold all: an epoch then goes from group to "
    "group, and samples of a document meet more often. [default: all]",
)
@click.option(
    "--pad-to-multiple",
    type=_AT_LEAST_ONE,
    help="Pad each micro-batch to multiples of so many tokens and to a fixed number of predictions, for compiled "
    "graphs. [default: no padding]",
)
@click.option(
    "--skip-bad-blocks/--no-skip-bad-blocks",
    default=None,
    help="Go on without the samples of damaged blocks, and count them. [default: no-skip-bad-blocks]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that shards of addresses are fetched to; runs and processes may share it. "
    "[default: $BERTDATA_CACHE, or ~/.cache/bertdata]",
)
@click.option(
    "--cache-size",
    type=Size(),
    help="Bytes that this folder never holds more of, such as 200GB. [default: nine tenths of what it holds and of "
    "what is free on its disk]",
)
@click.option("--seed", type=_AT_LEAST_ZERO, help="Number that all draws of the run come from. [default: 0]")
def main(*, shards: tuple[str, ...], out: str, eval_only: bool, compile_model: bool | None, **options: Any) -> None:
    """Pre-trains a BERT on shards, with masked words and next sentences.

    With no option but --shards, device, model, batch, rate and length are chosen and printed. The same command
    continues a run that was stopped. --gpus, torchrun or srun start it on several GPUs. The run's folder gets
    metrics.jsonl, checkpoints, and at the end hf/, which transformers loads. `bert-train report` shows it,
    and `bert-train follow` shows what happens to one document.
    """
    for first, second in (("size", "config"), ("epochs", "max_steps")):
        if options[first] is not None and options[second] is not None:
            names = ["--" + name.replace("size", "model").replace("_", "-") for name in (first, second)]
            raise click.UsageError(f"{names[0]} and {names[1]} exclude each other; give one of them.")
    if options["compile_mode"] is not None and not compile_model:
        raise click.UsageError(f"--compile-mode {options['compile_mode']} is of torch.compile; give --compile, too.")
    if not all(map(importlib.util.find_spec, ("torch", "safetensors"))):
        raise TrainingError('bert-train needs torch and safetensors: pip install "bertdata[train]"')
    if _starts_processes(options["gpus"]):
        sys.exit(_start_processes(options["gpus"], arguments=click.get_current_context().meta["arguments"]))
    _run(shards=shards, out=out, eval_only=eval_only, settings=options | {"compile": compile_model})


main.add_command(report)
main.add_command(follow)


def _starts_processes(gpus: str | None) -> bool:
    """Returns whether this process is to start others, instead of training."""
    if gpus is None or LAUNCHED in os.environ:
        return False
    starter = find_place(os.environ).starter
    if starter != "bert-train":
        raise click.UsageError(f"--gpus starts processes, and {starter} has done that; leave it out.")
    return True


def _start_processes(gpus: str, *, arguments: list[str]) -> int:
    import torch

    from trainer.launch import choose_number, start_processes

    number = choose_number(gpus, available=torch.cuda.device_count())
    return start_processes([sys.executable, "-m", "trainer", *arguments], number=number)


def _run(*, shards: tuple[str, ...], out: str, eval_only: bool, settings: dict[str, Any]) -> None:
    if find_place(os.environ).size > 1:  # warnings of connections that break are pages of addresses
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    from trainer.allocator import keep_freed_memory
    from trainer.announce import announce
    from trainer.checkpoint import load_shared
    from trainer.data import open_training_data
    from trainer.defaults import Request, choose
    from trainer.distributed import start_world
    from trainer.eval_only import evaluate_only, evaluation_table
    from trainer.phases import find_run
    from trainer.run_folder import hold_run_folder
    from trainer.train import train

    gpus = settings.pop("gpus")
    cache = CacheOptions(folder=settings.pop("cache"), max_bytes=settings.pop("cache_size"))
    request = Request(
        out=out,
        size=settings.pop("size"),
        config=settings.pop("config"),
        epochs=settings.pop("epochs"),
        hidden_dropout=settings.pop("hidden_dropout"),
        settings=settings,
    )
    with start_world() as world, ExitStack() as stack:
        logging.basicConfig(level=logging.INFO if world.is_main else logging.WARNING, format="%(message)s", force=True)
        if world.device.type == "cpu":
            keep_freed_memory()
        data = open_training_data(shards, cache=cache)
        if eval_only:
            result = evaluate_only(data, folder=Path(out), settings=settings, world=world)
            if world.is_main:
                click.echo(evaluation_table(result), err=True)
                click.echo(json.dumps(result))
            return
        stack.enter_context(hold_run_folder(Path(out), world=world))
        checkpoint = load_shared(Path(out) / "checkpoints", world=world)
        run = find_run(Path(settings["init"])) if settings["init"] and not checkpoint else None
        choice = choose(
            request,
            data=data,
            device_type=world.device.type,
            world_size=world.size,
            before=checkpoint["options"] if checkpoint else None,
            run=run,
        )
        announce(data, choice, device=str(world.device), num_processes=world.size)
        if world.num_idle_gpus and gpus is None:
            _log.info("%d more GPUs are idle; --gpus all uses them", world.num_idle_gpus)
        train(
            data,
            choice.options,
            world=world,
            checkpoint=checkpoint,
            run=run,
            echo=click.echo,
            origins=choice.origins,
        )
