"""What becomes of killed builds, estimates and vocabularies; see `tests.benchmarks.pipeline`."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time

import click

from tests.benchmarks.bench import MIB, Bench, given_vocabulary, megabytes, peak_memory, verdict
from tests.benchmarks.corpora import write_dump, write_prose
from tests.benchmarks.kills import TARGETS, Kill, digests, kill_and_go_on
from tests.benchmarks.processes import watch

__all__ = ["measure_dry_run", "measure_kills", "measure_vocabulary", "print_arithmetic"]

MAX_END_SECONDS = 10.0
MAX_ESTIMATE_ERROR = 0.15


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
        click.echo(f"{name:<56}{count:>6} of {total:<6}{verdict(count == total)}")


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
        peaks = ", ".join(f"{kind} {peak:,.0f} MiB" for kind, peak in peak_memory(run).items())
        click.echo(f"{num_workers or 1} workers, {megabytes(bench.scaling_size)}: {run.seconds:.1f} s; {peaks}")
        shutil.rmtree(path.parent)
    click.echo(f"the same vocabulary: {verdict(len(set(found)) == 1)}")


def measure_dry_run(bench: Bench) -> None:
    """Prints what --dry-run says, and what the build then made and took."""
    if not _has_option("build", "--dry-run"):
        click.echo("bertdata build has no --dry-run here")
        return
    dump = write_dump(bench.folder, num_bytes=bench.scaling_size)
    command = bench.command(dump, *given_vocabulary())
    shutil.rmtree(bench.out, ignore_errors=True)
    said = json.loads(subprocess.run([*command, "--dry-run", "--json"], check=True, capture_output=True).stdout)
    run = watch(command, out=bench.out)
    if run.status != 0:
        raise click.ClickException(f"the build of {dump} ended with {run.status}:\n{run.error}")
    counts = json.loads((bench.out / "manifest.json").read_bytes())["counts"]
    shards = list(bench.out.glob("*.tar"))
    made = {
        "documents": counts["documents"],
        "tokens": counts["tokens"],
        "num_portions": len({span.task for span in run.spans if span.stage == "tokenize_portion"}),
        "train_shards": sum(path.name.startswith("train") for path in shards),
        "shard_bytes": sum(path.stat().st_size for path in shards),
        "peak_disk_bytes": run.peak_disk,
        "seconds": run.seconds,
        "worker_memory": peak_memory(run)["worker"] * MIB,
        "launcher_memory": peak_memory(run)["launcher"] * MIB,
    }
    shutil.rmtree(bench.out)
    for name, value in made.items():
        off = said[name] / value - 1
        reached = verdict(abs(off) <= MAX_ESTIMATE_ERROR)
        click.echo(f"{name:<20} said {said[name]:>16,.0f}, came {value:>16,.0f}, {off:>+7.1%} ({reached})")


def print_arithmetic(bench: Bench) -> None:
    """Prints what a build of 300 GB of text takes, computed from the constants of a small one."""
    if importlib.util.find_spec("tests.benchmarks.at_size") is None:
        click.echo("the arithmetic is not here")
        return
    from bertdata.work import Work
    from tests.benchmarks import at_size

    text = write_prose(bench.folder, num_bytes=bench.small_size)
    shutil.rmtree(bench.out, ignore_errors=True)
    subprocess.run(bench.command(text, *given_vocabulary(), "--keep-work"), check=True, capture_output=True)
    for name, value in at_size.rows(at_size.measure(Work.load(bench.out), max_seq_length=128)):
        click.echo(f"{name:<34}{value}")
    shutil.rmtree(bench.out)
