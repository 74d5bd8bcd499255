"""Ranges: which bytes of each run hold the documents of which shard.

Shards are ranges of key bins, and a run knows how many bytes it has of each bin; so where a shard's part of a run
begins and ends is known before anything is read. For R runs and S shards of one length one file holds, all uint32:

    R, S
    portion and number    [R, 2]
    places in runs 0-511      [S + 1, 512]     row s: where shard s begins in each of them; it ends where the next one
    places in runs 512-1023   [S + 1, 512]     begins
    ...

A shard reads the head and two rows of each group, which lie next to each other: 16 bytes per run. Planning holds a
group at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from bertdata.errors import OutputError
from bertdata.planning import ShardTask
from bertdata.run_reading import RunPart
from bertdata.runs import Run, RunBins, damaged_run, run_name
from bertdata.spans import offsets_of
from bertdata.spill import BIN_BITS
from bertdata.storage import Folder

__all__ = ["add_up_bins", "read_ranges", "write_ranges"]

GROUP = 512


def _file_name(max_seq_length: int) -> str:
    return f"ranges/{max_seq_length}.places"


def _iter_bins(runs_folder: Folder, runs: Sequence[Run]) -> Iterator[RunBins]:
    """Yields the bins of each run.

    Raises:
        OutputError: One is missing or damaged.
    """
    try:
        parts = runs_folder.read_many([(run.bins_name, 0, run.bins_bytes) for run in runs])
        for run, data in zip(runs, parts, strict=True):
            yield RunBins.from_bytes(data, where=f"{runs_folder.location}/{run.bins_name}")
    except OSError as error:
        raise damaged_run(runs_folder.location, error) from error


def add_up_bins(runs_folder: Folder, runs: Sequence[Run]) -> npt.NDArray[np.int64]:
    """Returns documents and tokens per key bin over all runs: int64 [65,536, 2]."""
    histogram = np.zeros((1 << BIN_BITS, 2), dtype=np.int64)
    for bins in _iter_bins(runs_folder, runs):
        histogram[bins.bins, 0] += bins.num_documents
        histogram[bins.bins, 1] += bins.num_tokens
    return histogram


def write_ranges(folder: Folder, runs_folder: Folder, runs: Sequence[Run], *, tasks: Sequence[ShardTask]) -> None:
    """Writes where the shards of all lengths lie in all runs.

    Args:
        folder: The work folder.
        runs_folder: Where the runs are.
        runs: All runs.
        tasks: All shards.

    Raises:
        OutputError: What lies beside a run does not fit it.
    """
    lengths = sorted({task.max_seq_length for task in tasks})
    cuts = {
        length: np.array([*sorted(task.first_bin for task in tasks if task.max_seq_length == length), 1 << BIN_BITS])
        for length in lengths
    }
    numbers = np.array([(run.portion, run.number) for run in runs], dtype="<u4").reshape(-1, 2)
    with ExitStack() as stack:
        files = {length: stack.enter_context(folder.create(_file_name(length))) for length in lengths}
        for length, file in files.items():
            file.write(np.array([len(runs), len(cuts[length]) - 1], dtype="<u4").tobytes() + numbers.tobytes())
        all_bins = _iter_bins(runs_folder, runs)
        for first in range(0, len(runs), GROUP):
            group = runs[first : first + GROUP]
            places = {length: np.empty((len(cuts[length]), len(group)), dtype="<u4") for length in lengths}
            for column, (run, bins) in enumerate(zip(group, all_bins, strict=False)):
                bytes_before = offsets_of(bins.num_bytes)
                if bytes_before[-1] != run.num_bytes:
                    raise damaged_run(f"{runs_folder.location}/{run.bins_name}", ValueError("it is of another run"))
                for length in lengths:
                    places[length][:, column] = bytes_before[np.searchsorted(bins.bins, cuts[length])]
            for length, file in files.items():
                file.write(places[length].tobytes())


def read_ranges(folder: Folder, task: ShardTask) -> list[RunPart]:
    """Returns what a shard reads of each run.

    Args:
        folder: The work folder.
        task: The shard.

    Raises:
        OutputError: The plan is missing or damaged.
    """
    name = _file_name(task.max_seq_length)
    try:
        num_runs, num_shards = np.frombuffer(folder.read_ranges(name, [(0, 8)])[0], dtype="<u4").tolist()
        ranges = [(8, 8 + 8 * num_runs)]
        group_start = 8 + 8 * num_runs
        for first in range(0, num_runs, GROUP):
            row_bytes = 4 * min(GROUP, num_runs - first)
            start = group_start + task.place * row_bytes
            ranges.append((start, start + 2 * row_bytes))
            group_start += (num_shards + 1) * row_bytes
        head, *rows = folder.read_ranges(name, ranges)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"the plan {folder.location}/{name} cannot be read ({error}); run the same command again, with --overwrite "
            "if that does not help"
        ) from error
    numbers = np.frombuffer(head, dtype="<u4").reshape(-1, 2).tolist()
    places = np.concatenate([np.frombuffer(part, dtype="<u4").reshape(2, -1) for part in rows], axis=1)
    return [
        RunPart(run_name(portion, number), start, stop)
        for (portion, number), start, stop in zip(numbers, *places.tolist(), strict=True)
        if stop > start
    ]
