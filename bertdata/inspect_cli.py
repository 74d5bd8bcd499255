"""The command line to look at samples and documents: `bertdata inspect`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertdata.parameters import CorpusCommand

if TYPE_CHECKING:
    from bertdata.data_set import DataSet
    from bertdata.painting import Painter

__all__ = ["inspect"]


@click.command(cls=CorpusCommand, epilog="Example: bertdata inspect shards/ --shard 0 --sample 12 --mask-set 2")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--num-samples", type=click.IntRange(min=1), default=3, help="Samples to show.")
@click.option("--split", type=click.Choice(["train", "eval"]), default="train", help="Which shards.")
@click.option("--shard", metavar="NAME|NUMBER", help="The one shard to look at. [default: all of the split]")
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    help="Show this one only: its number in the shard or, without --shard, in the split, from 0 on. "
    "[default: the first --num-samples]",
)
@click.option(
    "--mask-set",
    type=click.IntRange(min=0),
    help="The one mask set to show, from 0 on. [default: the first in text, all in JSON]",
)
@click.option(
    "--document",
    metavar="TITLE",
    help="Show the way of one document from --input to its samples instead. [default: none]",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="PATH",
    help="With --document: the input of the build; files, folders or glob patterns. [default: none]",
)
@click.option("--full", is_flag=True, help="With --document: shorten nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object per line for each sample or the document.")
def inspect(
    folder: Path,
    num_samples: int,
    split: str,
    shard: str | None,
    sample: int | None,
    mask_set: int | None,
    document: str | None,
    inputs: tuple[str, ...],
    full: bool,
    as_json: bool,
) -> None:
    """Prints samples as text.

    Tokens, segments, label, and one mask set marked in the text. Then says how much the lengths of the segments give
    away. With --document and --input, prints all that became of one document: TITLE is a wiki page's title, else the
    record's place, such as "line 12".
    """
    from bertdata.data_set import open_data_set
    from bertdata.diagnostics import describe_label_guess
    from bertdata.inspection import describe_sample, iter_shard_samples, sample_to_json
    from bertdata.painting import Painter

    if (document is None) != (not inputs):
        raise click.UsageError("--document and --input go together: a title, and the files to look for it in")
    if full and document is None:
        raise click.UsageError("--full goes with --document")
    if document is not None and (shard is not None or sample is not None or mask_set is not None):
        raise click.UsageError("--document shows the document's own samples; leave out --shard, --sample, --mask-set")
    if shard is not None and not shard.isdecimal() and _is_given("split") and not shard.startswith(split):
        raise click.UsageError(f"--shard {shard} is not of --split {split}; leave out --split")
    if sample is not None and num_samples != 1 and _is_given("num_samples"):
        raise click.UsageError("--sample shows one sample; leave out --num-samples")
    data_set = open_data_set(folder)
    painter = Painter.of(data_set, width=_terminal_width())
    if document is not None:
        _show_walk(
            data_set, painter, inputs=inputs, name=document.strip(), num_samples=num_samples, full=full, as_json=as_json
        )
        return
    chosen = 0 if mask_set is None and not as_json else mask_set
    samples = iter_shard_samples(
        data_set, split=split, shard=shard, sample=sample, num_samples=num_samples, mask_set=chosen
    )
    if as_json:
        for found in samples:
            click.echo(json.dumps(sample_to_json(found, painter=painter), ensure_ascii=False))
        return
    for number, found in enumerate(samples):
        if not number:
            _echo(f"{painter.legend()}\n")
        _echo(f"{describe_sample(found, painter=painter)}\n")
    guess = describe_label_guess(data_set.load_statistics()) if sample is None else None
    if guess is not None:
        click.echo(guess)


def _show_walk(
    data_set: DataSet,
    painter: Painter,
    *,
    inputs: tuple[str, ...],
    name: str,
    num_samples: int,
    full: bool,
    as_json: bool,
) -> None:
    from bertdata.walk import walk_document
    from bertdata.walk_text import describe_walk, walk_to_json

    walk = walk_document(data_set, inputs=inputs, name=name)
    if as_json:
        click.echo(json.dumps(walk_to_json(walk, painter=painter), ensure_ascii=False))
        return
    for part in describe_walk(walk, painter=painter, num_samples=num_samples, full=full):
        _echo(part)


def _is_given(name: str) -> bool:
    """Returns whether the user gave the option."""
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _echo(text: str) -> None:
    """Prints text, in colour where stdout is a terminal; NO_COLOR and FORCE_COLOR decide otherwise."""
    color = False if os.environ.get("NO_COLOR") else True if os.environ.get("FORCE_COLOR") else None
    click.echo(text, color=color)


def _terminal_width() -> int | None:
    """Returns the columns of the terminal, or what COLUMNS says; None where there is neither: lines are not broken."""
    return shutil.get_terminal_size(fallback=(0, 0)).columns or None
