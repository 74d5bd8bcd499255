"""How fast a CPU trains, against a plain loop over transformers: `python -m tests.benchmarks.train`.

Useful tokens per second, padding not counted, of our trainer's own step and of `tests.benchmarks.train_peers`: the same
global batches of the same shards, the same weights, optimizer, hidden dropout and threads, no dropout of attention
weights in both; what transformers' own default of 0.1 costs it is a row of its own. Each way has a process of its own,
the peak memory of which is shown. They take each step in turn, and the median of the ratios step by step is what counts:
a slow minute of the machine is everyone's. Where others compute on the machine, the ratio of CPU time says more.

The samples are made of articles of the lengths that Wikipedia's have, see `tests.benchmarks.articles`, or of `--input`.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor, nn

from bertdata.data_set import open_data_set
from tests.benchmarks.articles import write_articles
from tests.benchmarks.bench import given_vocabulary, verdict
from trainer.allocator import keep_freed_memory
from trainer.batch import StepBatches
from trainer.config import MODEL_SIZES, ModelOptions, TrainOptions
from trainer.cutting import Cutting
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.export import hf_weights
from trainer.loader import Loader
from trainer.model import build_model
from trainer.optimizer import make_optimizer
from trainer.step import autocast_for, backward, cutting_for

OURS, THEIRS, THEIR_DEFAULT = "ours", "transformers", "transformers, attention dropout 0.1"
GOALS = {128: 1.5, 512: 2.0}
SAMPLES = {128: 32, 512: 8}  # of a global batch: all ways together fit into 20 GB

Step = Callable[[int], None]


class Seconds(NamedTuple):
    """What a step took: of the clock, and of CPU time of all threads."""

    clock: float
    cpu: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured: a precision and the samples of one length."""

    folder: Path
    model: str
    precision: Any
    batch_size: int
    micro_batch_size: int | None
    num_threads: int

    @property
    def data(self) -> TrainingData:
        return TrainingData(data_sets=(open_data_set(self.folder),))

    def options(self) -> TrainOptions:
        """Returns the options of our run, with its own choice where no micro-batch size is given."""
        return TrainOptions(
            out="",
            model=ModelOptions.of_size(self.model, vocab_size=self.data.tokenizer.vocab_size),
            batch_size=self.batch_size,
            micro_batch_size=min(self.batch_size, 128),
            max_steps=1 << 20,
            learning_rate=1e-4,
            warmup_steps=0,
            precision=self.precision,
        )

    def loader(self, cutting: Cutting) -> Loader:
        """Returns what delivers global batches, the same ones however they are cut."""
        data = self.data
        plan = data.make_plan(data.initial_state(seed=0, batch_size=self.batch_size))
        return Loader(plan, data.open_split("train"), rank=0, world_size=1, cutting=cutting)

    def open(self, way: str) -> Step:
        """Returns what takes step after step in a way."""
        torch.set_num_threads(self.num_threads)
        return self._open_ours() if way == OURS else self._open_theirs(0.0 if way == THEIRS else 0.1)

    def _open_ours(self) -> Step:
        keep_freed_memory()
        options, world = self.options(), World(rank=0, size=1, device=torch.device("cpu"))
        model = build_model(options.model)
        optimizer = make_optimizer(model, options)
        steps = self.loader(cutting_for(self.data, options, device=world.device)).steps(0)
        autocast = autocast_for(options, device=world.device)

        def step(number: int) -> None:
            batches = next(steps)
            backward(
                model,
                batches.micro_batches,
                num_predictions=batches.num_predictions,
                num_samples=batches.num_samples,
                world=world,
                seed=number,
                autocast=autocast,
            )
            nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    def _open_theirs(self, attention_dropout: float) -> Step:
        from tests.benchmarks.train_peers import TransformersWay, hf_model  # not in the memory of our process

        options, data = self.options().model, self.data
        model = hf_model(options, weights=hf_weights(build_model(options)), attention_dropout=attention_dropout)
        way = TransformersWay(model, bf16=self.precision == "bf16")
        steps = self.loader(data.make_cutting()).steps(0)  # one micro-batch of all samples

        def step(number: int) -> None:
            way.step(list(self._pad(next(steps), number)))

        return step

    def _pad(self, batches: StepBatches, number: int) -> Iterator[dict[str, Tensor]]:
        from tests.benchmarks.train_peers import padded_batches

        (whole,) = batches.micro_batches
        size, pad_token_id = self.micro_batch_size or self.batch_size, self.data.tokenizer.roles["pad"]
        return padded_batches(whole, micro_batch_size=size, pad_token_id=pad_token_id, seed=number)

    def count_tokens(self, num_steps: int) -> tuple[list[int], float]:
        """Returns the tokens of each global batch, and the share of tokens in what transformers computes."""
        steps = list(self.loader(self.data.make_cutting()).steps(0, num_steps))
        num_cells = sum(
            padded["input_ids"].numel() for number, batch in enumerate(steps) for padded in self._pad(batch, number)
        )
        num_tokens = [batch.num_tokens for batch in steps]
        return num_tokens, sum(num_tokens) / num_cells


def _build(folder: Path, *, source: Path | None) -> None:
    """Builds both data sets, unless the folder has them already."""
    if all((folder / str(length) / "manifest.json").exists() for length in GOALS):
        return
    source = source or write_articles(folder.with_name(f"{folder.name}-text"))
    command = [sys.executable, "-m", "bertdata", "build", "--input", str(source), "--out", str(folder), "--overwrite"]
    command += ["--max-seq-length", ",".join(map(str, GOALS)), "--num-mask-sets", "1", *given_vocabulary()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"the build of {source} ended with {done.returncode}:\n{done.stderr}")


class _Process:
    """A way in a process of its own, which steps when it is told to."""

    def __init__(self, setting: Setting, way: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, setting, way), daemon=True)
        self._process.start()
        other.close()

    def step(self, number: int) -> Seconds:
        """Takes a step and returns what it took."""
        self._pipe.send(number)
        return self._pipe.recv()  # type: ignore[no-any-return]

    def stop(self) -> float:
        """Returns the most MB of memory that the process had."""
        self._pipe.send(None)
        peak: float = self._pipe.recv()
        self._process.join()
        return peak


def _serve(pipe: Connection, setting: Setting, way: str) -> None:
    step = setting.open(way)
    while (number := pipe.recv()) is not None:
        clock, cpu = time.perf_counter(), time.process_time()
        step(number)
        pipe.send(Seconds(time.perf_counter() - clock, time.process_time() - cpu))
    lines = Path("/proc/self/status").read_text().splitlines()
    pipe.send(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6)


def _measure(setting: Setting, *, max_seq_length: int, num_steps: int) -> None:
    processes = {way: _Process(setting, way) for way in (OURS, THEIRS, THEIR_DEFAULT)}
    taken: dict[str, list[Seconds]] = {way: [] for way in processes}
    for number in range(num_steps + 1):
        for way, process in processes.items():
            taken[way].append(process.step(number))
    memory = {way: process.stop() for way, process in processes.items()}
    # The first step of each is not counted: it makes the optimizer's moments and asks for memory.
    seconds = {way: steps[1:] for way, steps in taken.items()}
    num_tokens, share = setting.count_tokens(num_steps + 1)
    click.echo(
        f"\nL = {max_seq_length}, {setting.model}, {setting.precision}, {setting.num_threads} threads, {num_steps} steps of "
        f"{setting.batch_size} samples: {sum(num_tokens) / len(num_tokens) / setting.batch_size:.0f} tokens each, "
        f"{1 - share:.0%} padding for transformers"
    )
    click.echo(
        f"{'':<36} {'tokens/s':>8} {'peak MB':>8} {'ours':>7} {'from':>6} {'to':>5} {'CPU':>6}   {'to reach':>8}"
    )
    for way, steps in seconds.items():
        rate = statistics.median(number / step.clock for number, step in zip(num_tokens[1:], steps, strict=True))
        row = f"{way:<36} {rate:>8,.0f} {memory[way]:>8,.0f}"
        if way != OURS:
            ratios, cpu = (
                [theirs[kind] / ours[kind] for theirs, ours in zip(steps, seconds[OURS], strict=True)]
                for kind in (0, 1)
            )
            ratio = statistics.median(ratios)
            row += f" {ratio:>5.2f} x {min(ratios):>6.2f} {max(ratios):>5.2f} {statistics.median(cpu):>6.2f}"
            if way == THEIRS:
                goal = GOALS[max_seq_length]
                row += f"   {goal:>6} x {verdict(ratio >= goal)}"
        click.echo(row)


@click.command(help=__doc__)
@click.option("--model", type=click.Choice(list(MODEL_SIZES)), default="base", show_default=True, help="Size.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), multiple=True, help="Default: both.")
@click.option("--length", type=click.Choice(["128", "512"]), multiple=True, help="An L to measure; default: both.")
@click.option("--batch-size", type=int, help="Samples of a global batch; default: 32 at 128, 8 at 512.")
@click.option("--micro-batch-size", type=int, help="Samples that transformers computes at a time; default: all.")
@click.option("--steps", default=5, show_default=True, help="Steps of each way; the median ratio is printed.")
@click.option("--threads", default=os.cpu_count() or 1, show_default="all cores", help="Threads of each way.")
@click.option(
    "--input", "source", type=click.Path(exists=True, path_type=Path), help="Dump or text to build from instead."
)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder that keeps the data sets for the next time.")
def main(
    model: str,
    precision: tuple[str, ...],
    length: tuple[str, ...],
    batch_size: int | None,
    micro_batch_size: int | None,
    steps: int,
    threads: int,
    source: Path | None,
    keep: Path | None,
) -> None:
    """Measures everything and prints a table for each length and precision."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for the processes that measure memory
    with tempfile.TemporaryDirectory() as name:
        folder = keep or Path(name) / "data"
        _build(folder, source=source)
        for max_seq_length in map(int, length or map(str, GOALS)):
            for one in precision or ("fp32", "bf16"):
                setting = Setting(
                    folder=folder / str(max_seq_length),
                    model=model,
                    precision=one,
                    batch_size=batch_size or SAMPLES[max_seq_length],
                    micro_batch_size=micro_batch_size,
                    num_threads=threads,
                )
                _measure(setting, max_seq_length=max_seq_length, num_steps=steps)


if __name__ == "__main__":
    main()
