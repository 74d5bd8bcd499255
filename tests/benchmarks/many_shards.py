"""Planning and commit of a build of 300 GB of text, over a made-up work folder: memory, time and disk of each step.

python -m tests.benchmarks.many_shards [--portions 2000] [--shards 11243] [--blocks 190]

No text and no shard is there: every portion has the same counts of its run, and every shard the same statistics. The
steps are those of a build, each in a process of its own; "base" does nothing but load the build.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from bertdata import build
from bertdata.clearing import clear_work
from bertdata.config import BuildOptions, ShardOptions
from bertdata.inputs import InputFile
from bertdata.manifest import ShardEntry
from bertdata.meter import peak_memory
from bertdata.ranges import read_ranges
from bertdata.runs import Run, RunBins
from bertdata.shards import BlockEntry
from bertdata.spill import BIN_BITS
from bertdata.splits import Split
from bertdata.statistics import Statistics
from bertdata.wordpiece import ROLES, encode_tokenizer, new_bert_tokenizer
from bertdata.work import Work, portion_record, shard_record, shard_statistics

__all__ = ["make_plan_input", "make_records"]

VOCAB_SIZE = 30522
PORTION_BYTES = 150_000_000
DOCUMENTS_PER_RUN = 37_500  # of 4,000 bytes
TOKENS_PER_DOCUMENT = 870
BLOCK_BYTES = 352_000
STEPS = ("base", "plan_shards", "planned", "read_ranges", "write_data_sets", "clear_work")


def make_plan_input(out: Path, *, num_portions: int, num_shards: int) -> Work:
    """Makes a work folder whose portions are all tokenized, a run each."""
    file = InputFile("/text.txt", PORTION_BYTES * num_portions, 0)
    cuts = range(0, file.num_bytes + 1, PORTION_BYTES)
    whole = Split(
        path=file.path,
        start=0,
        stop=file.num_bytes,
        file_bytes=file.num_bytes,
        file_version=file.version,
        format="text",
        compression="none",
        language=None,
    )
    work = Work(
        out=str(out),
        fingerprint="0" * 16,
        base_fingerprint="0" * 16,
        options=BuildOptions(shards=ShardOptions(num_shards=num_shards)),
        inputs=(file,),
        portions=tuple((dataclasses.replace(whole, start=a, stop=b),) for a, b in itertools.pairwise(cuts)),
    )
    work.save()
    roles = [names[0] for names in ROLES.values()]
    vocab = {token: number for number, token in enumerate([*roles, *(f"w{n}" for n in range(VOCAB_SIZE - len(roles)))])}
    for name, data in encode_tokenizer(new_bert_tokenizer(vocab, lowercase=True, strip_accents=True)).items():
        work.folder.write(name, data)
    documents = np.random.default_rng(0).multinomial(DOCUMENTS_PER_RUN, np.full(1 << BIN_BITS, 2.0**-BIN_BITS))
    bins = np.flatnonzero(documents)
    tokens = documents[bins] * TOKENS_PER_DOCUMENT
    run_bins = RunBins(bins=bins, num_documents=documents[bins], num_tokens=tokens, num_bytes=2 * tokens).to_bytes()
    counts = {"documents": DOCUMENTS_PER_RUN, "tokens": int(tokens.sum()), "documents_under_3_sentences": 0}
    runs = work.folder.local / "runs"
    runs.mkdir()
    first = runs / Run(0, 0, 0, 0).bins_name
    first.write_bytes(run_bins)
    (work.folder.local / "splits").mkdir()
    for number in range(num_portions):
        run = Run(number, 0, int(2 * tokens.sum()), len(run_bins))
        if number:
            os.link(first, runs / run.bins_name)
        record = {"counts": counts, "languages": {"en": DOCUMENTS_PER_RUN}, "runs": [run], "rejects": []}
        (work.folder.local / portion_record(number)).write_text(json.dumps(record))
    return work


def make_records(work: Work, *, num_blocks: int) -> None:
    """Makes the records of all planned shards of `num_blocks` blocks each."""
    tasks = work.planned_shards()
    blocks = [
        BlockEntry(offset=k * BLOCK_BYTES, num_bytes=BLOCK_BYTES, num_samples=1024, num_tokens=118_000, crc32=k << 20)
        for k in range(num_blocks)
    ]
    statistics = Statistics.empty(max_seq_length=128, vocab_size=VOCAB_SIZE)
    statistics.token_counts[:] = np.random.default_rng(0).zipf(1.2, VOCAB_SIZE).clip(max=1 << 20)
    folder = work.folder.local
    (folder / shard_record(tasks[0])).parent.mkdir(parents=True)
    first = folder / shard_statistics(tasks[0])
    first.write_bytes(statistics.to_npz())
    kept, rest = divmod(DOCUMENTS_PER_RUN * len(work.portions), len(tasks))
    for number, task in enumerate(tasks):
        entry = ShardEntry(
            name=task.name,
            split=task.split,
            num_samples=1024 * num_blocks,
            num_blocks=num_blocks,
            num_tokens=118_000 * num_blocks,
            num_bytes=BLOCK_BYTES * num_blocks + 1024,
            sha256=f"{number:064x}",
        )
        record = {
            "entry": dataclasses.asdict(entry),
            "blocks": [dataclasses.asdict(block) for block in blocks],
            "counts": {"documents": 0, "documents_kept": kept + (number < rest), "samples": entry.num_samples},
            "excluded": [],
        }
        (folder / shard_record(task)).write_text(json.dumps(record))
        if number:
            os.link(first, folder / shard_statistics(task))


def _step(name: str, out: Path) -> None:
    work = Work.load(out)
    if name == "plan_shards":
        build.plan_shards(work)
    elif name == "planned":
        work.planned_shards()
    elif name == "read_ranges":
        read_ranges(work.folder, work.planned_shards()[0])
    elif name == "write_data_sets":
        build.write_data_sets(work)
    elif name == "clear_work":
        clear_work(out)


def _measure(name: str, out: Path) -> tuple[float, float]:
    """Runs a step in a process of its own; returns its seconds and the MiB that the process had at most."""
    command = [sys.executable, "-m", "tests.benchmarks.many_shards", "--step", name, "--folder", str(out)]
    seconds, memory = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return seconds, memory / (1 << 20)


@click.command()
@click.option("--portions", default=2000, show_default=True)
@click.option("--shards", default=11_243, show_default=True)
@click.option("--blocks", default=190, show_default=True, help="Per shard.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; a temporary folder by default.")
@click.option("--step", type=click.Choice(STEPS), hidden=True)
def main(*, portions: int, shards: int, blocks: int, folder: Path | None, step: str | None) -> None:
    """Measures planning and commit of a build with many portions and shards."""
    if step is not None and folder is not None:
        started = time.perf_counter()
        _step(step, folder)
        click.echo(json.dumps([time.perf_counter() - started, peak_memory()]))
        return
    out = folder or Path(tempfile.mkdtemp(prefix="many-shards-"))
    work = make_plan_input(out, num_portions=portions, num_shards=shards)
    rows = []
    for name in STEPS:
        if name == "write_data_sets":
            make_records(work, num_blocks=blocks)
        seconds, memory = _measure(name, out)
        rows.append((name, f"{seconds:,.1f} s", f"{memory:,.0f} MiB"))
        click.echo(f"{name}: {seconds:,.1f} s, {memory:,.0f} MiB", err=True)
    sizes = [(path.name, f"{path.stat().st_size / 1e6:,.1f} MB", "") for path in sorted(out.glob("*.*"))]
    for name, value, most in [*rows, *sizes]:
        click.echo(f"{name:<28} {value:>12} {most:>12}")
    if folder is None:
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
