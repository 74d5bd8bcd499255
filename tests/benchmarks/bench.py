"""What the parts of the benchmark of builds at size share; see `tests.benchmarks.pipeline`."""

from __future__ import annotations

import collections
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from tests.benchmarks.corpora import DUMP
from tests.benchmarks.processes import Run, watch

__all__ = ["MIB", "Bench", "given_vocabulary", "megabytes", "peak_memory", "verdict"]

VOCAB = DUMP.with_name("bert-base-uncased-vocab.txt")
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured, and where: the options of the command line, and a folder."""

    folder: Path
    sizes: tuple[int, ...]
    packed_size: int
    article_size: int
    scaling_size: int
    small_size: int
    num_workers: int
    runs: int
    num_kills: int

    @property
    def out(self) -> Path:
        """Where builds write to, one after the other."""
        return self.folder / "shards"

    def command(self, dump: Path, *options: str, num_workers: int | None = None) -> list[str]:
        """Returns the command line of a build."""
        workers = str(num_workers or self.num_workers)
        command = [sys.executable, "-m", "bertdata", "build", "--input", str(dump), "--out", str(self.out)]
        return [*command, "--num-workers", workers, *options]

    def build(self, dump: Path, *options: str, num_workers: int | None = None) -> Run:
        """Runs a build, watches it, and removes what it wrote."""
        shutil.rmtree(self.out, ignore_errors=True)
        run = watch(self.command(dump, *options, num_workers=num_workers), out=self.out)
        shutil.rmtree(self.out, ignore_errors=True)
        if run.status != 0:
            raise click.ClickException(f"the build of {dump} ended with {run.status}:\n{run.error}")
        return run


def given_vocabulary() -> list[str]:
    """Returns the options of a build that trains no vocabulary, which no number of workers makes faster."""
    return ["--tokenizer", str(VOCAB)] if VOCAB.exists() else ["--vocab-size", "8000"]


def verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "missed"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def peak_memory(run: Run) -> dict[str, float]:
    """Returns the peak MiB by kind of process."""
    peaks: dict[str, float] = collections.defaultdict(float)
    for role, peak in run.peak.items():
        kind = "worker" if role.startswith("worker") else role
        peaks[kind] = max(peaks[kind], peak / MIB)
    return peaks
