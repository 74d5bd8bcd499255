"""The parts of the benchmark of builds at size; see `tests.benchmarks.pipeline`."""

from __future__ import annotations

import collections
import importlib.util
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tests.benchmarks.corpora import DUMP, write_dump, write_dump_with_long_article, write_packed_dump
from tests.benchmarks.kills import TARGETS, Kill, digests, kill_and_go_on
from tests.benchmarks.processes import Run, watch
from tests.benchmarks.timeline import SPREAD, draw, save_figure, stage_times

__all__ = [
    "Bench",
    "measure_dry_run",
    "measure_kills",
    "measure_memory",
    "measure_scaling",
    "measure_startup",
    "measure_vocabulary",
    "print_arithmetic",
]

VOCAB = DUMP.with_name("bert-base-uncased-vocab.txt")
MIB = 1 << 20
MAX_WORKER_MIB = 1024
MAX_LAUNCHER_MIB = 500
MAX_GROWTH = 0.15
MIN_SPEEDUP = 1.85
MAX_TAIL = 0.05
MAX_STARTUP_SECONDS = 5.0
MAX_COST_GROWTH = 0.10
MAX_END_SECONDS = 10.0


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


def _given_vocabulary() -> list[str]:
    """Returns the options of a build that trains no vocabulary, which no number of workers makes faster."""
    return ["--tokenizer", str(VOCAB)] if VOCAB.exists() else ["--vocab-size", "8000"]


def _verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "missed"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def measure_memory(bench: Bench) -> None:
    """Builds dumps of each size with a vocabulary of their own, and prints peak memory and cost."""
    runs = [(size, bench.build(write_dump(bench.folder, num_bytes=size))) for size in bench.sizes]
    _print_memory([(_megabytes(size), run) for size, run in runs])
    if len(runs) > 1:
        peaks = [_peaks(run) for _, run in runs]
        for role in ("launcher", "worker"):
            growth = max(peak[role] for peak in peaks) / min(peak[role] for peak in peaks) - 1
            verdict = _verdict(growth <= MAX_GROWTH)
            click.echo(f"most {role} memory is {growth:.0%} above the least ({MAX_GROWTH:.0%} allowed: {verdict})")
        again = bench.sizes[-2]
        runs.append((again, bench.build(write_dump(bench.folder, num_bytes=again))))
    _print_cost(runs)
    special = []
    if bench.packed_size:
        packed = write_packed_dump(bench.folder, num_bytes=bench.packed_size)
        special.append((f"one bz2 stream of {_megabytes(bench.packed_size)}", bench.build(packed)))
    if bench.article_size:
        long = write_dump_with_long_article(
            bench.folder, num_bytes=bench.article_size, article_bytes=bench.article_size
        )
        special.append((f"an article of {_megabytes(bench.article_size)}", bench.build(long)))
    if special:
        click.echo()
        _print_memory(special)


def _peaks(run: Run) -> dict[str, float]:
    """Returns the peak MiB by kind of process."""
    peaks: dict[str, float] = collections.defaultdict(float)
    for role, peak in run.peak.items():
        kind = "worker" if role.startswith("worker") else role
        peaks[kind] = max(peaks[kind], peak / MIB)
    return peaks


def _print_memory(runs: Sequence[tuple[str, Run]]) -> None:
    kinds = list(dict.fromkeys(kind for _, run in runs for kind in _peaks(run)))
    click.echo(f"{'peak memory, MiB':<28}" + "".join(f"{kind:>19}" for kind in kinds))
    for name, run in runs:
        peaks = _peaks(run)
        click.echo(f"{name:<28}" + "".join(f"{peaks.get(kind, 0):>19,.0f}" for kind in kinds))
        for kind, limit in (("worker", MAX_WORKER_MIB), ("launcher", MAX_LAUNCHER_MIB)):
            if peaks[kind] > limit:
                click.echo(f"  {kind}: {limit:,} MiB allowed: missed")
    stages = list(dict.fromkeys(stage for _, run in runs for role, stage in run.peak_by_stage if "worker" in role))
    click.echo(f"{'of workers, by stage':<28}" + "".join(f"{stage:>19}" for stage in stages))
    for name, run in runs:
        most = [
            max((peak for (role, at), peak in run.peak_by_stage.items() if at == stage and "worker" in role), default=0)
            for stage in stages
        ]
        click.echo(f"{name:<28}" + "".join(f"{peak / MIB:>19,.0f}" for peak in most))


def _print_cost(runs: Sequence[tuple[int, Run]]) -> None:
    """Prints what a MB costs; the training of the vocabulary, which takes the same at any size, by itself."""
    click.echo(f"\n{'cost':<12}{'CPU s/MB':>10}{'MB/s':>10}{'s':>10}" + "".join(f"{stage:>22}" for stage in SPREAD))
    rates: dict[int, list[float]] = {}
    for size, run in runs:
        spread = [run.cpu[stage] for stage in SPREAD]
        times = {time.stage: time.seconds for time in stage_times(run.spans, num_workers=run.num_workers)}
        seconds = sum(times.get(stage, 0.0) for stage in SPREAD)
        rates.setdefault(size, []).append(sum(spread) / size * 1e6)
        stages = "".join(f"{cpu / size * 1e9:>15,.1f} CPU s/GB" for cpu in spread)
        click.echo(
            f"{_megabytes(size):<12}{rates[size][-1]:>10.4f}{size / 1e6 / seconds:>10.2f}{run.seconds:>10,.1f}{stages}"
        )
    if len(rates) > 1:
        *_, small, large = sorted(rates)
        growth = statistics.mean(rates[large]) / statistics.mean(rates[small]) - 1
        verdict = _verdict(abs(growth) <= MAX_COST_GROWTH)
        click.echo(
            f"a MB of {_megabytes(large)} costs {growth:+.1%} CPU against one of {_megabytes(small)} "
            f"({MAX_COST_GROWTH:.0%} allowed: {verdict}); vocabularies took "
            + ", ".join(f"{run.cpu['train_tokenizer']:.1f} CPU s" for _, run in runs)
        )


def _work_seconds(run: Run) -> float:
    """Returns the seconds from the first document to the end of the last task."""
    first = min(span.start for span in run.spans if span.stage in SPREAD)
    return max(span.stop for span in run.spans) - first


def measure_scaling(bench: Bench) -> None:
    """Builds the same dump with one worker and with several, in turn, and prints who waited for whom."""
    dump = write_dump(bench.folder, num_bytes=bench.scaling_size)
    options = [*_given_vocabulary(), "--shard-size", "16MiB"]  # so that there are many also out of a small dump
    seconds: dict[int, list[float]] = {1: [], bench.num_workers: []}
    cpu: dict[int, list[float]] = {1: [], bench.num_workers: []}
    for number in range(bench.runs):
        for num_workers, taken in seconds.items():
            run = bench.build(dump, *options, num_workers=num_workers)
            taken.append(_work_seconds(run))
            cpu[num_workers].append(sum(run.cpu[stage] for stage in SPREAD))
            click.echo(
                f"{num_workers} workers: {run.seconds:.1f} s in all, {taken[-1]:.1f} s from the first document on "
                f"({bench.scaling_size / 1e6 / taken[-1]:.1f} MB/s), {cpu[num_workers][-1]:.1f} CPU s in tasks"
            )
            if num_workers == bench.num_workers:
                _print_timeline(run, bench.folder / f"timeline-{number}.svg")
    one, several = (statistics.median(seconds[num_workers]) for num_workers in (1, bench.num_workers))
    dearer = statistics.median(cpu[bench.num_workers]) / statistics.median(cpu[1]) - 1
    needed = MIN_SPEEDUP if bench.num_workers == 2 else MIN_SPEEDUP / 2 * bench.num_workers
    click.echo(
        f"{bench.num_workers} workers are {one / several:.2f} times as fast as one ({needed:.2f} needed: "
        f"{_verdict(one / several >= needed)}); together they take {dearer:+.1%} CPU time for the same work"
    )


def _print_timeline(run: Run, figure: Path) -> None:
    times = stage_times(run.spans, num_workers=run.num_workers)
    for time_ in times:
        tail = f", idle tail {time_.tail:.2f} s" if time_.stage in SPREAD else ", one worker alone"
        click.echo(f"  {time_.stage:<16}{time_.seconds:>8.2f} s, idle {time_.idle:>6.1%}{tail}")
    for line in draw(run.spans, num_workers=run.num_workers, seconds=run.seconds):
        click.echo(f"  {line}")
    tail = sum(time_.tail for time_ in times)
    seconds = _work_seconds(run)
    click.echo(
        f"  idle tails: {tail:.2f} s of {seconds:.1f} s, {tail / seconds:.1%} ({MAX_TAIL:.0%} allowed: "
        f"{_verdict(tail <= MAX_TAIL * seconds)})"
    )
    if save_figure(run.spans, figure, title=f"{run.num_workers} workers"):
        click.echo(f"  drawn in {figure}")


def measure_startup(bench: Bench) -> None:
    """Prints how long it takes to the first document, and from the last task to the end."""
    dump = write_dump(bench.folder, num_bytes=min(bench.small_size, 4_000_000))
    for num_workers in (1, bench.num_workers):
        first, last = [], []
        for _ in range(2 * bench.runs + 1):
            run = bench.build(dump, *_given_vocabulary(), num_workers=num_workers)
            first.append(min(span.start for span in run.spans if span.stage in SPREAD))
            last.append(run.seconds - max(span.stop for span in run.spans))
        start = statistics.median(first)
        click.echo(
            f"{num_workers} workers: {start:.2f} s to the first document ({min(first):.2f} to {max(first):.2f}; "
            f"{MAX_STARTUP_SECONDS:.0f} s allowed: {_verdict(start < MAX_STARTUP_SECONDS)}), "
            f"{statistics.median(last):.2f} s from the last task to the end"
        )


def measure_kills(bench: Bench) -> None:
    """Kills builds at random moments, runs them again, and prints what that cost."""
    dump = write_dump(bench.folder, num_bytes=bench.small_size)
    command = bench.command(dump, "--vocab-size", "3000", "--num-shards", "6", "--keep-work", "--max-seq-length", "64")
    shutil.rmtree(bench.out, ignore_errors=True)
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - started
    expected = digests(bench.out)
    kills = []
    for seed in range(bench.num_kills):
        target = TARGETS[seed % len(TARGETS)]
        kill = kill_and_go_on(command, out=bench.out, target=target, seed=seed, seconds=seconds, expected=expected)
        kills.append(kill)
        _print_kill(kill)
    shutil.rmtree(bench.out, ignore_errors=True)
    lived = [kill for kill in kills if kill.was_named is not None]
    slowest = max((kill.end_seconds for kill in kills), default=0.0)
    rows = {
        f"all processes gone within {MAX_END_SECONDS:.0f} s (slowest: {slowest:.1f} s)": (
            sum(kill.end_seconds <= MAX_END_SECONDS for kill in kills),
            len(kills),
        ),
        "what died was named": (sum(bool(kill.was_named) for kill in lived), len(lived)),
        "byte-identical after the same command": (sum(kill.is_same for kill in kills), len(kills)),
        "splits and shards not done again": (
            sum(kill.num_done - kill.num_redone for kill in kills),
            sum(kill.num_done for kill in kills),
        ),
        "no temporary file left": (sum(not kill.left_over for kill in kills), len(kills)),
    }
    for name, (count, total) in rows.items():
        click.echo(f"{name:<56}{count:>6} of {total:<6}{_verdict(count == total)}")


def _print_kill(kill: Kill) -> None:
    named = {True: "named", False: "NOT NAMED", None: "-"}[kill.was_named]
    click.echo(
        f"{kill.target:<9} at {kill.moment:5.1f} s ({', '.join(kill.stages) or 'no task':<30}): gone after "
        f"{kill.end_seconds:4.1f} s, {named:<9} {kill.num_done:>3} done, {kill.num_redone} again, "
        f"{'same bytes' if kill.is_same else 'OTHER BYTES'}{' LEFT: ' + ', '.join(kill.left_over) if kill.left_over else ''}"
    )


def _has_option(command: str, option: str) -> bool:
    result = subprocess.run([sys.executable, "-m", "bertdata", command, "--help"], capture_output=True, text=True)
    return option in result.stdout


def measure_vocabulary(bench: Bench) -> None:
    """Trains a vocabulary with one worker and with several, and prints time, memory, and whether they are the same."""
    dump = write_dump(bench.folder, num_bytes=bench.scaling_size)
    found: list[bytes] = []
    for num_workers in (1, bench.num_workers) if _has_option("vocab", "--num-workers") else (None,):
        path = bench.folder / "vocabulary" / "tokenizer.json"
        command = [sys.executable, "-m", "bertdata", "vocab", "--input", str(dump), "--out", str(path)]
        run = watch([*command, *(["--num-workers", str(num_workers)] if num_workers else [])], out=bench.out)
        if run.status != 0:
            raise click.ClickException(f"bertdata vocab ended with {run.status}:\n{run.error}")
        found.append(path.read_bytes())
        peaks = ", ".join(f"{kind} {peak:,.0f} MiB" for kind, peak in _peaks(run).items())
        click.echo(f"{num_workers or 1} workers, {_megabytes(bench.scaling_size)}: {run.seconds:.1f} s; {peaks}")
        shutil.rmtree(path.parent)
    click.echo(f"the same vocabulary: {_verdict(len(set(found)) == 1)}")


def measure_dry_run(bench: Bench) -> None:
    """Prints what --dry-run says, and what the build then took."""
    if not _has_option("build", "--dry-run"):
        click.echo("bertdata build has no --dry-run here")
        return
    dump = write_dump(bench.folder, num_bytes=bench.scaling_size)
    command = bench.command(dump, *_given_vocabulary())
    shutil.rmtree(bench.out, ignore_errors=True)
    click.echo(subprocess.run([*command, "--dry-run"], check=True, capture_output=True, text=True).stdout)
    run = watch(command, out=bench.out)
    shards = list(bench.out.rglob("*.tar"))
    size = sum(path.stat().st_size for path in bench.out.rglob("*") if path.is_file())
    num_splits = len({span.task for span in run.spans if span.stage == "tokenize_split"})
    click.echo(
        f"it took {run.seconds:.1f} s; {num_splits} splits, {len(shards)} shards, {size / MIB:,.1f} MiB in the end"
    )
    shutil.rmtree(bench.out)


def print_arithmetic(_bench: Bench) -> None:
    """Prints what a build of 300 GB of text takes, computed from measured constants."""
    if importlib.util.find_spec("tests.benchmarks.at_size") is None:
        click.echo("the arithmetic is not here")
        return
    from tests.benchmarks import at_size

    for row in at_size.rows():
        click.echo("  ".join(str(value) for value in row) if isinstance(row, tuple) else row)
