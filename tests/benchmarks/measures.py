"""Memory, cost, scaling and start-up of builds at size; see `tests.benchmarks.pipeline`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import click

from tests.benchmarks.bench import MIB, Bench, given_vocabulary, megabytes, peak_memory, verdict
from tests.benchmarks.corpora import write_dump, write_dump_with_long_article, write_packed_dump
from tests.benchmarks.processes import Run
from tests.benchmarks.timeline import SPREAD, draw, save_figure, stage_times

__all__ = ["measure_memory", "measure_scaling", "measure_startup"]

SMALL_SHARDS = ("--shard-size", "16MiB")
MAX_WORKER_MIB = 1024
MAX_LAUNCHER_MIB = 500
MAX_GROWTH = 0.15
MIN_SPEEDUP = 1.85
MAX_TAIL = 0.05
MAX_STARTUP_SECONDS = 5.0
MAX_COST_GROWTH = 0.10


def measure_memory(bench: Bench) -> None:
    """Builds dumps of each size, and unusual ones, and prints peak memory and cost."""
    given = given_vocabulary()
    sized = [*given, *SMALL_SHARDS]
    click.echo(f"the sizes with {' '.join(SMALL_SHARDS)}, of which the smallest dump has some; the rest with 64MiB")
    runs = [(size, bench.build(write_dump(bench.folder, num_bytes=size), *sized)) for size in bench.sizes]
    _print_memory([(megabytes(size), run) for size, run in runs])
    if len(runs) > 1:
        peaks = [peak_memory(run) for _, run in runs]
        for role in ("launcher", "worker"):
            growth = max(peak[role] for peak in peaks) / min(peak[role] for peak in peaks) - 1
            reached = verdict(growth <= MAX_GROWTH)
            click.echo(f"most {role} memory is {growth:.0%} above the least ({MAX_GROWTH:.0%} allowed: {reached})")
        # Before and after the largest, because the machine's own speed changes.
        again = bench.sizes[-2]
        runs.append((again, bench.build(write_dump(bench.folder, num_bytes=again), *sized)))
        _print_cost(runs)
    _measure_unusual(bench, given)


def _measure_unusual(bench: Bench, given: list[str]) -> None:
    """Prints the peak memory where a vocabulary is trained, where nothing can be cut, and of one long article."""
    dumps: dict[str, tuple[Path, list[str]]] = {}
    if len(bench.sizes) > 1:
        size = bench.sizes[-2]
        dumps[f"{megabytes(size)}, trained"] = (write_dump(bench.folder, num_bytes=size), [])
    if bench.packed_size:
        name = f"one bz2 stream, {megabytes(bench.packed_size)}"
        dumps[name] = (write_packed_dump(bench.folder, num_bytes=bench.packed_size), given)
    if bench.article_size:
        size = bench.article_size
        path = write_dump_with_long_article(bench.folder, num_bytes=size, article_bytes=size)
        dumps[f"an article of {megabytes(size)}"] = (path, given)
    if dumps:
        click.echo()
        _print_memory([(name, bench.build(dump, *options)) for name, (dump, options) in dumps.items()])


def _print_memory(runs: Sequence[tuple[str, Run]]) -> None:
    kinds = list(dict.fromkeys(kind for _, run in runs for kind in peak_memory(run)))
    click.echo(f"{'peak memory, MiB':<28}" + "".join(f"{kind:>19}" for kind in kinds))
    for name, run in runs:
        peaks = peak_memory(run)
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
    """Prints what a MB costs."""
    click.echo(f"\n{'cost':<12}{'CPU s/MB':>10}{'MB/s':>10}{'s':>10}" + "".join(f"{stage:>22}" for stage in SPREAD))
    rates: dict[int, list[float]] = {}
    for size, run in runs:
        spread = [run.cpu[stage] for stage in SPREAD]
        times = {time.stage: time.seconds for time in stage_times(run.spans, num_workers=run.num_workers)}
        seconds = sum(times.get(stage, 0.0) for stage in SPREAD)
        rates.setdefault(size, []).append(sum(spread) / size * 1e6)
        stages = "".join(f"{cpu / size * 1e9:>15,.1f} CPU s/GB" for cpu in spread)
        click.echo(
            f"{megabytes(size):<12}{rates[size][-1]:>10.4f}{size / 1e6 / seconds:>10.2f}{run.seconds:>10,.1f}{stages}"
        )
    if len(rates) > 1:
        *_, small, large = sorted(rates)
        growth = statistics.mean(rates[large]) / statistics.mean(rates[small]) - 1
        reached = verdict(abs(growth) <= MAX_COST_GROWTH)
        click.echo(
            f"a MB of {megabytes(large)} costs {growth:+.1%} CPU against one of {megabytes(small)} "
            f"({MAX_COST_GROWTH:.0%} allowed: {reached})"
        )


def _first_document(run: Run) -> float:
    """Returns when the first document of a build of `given_vocabulary` was read."""
    is_given = given_vocabulary()[0] == "--tokenizer"  # then no words are counted
    return min(span.start for span in run.spans if span.stage == ("tokenize_portion" if is_given else "count_words"))


def _work_seconds(run: Run) -> float:
    """Returns the seconds from the first document to the end of the last task."""
    return max(span.stop for span in run.spans) - _first_document(run)


def measure_scaling(bench: Bench) -> None:
    """Builds the same dump with one worker and with several, in turn, and prints who waited for whom."""
    dump = write_dump(bench.folder, num_bytes=bench.scaling_size)
    options = [*given_vocabulary(), *SMALL_SHARDS]  # so that there are many also out of a small dump
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
        f"{verdict(one / several >= needed)}); together they take {dearer:+.1%} CPU time for the same work"
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
        f"{verdict(tail <= MAX_TAIL * seconds)})"
    )
    if save_figure(run.spans, figure, title=f"{run.num_workers} workers"):
        click.echo(f"  drawn in {figure}")


def measure_startup(bench: Bench) -> None:
    """Prints how long it takes to the first document, and from the last task to the end."""
    dump = write_dump(bench.folder, num_bytes=min(bench.small_size, 4_000_000))
    for num_workers in (1, bench.num_workers):
        first, last = [], []
        for _ in range(2 * bench.runs + 1):
            run = bench.build(dump, *given_vocabulary(), num_workers=num_workers)
            first.append(_first_document(run))
            last.append(run.seconds - max(span.stop for span in run.spans))
        start = statistics.median(first)
        click.echo(
            f"{num_workers} workers: {start:.2f} s to the first document ({min(first):.2f} to {max(first):.2f}; "
            f"{MAX_STARTUP_SECONDS:.0f} s allowed: {verdict(start < MAX_STARTUP_SECONDS)}), "
            f"{statistics.median(last):.2f} s from the last task to the end"
        )
