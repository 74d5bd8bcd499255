"""What a build of 300 GB of English text takes, reckoned from the constants of a small one.

`measure` reads the constants from the work folder of a finished small build that was kept (`--keep-work`); `rows`
does the arithmetic. Whatever is the same at every size (a worker's buffers, the launcher's base) is not reckoned but
measured by `tests.benchmarks.pipeline`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from bertdata.config import MIB
from bertdata.ranges import GROUP
from bertdata.runs import RUN_BYTES, Run
from bertdata.work import Work, portion_record

__all__ = ["Measured", "measure", "rows"]

TEXT_BYTES = 300 * 10**9
NUM_PORTIONS = 2000  # at most; the size of a split follows
MIN_PORTION_BYTES = 4 * MIB
SHARD_SIZE = 64 * MIB
NUM_BINS = 1 << 16
INDEX_ROW_BYTES = 40
INDEX_COPIES = 4  # the columns, which grow by copying, and the file twice
ENTRY_BYTES = 7000  # of a shard: its entry, its task, its place in the plan, and its lines of the manifest


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Constants of a small build.

    Attributes:
        run_bytes_per_byte: Bytes of runs per byte of input.
        documents_per_byte: Documents per byte of input.
        shard_bytes_per_byte: Bytes of the shards of one length per byte of input.
        bytes_per_bin: Bytes beside a run for each key bin of it that is not empty.
        record_bytes: Bytes of the record of a portion.
        task_bytes: Bytes of a shard in `plan.json`.
        shard_record_bytes: Bytes of the record of a shard of `SHARD_SIZE`.
        block_bytes: Bytes of a block of a shard.
    """

    run_bytes_per_byte: float
    documents_per_byte: float
    shard_bytes_per_byte: float
    bytes_per_bin: float
    record_bytes: float
    task_bytes: float
    shard_record_bytes: float
    block_bytes: float


def measure(work: Work, *, max_seq_length: int) -> Measured:
    """Reads the constants of a build that is finished and whose work folder was kept.

    Args:
        work: The build; its input is not compressed.
        max_seq_length: Which of its data sets.
    """
    names = [portion_record(number) for number in range(len(work.portions))]
    records = [work.read(name) for name in names]
    runs = [Run(*run) for record in records for run in record["runs"]]
    folder = work.folder.child("runs")
    num_bins = sum(len(np.load(folder.local / run.bins_name)["bins"]) for run in runs)
    input_bytes = sum(split.stop - split.start for portion in work.portions for split in portion)
    tasks = [task for task in work.read("plan.json")["tasks"] if task["max_seq_length"] == max_seq_length]
    shards = [work.folder.read(f"shards/{max_seq_length}/{_name(task)}.json") for task in tasks]
    shard_folder = work.data_set_folder(max_seq_length)
    shard_bytes = sum(shard_folder.size(_name(task)) or 0 for task in tasks)
    num_blocks = sum(len(json.loads(shard)["blocks"]) for shard in shards)
    return Measured(
        run_bytes_per_byte=sum(run.num_bytes for run in runs) / input_bytes,
        documents_per_byte=sum(record["counts"]["documents"] for record in records) / input_bytes,
        shard_bytes_per_byte=shard_bytes / input_bytes,
        bytes_per_bin=sum(run.bins_bytes for run in runs) / num_bins,
        record_bytes=sum(work.folder.size(name) or 0 for name in names) / len(names),
        task_bytes=(work.folder.size("plan.json") or 0) / len(work.read("plan.json")["tasks"]),
        shard_record_bytes=sum(map(len, shards)) * SHARD_SIZE / shard_bytes,
        block_bytes=shard_bytes / num_blocks,
    )


def _name(task: dict[str, object]) -> str:
    return f"{task['split']}-{task['number']:05d}-of-{task['num_shards']:05d}.tar"


def rows(measured: Measured, *, text_bytes: int = TEXT_BYTES) -> list[tuple[str, str]]:
    """Returns what a build of one length takes, as (what, how much).

    Args:
        measured: Constants.
        text_bytes: Bytes of input, plain.
    """
    portion_bytes = max(MIN_PORTION_BYTES, text_bytes // NUM_PORTIONS)
    num_portions = math.ceil(text_bytes / portion_bytes)
    runs_per_portion = max(1, math.ceil(portion_bytes * measured.run_bytes_per_byte / RUN_BYTES))
    num_runs = num_portions * runs_per_portion
    total_run_bytes = text_bytes * measured.run_bytes_per_byte
    num_shards = math.ceil(text_bytes * measured.shard_bytes_per_byte / SHARD_SIZE)
    documents_per_run = text_bytes * measured.documents_per_byte / num_runs
    filled_bins = NUM_BINS * -math.expm1(-documents_per_run / NUM_BINS)
    bins_bytes = filled_bins * measured.bytes_per_bin
    places_bytes = 8 + 8 * num_runs + 4 * num_runs * (num_shards + 1)
    groups = math.ceil(num_runs / GROUP)
    part = total_run_bytes / num_runs / num_shards
    record_bytes = measured.shard_record_bytes
    num_blocks = math.ceil(text_bytes * measured.shard_bytes_per_byte / measured.block_bytes)
    index_bytes = INDEX_ROW_BYTES * num_blocks
    return [
        ("input, one length", f"{text_bytes / 1e9:,.0f} GB of text"),
        ("portions", f"{num_portions:,} of {portion_bytes / 1e6:,.0f} MB"),
        ("runs", f"{num_runs:,} of {total_run_bytes / num_runs / 1e6:,.0f} MB; {total_run_bytes / 1e9:,.0f} GB in all"),
        ("shards", f"{num_shards:,} of {SHARD_SIZE / MIB:,.0f} MiB"),
        ("a worker's buffer of a run", f"{min(RUN_BYTES, total_run_bytes / num_runs) / MIB:,.0f} MiB"),
        (
            "counts beside a run",
            f"{bins_bytes / 1e3:,.0f} kB; {bins_bytes * num_runs / 1e9:,.2f} GB in all, read twice",
        ),
        ("planning holds", f"{(4 * GROUP * (num_shards + 1) + 16 * NUM_BINS + bins_bytes) / MIB:,.0f} MiB"),
        ("plan.json", f"{measured.task_bytes * num_shards / 1e6:,.1f} MB"),
        (
            "places of shards in runs",
            f"{places_bytes / 1e6:,.0f} MB; a shard reads {16 * num_runs / 1e3:,.0f} kB of it",
        ),
        ("records of portions", f"{measured.record_bytes * num_portions / 1e6:,.1f} MB, read once"),
        ("requests of a shard", f"{num_runs:,} of {part / 1e3:,.1f} kB to runs, {2 + groups:,} to the plan"),
        ("requests of all shards", f"{num_shards * (num_runs + 2 + groups) / 1e6:,.0f} million"),
        ("read from runs in all", f"{total_run_bytes / 1e9:,.0f} GB, each byte once"),
        ("records of shards", f"{record_bytes * num_shards / 1e6:,.0f} MB, read once by the commit"),
        ("index.arrow", f"{index_bytes / 1e6:,.0f} MB for {num_blocks / 1e6:,.1f} million blocks"),
        ("the commit holds", f"{(INDEX_COPIES * index_bytes + ENTRY_BYTES * num_shards) / MIB:,.0f} MiB"),
    ]
