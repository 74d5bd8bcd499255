"""The command line on a finished data set: `bertdata inspect` and `verify`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

from bertdata.options import workers_option

__all__ = ["inspect", "verify"]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--num-samples", type=click.IntRange(min=1), default=3, show_default=True, help="Samples to show.")
@click.option("--split", type=click.Choice(["train", "eval"]), default="train", show_default=True, help="Which shards.")
@click.option("--mask-set", type=int, default=0, show_default=True, help="Which mask set is marked in the text.")
def inspect(folder: Path, num_samples: int, split: str, mask_set: int) -> None:
    """Prints a few samples: tokens, segments, label, and one mask set marked in the text.

    Then says how much the lengths of the segments give away.

    Example: bertdata inspect shards/ --num-samples 5
    """
    from bertdata.diagnostics import describe_label_guess
    from bertdata.inspection import iter_descriptions
    from bertdata.manifest import open_data_set

    data_set = open_data_set(folder)
    for text in iter_descriptions(data_set, split=split, num_samples=num_samples, mask_set=mask_set):
        click.echo(text)
    guess = describe_label_guess(data_set.load_statistics())
    if guess is not None:
        click.echo(guess)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Check that files are there, their sizes and checksums; no samples.")
@click.option("--json", "as_json", is_flag=True, help="Print what is wrong as JSON.")
@click.option(
    "--has-document",
    metavar="KEY|FILE",
    help="Instead, tell where a document went: by its key of 16 or 32 hexadecimal digits, or by a file of its text.",
)
@workers_option
def verify(folder: Path, quick: bool, as_json: bool, has_document: str | None, num_workers: int) -> None:
    """Checks a data set: every byte, every sample, and all of them together.

    Prints what is wrong, by shard, block and sample, and exits with 1 if anything is. With --has-document it exits
    with 1 if no sample has text of the document.

    Example: bertdata verify shards/
    """
    from bertdata.locating import describe_document
    from bertdata.manifest import open_data_set
    from bertdata.verify import describe_whole, iter_problems

    if has_document is not None:
        text, is_there = describe_document(open_data_set(folder), has_document)
        click.echo(text)
        sys.exit(0 if is_there else 1)
    problems = []
    for problem in iter_problems(folder, quick=quick, num_workers=num_workers):
        problems.append(problem)
        if not as_json:
            click.echo(str(problem))
    if as_json:
        values = [dataclasses.asdict(problem) for problem in problems]
        click.echo(json.dumps({"folder": str(folder), "problems": values}, indent=2))
    elif problems:
        click.secho(f"{len(problems):,} problems in {folder}", fg="red", err=True)
    else:
        click.echo(describe_whole(folder, quick=quick))
    sys.exit(1 if problems else 0)
