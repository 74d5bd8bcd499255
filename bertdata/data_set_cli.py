"""The command line on finished data sets: `bertdata report`, `verify`, `merge`, `export`."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import click

from bertdata.errors import ConfigError
from bertdata.options import workers_option
from bertdata.parameters import CorpusCommand, MaskSet
from bertdata.uris import is_uri, location_of

__all__ = ["export", "merge", "report", "verify"]


class _LocalFolder(click.Path):
    """A folder on this machine; a URI, which as a path would only not be found, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if is_uri(value):
            self.fail(f"{location_of(value)} lies elsewhere; copy the data set here first", param, ctx)
        return super().convert(value, param, ctx)


@click.command(epilog="Example: bertdata verify shards/")
@click.argument("folder", type=_LocalFolder(path_type=Path))
@click.option("--quick", is_flag=True, help="Check that files are there, their sizes and checksums; no samples.")
@click.option("--json", "as_json", is_flag=True, help="Print what is wrong as JSON.")
@click.option(
    "--has-document",
    metavar="KEY|FILE",
    help="Instead, tell where a document went: by its key of 16 or 32 hexadecimal digits, or by a file of its text. "
    "[default: check the data set]",
)
@workers_option
def verify(folder: Path, quick: bool, as_json: bool, has_document: str | None, num_workers: int) -> None:
    """Checks a data set.

    Every byte, every sample, and all of them together. Prints what is wrong, by shard, block and sample, and exits with
    1 if anything is. With --has-document it exits with 1 if no sample has text of the document.
    """
    from bertdata.data_set import open_data_set
    from bertdata.locating import describe_document
    from bertdata.verify import describe_whole, iter_problems

    if has_document is not None:
        if quick or as_json:
            raise click.UsageError("--has-document prints text, of all shards; leave out --quick and --json")
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
        checked = "checksums" if quick else "all"
        click.echo(json.dumps({"folder": str(folder), "checked": checked, "problems": values}, indent=2))
    elif problems:
        number = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
        click.secho(f"{number} in {folder}", fg="red", err=True)
    else:
        click.echo(describe_whole(folder, quick=quick))
    sys.exit(1 if problems else 0)


@click.command(cls=CorpusCommand, epilog="Example: bertdata report shards/ --out report.html")
@click.argument("folder", type=_LocalFolder(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The HTML file to write. [default: none, with --recompute]",
)
@click.option("--num-samples", type=click.IntRange(min=0), default=6, help="Samples to show.")
@click.option("--recompute", is_flag=True, help="Count the numbers of the report again, and say which differ.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="PATH",
    help="With --recompute: what the data set was built from, to count documents and their text again too. Takes as "
    "long as the build on one core. [default: count from the shards alone]",
)
@workers_option
def report(
    folder: Path, out: Path | None, num_samples: int, recompute: bool, inputs: tuple[str, ...], num_workers: int
) -> None:
    """Writes a page about a data set.

    One HTML file that needs nothing beside it: from pages to samples with every drop, lengths, labels, masks,
    vocabulary, samples, options. With --recompute, ends with 1 where a number is not what the data says.
    """
    from bertdata.data_set import open_data_set

    if out is None and not recompute:
        raise click.UsageError("give --out for the report, or --recompute, or both")
    if inputs and not recompute:
        raise click.UsageError("--input is for --recompute")
    if out is not None and not all(map(importlib.util.find_spec, ("jinja2", "matplotlib"))):
        raise ConfigError('bertdata report needs Jinja2 and matplotlib: pip install "bertdata[report]"')
    data_set = open_data_set(folder)
    is_right = True
    if recompute:
        from bertdata.recompute import describe_comparison
        from bertdata.recompute import recompute as count_again

        comparison = count_again(data_set, inputs=inputs, num_workers=num_workers)
        for line in describe_comparison(comparison):
            click.echo(line)
        is_right = not comparison.differing
    if out is not None:
        from bertdata.report import write_report

        write_report(data_set, out, num_samples=num_samples)
        click.echo(out)
    if not is_right:
        sys.exit(1)


@click.command(epilog="Example: bertdata export shards/ --out exported/ --mask-set 0")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the files.")
@click.option(
    "--mask-set",
    type=MaskSet(),
    default="all",
    help="Number of a mask set, for columns that a model takes; or all, for the samples as they are stored.",
)
@click.option("--split", type=click.Choice(["train", "eval", "both"]), default="both", help="Which shards.")
@click.option("--overwrite", is_flag=True, help="Remove the files of another export from --out first.")
@workers_option
def export(folder: Path, out: Path, mask_set: int | None, split: str, overwrite: bool, num_workers: int) -> None:
    """Writes the samples as Parquet files, for other tools.

    Each is a row. With --mask-set 0, the columns are those of transformers' BertForPreTraining. The same command run
    again goes on where it stopped.
    """
    from bertdata.export import export_data_set, export_rows
    from bertdata.summary import format_table

    paths = export_data_set(
        folder,
        out=out,
        mask_set=mask_set,
        splits=("train", "eval") if split == "both" else (split,),
        overwrite=overwrite,
        num_workers=num_workers,
    )
    click.echo(format_table(export_rows(paths)))


@click.command(epilog="Example: bertdata merge wiki/ books/ --out merged/")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the new one.")
@click.option(
    "--allow-overlap",
    is_flag=True,
    help="Merge even if documents are for training in one data set and for evaluation in another.",
)
def merge(folders: tuple[Path, ...], out: Path, allow_overlap: bool) -> None:
    """Makes one data set of several.

    They must have the same tokenizer and options. The new one names their shards, by their place relative to OUT, and
    copies none: move them together. Documents that are in several of them are reported.
    """
    from bertdata.merging import merge_data_sets, open_sources
    from bertdata.overlap import find_overlap, overlap_rows
    from bertdata.summary import format_table, summary_rows

    data_sets = open_sources(folders, out=out)
    overlap = find_overlap(data_sets)
    click.echo(format_table(overlap_rows(overlap)))
    if len(overlap.leaked) and not allow_overlap:
        raise ConfigError(
            f"for training in one data set and for evaluation in another: {len(overlap.leaked):,} documents, so the "
            "evaluation would be on text that was trained on; build one data set from all the input, or give "
            "--allow-overlap"
        )
    if len(overlap.shared):
        click.secho(
            f"warning: {len(overlap.shared):,} documents are in several of the data sets, and are counted and shown "
            "as often; build one data set from all the input to have each once",
            fg="yellow",
            err=True,
        )
    click.echo(format_table(summary_rows(merge_data_sets(data_sets, out=out))))
