"""How fast samples become batches, against other libraries and memory: `python -m tests.benchmarks.loader`.

Every figure is samples per second of one core: per CPU second of this process over all its threads, and beside it per
second of the clock. One run of a way is an epoch of its data or several; all ways run in turn and the median is shown.
Batches have 256 samples and everything that the model sees: masked ids, cumulative lengths or an attention mask,
segment ids, positions and labels of the predictions, next-sentence labels. Each way first delivers an epoch whose
samples are compared with the data set's. The machine decides the figures; the ratios are what can be compared.

Ours reads a data set of several hundred blocks, so that blocks are read and checked again in every epoch and do not
stay decoded; how many are read for each block's worth of samples is printed. The others get its first samples, which
does not slow them; `tests.benchmarks.peers` says how they are set up, and what is not installed is skipped. They are
the extra `peers`. Where libraries are held to newer versions than mosaicml-streaming asks for, it works with those,
too: `pip install litdata brotli catalogue python-snappy xxhash zstd; pip install --no-deps mosaicml-streaming`.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from bertdata.build import build_serially
from bertdata.config import BuildOptions, MaskOptions, PairOptions, TokenizerOptions
from bertdata.data_set import DataSet, open_data_set
from bertdata.launch import open_build
from tests.benchmarks import in_memory
from tests.benchmarks.batches import BATCH_SIZE, Array, block_fingerprints, fingerprints, join_blocks
from tests.benchmarks.ours import (
    batches_per_epoch,
    measure_memory,
    measure_plan,
    measure_spread,
    measure_stages,
    measure_training,
    ours,
)
from tests.benchmarks.peers import PEERS
from tests.benchmarks.texts import load_corpus, write_documents
from tests.benchmarks.timing import Rate, median_rates

NUM_MASK_SETS = 5
PASSES = {128: 10, 512: 20}  # over the text: enough blocks without more text
TO_REACH, OF_MEMORY = 200_000, 0.5


def _build(folder: Path, *, megabytes: float, max_seq_length: int) -> DataSet:
    """Builds a data set, unless the folder has it already."""
    out = folder / f"{megabytes:g}MB-{max_seq_length}"
    if not (out / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        text, vocab = folder / "text.jsonl", folder / "tokenizer.json"
        corpus = load_corpus("english", path=None, megabytes=megabytes, peer_megabytes=0.01, folder=folder)
        write_documents(corpus.documents, text)
        corpus.tokenizer.save(str(vocab))
        options = BuildOptions(
            tokenizer=TokenizerOptions(path=str(vocab)),
            pairs=PairOptions(dupe_factor=PASSES[max_seq_length]),
            masks=MaskOptions(num_mask_sets=NUM_MASK_SETS),
            max_seq_lengths=(max_seq_length,),
        )
        with open_build([str(text)], out=out, options=options, overwrite=True) as work:
            assert work is not None
            build_serially(work)
    return open_data_set(out)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to get batches: what iterates over those of an epoch, and the fingerprints of the data set's samples."""

    epoch: Any
    samples: Array
    checksum: str = ""
    goal: str = ""
    least: float = 0

    def check(self, name: str) -> None:
        """Compares the samples of an epoch with the data set's, of which fewer than a batch may be missing."""
        batches = (batch.finished() if hasattr(batch, "finished") else batch for batch in self.epoch())
        delivered, times = np.unique(fingerprints(batches), return_counts=True)
        known, most = np.unique(self.samples, return_counts=True)
        places = np.searchsorted(known, delivered).clip(max=len(known) - 1)
        missing = len(self.samples) - int(times.sum())
        if (known[places] != delivered).any() or (times > most[places]).any() or not 0 <= missing < BATCH_SIZE:
            raise click.ClickException(f"{name} does not deliver the samples of the data set, {missing} are missing")

    def run(self) -> int:
        """Runs whole epochs for a second of CPU time at least and returns the number of samples."""
        num_batches, end = 0, time.process_time() + 1
        while True:
            num_batches += sum(1 for _ in self.epoch())
            if time.process_time() >= end:
                return num_batches * BATCH_SIZE


def _open_ours(data_set: DataSet) -> Way:
    index = data_set.blocks("train")
    samples = [block_fingerprints(data_set.read(index, row)) for row in range(len(index))]
    batches, num_batches = ours(data_set), batches_per_epoch(data_set)
    return Way(
        epoch=lambda: itertools.islice(batches, num_batches),
        samples=np.concatenate(samples),
        checksum="CRC-32",
    )


def _open_others(data_set: DataSet, folder: Path, *, max_seq_length: int, num_samples: int) -> dict[str, Way]:
    """Returns all other ways by name, and says which ones are left out and why."""
    block = join_blocks(data_set, num_samples=num_samples)
    samples = block_fingerprints(block)
    ways = {}
    for peer in PEERS:
        try:
            peer.load()
        except Exception as error:  # whatever a library that does not fit raises when it is imported
            click.echo(f"{peer.name} is not measured: {str(error).splitlines()[0]}")
            continue
        inside = folder / f"{max_seq_length}-{len(ways)}"
        inside.mkdir()
        epoch = peer.open(block, data_set, inside, np.random.default_rng(1))
        ways[peer.name] = Way(
            epoch=epoch, samples=samples, checksum=peer.checksum, goal=f"{peer.goal} x", least=peer.goal
        )
    limits = {
        "in memory, end to end": in_memory.ragged(block, seed=1),
        "in memory, padded": in_memory.padded(block, max_seq_length=max_seq_length, seed=1),
    }
    for name, limit in limits.items():
        ways[name] = Way(epoch=limit, samples=samples, goal=f"{OF_MEMORY} x", least=OF_MEMORY)
    return ways


def _report(ways: dict[str, Way], rates: dict[str, Rate], *, max_seq_length: int) -> None:
    ours = rates["ours"].cpu
    click.echo(f"{'':<30} {'samples/s':>11} {'by clock':>11} {'checksum':>12} {'ours':>9}   {'to reach':>10}")
    for name, way in ways.items():
        rate = rates[name]
        row = f"{name:<30} {rate.cpu:>11,.0f} {rate.clock:>11,.0f} {way.checksum:>12}"
        ratio, least, goal = ours / rate.cpu, way.least, way.goal
        if name == "ours":
            if max_seq_length != 128:
                click.echo(row)
                continue
            ratio, least, goal = ours, TO_REACH, f"{TO_REACH:,}"
            row += f" {'':>9}   {goal:>10}"
        else:
            row += f" {ratio:>7.2f} x   {goal:>10}"
        click.echo(f"{row} {'reached' if ratio >= least else 'missed'}")


def _measure(data_set: DataSet, folder: Path, *, max_seq_length: int, num_samples: int, num_runs: int) -> None:
    index = data_set.blocks("train")
    click.echo(
        f"\nL = {max_seq_length}, K = {NUM_MASK_SETS}: {int(index.num_samples.sum()):,} samples of "
        f"{index.num_tokens.sum() / index.num_samples.sum():.0f} tokens in {len(index):,} blocks, "
        f"{index.num_bytes.sum() / 1e6:,.0f} MB"
    )
    others = _open_others(data_set, folder, max_seq_length=max_seq_length, num_samples=num_samples)
    ways = {"ours": _open_ours(data_set), **others}
    for name, way in ways.items():
        way.check(name)
    rates = median_rates({name: way.run for name, way in ways.items()}, num_runs=num_runs)
    _report(ways, rates, max_seq_length=max_seq_length)
    measure_memory(data_set)
    measure_spread(data_set)


@click.command(help=__doc__)
@click.option("--megabytes", default=30.0, show_default=True, help="MB of text that the samples are made of.")
@click.option("--peer-samples", default=16_384, show_default=True, help="Samples that all but ours get.")
@click.option("--runs", default=3, show_default=True, help="Runs of each way; the median is printed.")
@click.option("--length", type=click.Choice(["128", "512"]), multiple=True, help="An L to measure; default: both.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder that keeps the data sets for the next time.")
@click.option("--stages", is_flag=True, help="Only print where the time of ours goes.")
@click.option("--training", is_flag=True, help="Only print how long training waits for data.")
@click.option("--model", default="tiny", show_default=True, help="Size of the model that --training trains.")
@click.option("--training-steps", default=10, show_default=True, help="Steps that --training takes, 3 at least.")
def main(
    megabytes: float,
    peer_samples: int,
    runs: int,
    length: tuple[str, ...],
    keep: Path | None,
    stages: bool,
    training: bool,
    model: str,
    training_steps: int,
) -> None:
    """Measures everything and prints the tables."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["OMP_NUM_THREADS"] = "1"  # for the process that measures memory
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        # The libraries leave locks and caches in the temporary folder: they are to go with ours.
        before, tempfile.tempdir = tempfile.tempdir, name
        try:
            for max_seq_length in map(int, length or PASSES):
                data_set = _build(keep or Path(name) / "data", megabytes=megabytes, max_seq_length=max_seq_length)
                if training:
                    measure_training(data_set, Path(name), model=model, num_steps=training_steps)
                if stages:
                    measure_stages(data_set)
                if not stages and not training:
                    _measure(
                        data_set,
                        Path(name),
                        max_seq_length=max_seq_length,
                        num_samples=peer_samples,
                        num_runs=runs,
                    )
            if not stages and not training:
                measure_plan()
        finally:
            tempfile.tempdir = before


if __name__ == "__main__":
    main()
