"""Builds at size, measured from outside: `python -m tests.benchmarks.pipeline`.

Every build is the real command line in processes of its own. The figures are the machine's of this hour; what counts is
how they compare with each other: memory at one size and another, one worker and two, the cost of a MB.

    memory    peak memory of each process at each size, with a vocabulary to train, for a bz2 file of one stream, and
              for one very long article
    cost      CPU seconds and seconds of the clock per MB at each size (of the same builds; the second largest twice)
    scaling   one worker against two, and how long a worker waits for the other's last task; timelines
    startup   from the command to the first document, and from the last task to the end
    kills     builds killed at random moments and run again
    vocab     the vocabulary by one worker and by two
    dry-run   what --dry-run says, and what comes
    paper     launcher memory, reads and requests for 300 GB of text, by arithmetic
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from bertdata.parameters import Size
from tests.benchmarks import measures, outcomes
from tests.benchmarks.bench import Bench

PARTS: dict[str, Callable[[Bench], None]] = {
    "startup": measures.measure_startup,
    "scaling": measures.measure_scaling,
    "memory": measures.measure_memory,
    "vocab": outcomes.measure_vocabulary,
    "dry-run": outcomes.measure_dry_run,
    "paper": outcomes.print_arithmetic,
    "kills": outcomes.measure_kills,
}


class Sizes(click.ParamType[Any]):
    """Sizes with commas between them."""

    name = "sizes"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Returns the sizes in bytes."""
        if isinstance(value, tuple):
            return value
        return tuple(Size().convert(word, param, ctx) for word in value.split(","))


class Parts(click.ParamType[Any]):
    """Names of parts with commas between them; "cost" is printed with "memory"."""

    name = "parts"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Returns the names, in the order in which they are measured."""
        if isinstance(value, tuple):
            return value
        asked = {"memory" if word == "cost" else word for word in value.split(",")}
        if unknown := asked - set(PARTS) - {"all"}:
            self.fail(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}, cost, all", param, ctx)
        return tuple(PARTS) if "all" in asked else tuple(part for part in PARTS if part in asked)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
    else:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)


@click.command(help=(__doc__ or "").replace("\n\n    memory", "\n\n\b\n    memory"))
@click.option("--parts", type=Parts(), default="all", show_default=True, help="What to measure, with commas between.")
@click.option("--sizes", type=Sizes(), default="50MB,500MB,5GB", show_default=True, help="Dumps for memory and cost.")
@click.option("--packed-size", type=Size(), default="2GB", show_default=True, help="XML in one bz2 stream; 0B: none.")
@click.option("--article-size", type=Size(), default="60MB", show_default=True, help="The very long article; 0B: none.")
@click.option("--scaling-size", type=Size(), default="300MB", show_default=True, help="Dump for scaling.")
@click.option("--small-size", type=Size(), default="4MB", show_default=True, help="Dump for kills.")
@click.option("--num-workers", default=2, show_default=True, help="Worker processes.")
@click.option("--runs", default=2, show_default=True, help="Runs of each build that is timed, in turn.")
@click.option("--kills", "num_kills", default=50, show_default=True, help="Builds that are killed.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Folder for the dumps, used again.")
def main(parts: tuple[str, ...], keep: Path | None, **values: int | tuple[int, ...]) -> None:
    """Measures what is asked for and prints the tables."""
    with _folder(keep) as folder:
        bench = Bench(folder=folder, **values)  # type: ignore[arg-type]  # click's values are those of its options
        for part in parts:
            started = time.monotonic()
            click.echo(f"\n== {part}")
            PARTS[part](bench)
            click.echo(f"({part}: {time.monotonic() - started:,.0f} s)")


if __name__ == "__main__":
    main()
