"""The command line: `bertdata build` and `download`; `vocab_cli` and `data_set_cli` have the other commands."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bertdata.config import DEFAULT_MIRROR, LATEST, BuildOptions
from bertdata.data_set_cli import export, merge, report, verify
from bertdata.errors import ConfigError
from bertdata.inspect_cli import inspect
from bertdata.options import RUNNERS, build_options, make_build_options, read_options
from bertdata.parameters import BEAM_OPTIONS, CorpusCommand
from bertdata.program import SETTINGS, ending
from bertdata.uris import is_uri
from bertdata.vocab_cli import vocab

if TYPE_CHECKING:
    from bertdata.progress import Took
    from pipelines.submission import Submission

__all__ = ["main"]


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        with ending():
            return super().invoke(ctx)


@click.group(
    cls=_Group,
    context_settings=SETTINGS,
    epilog="Example: bertdata build --input simplewiki.xml.bz2 --out shards/",
)
@click.version_option(package_name="bertdata")
def main() -> None:
    """Builds BERT pre-training data: from a raw corpus to shards with pairs and masks."""
    # Beam sets up the root logger at import; ours come from our own packages.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("bertdata")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


@main.command(
    cls=CorpusCommand,
    takes_beam_options=True,
    epilog="Example: bertdata build --input simplewiki.xml.bz2 --out shards/",
)
@read_options
@build_options
@click.pass_context
def build(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    out: str,
    exclude_documents: Path | None,
    keep_work: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    runner: str,
    num_workers: int,
    **values: Any,
) -> None:
    """Builds shards from a corpus.

    Options for Apache Beam itself go after "--". The same command run again goes on where it stopped.
    """
    from bertdata.launch import open_build
    from bertdata.progress import Progress
    from bertdata.removal import read_document_keys
    from bertdata.storage import open_folder
    from pipelines.supervise import run_supervised

    if exclude_documents is not None:
        values["excluded_documents"] = read_document_keys(exclude_documents)
    options = make_build_options(values)
    if dry_run:
        _print_estimate(inputs, out=out, options=options, num_workers=num_workers, as_json=as_json)
        return
    if as_json:
        raise click.UsageError("--json goes with --dry-run")
    beam_options = ctx.meta[BEAM_OPTIONS]
    submission = _check_runner(ctx, runner, inputs=inputs, out=out, options=options)
    progress = None
    with (
        ending("what is done is kept, and the same command goes on with it"),
        open_build(inputs, out=out, options=options, overwrite=overwrite, keep_work=keep_work) as work,
    ):
        if work is None:
            click.echo(f"{open_folder(out).location} holds this build already, finished; nothing to do", err=True)
        else:
            with submission.packages() as packages, Progress(work) as progress:
                run_supervised(
                    work,
                    runner=runner,
                    num_workers=num_workers,
                    flags=[*beam_options, *packages],
                    are_workers_here=submission.workers == "here",
                )
    _print_made(out, options=options, took=None if progress is None else progress.took())


def _check_runner(
    ctx: click.Context, runner: str, *, inputs: tuple[str, ...], out: str, options: BuildOptions
) -> Submission:
    """Returns the runner with its options, once all that can be asked before the start is right."""
    from pipelines.submission import check_submission

    if importlib.util.find_spec("apache_beam") is None:
        raise ConfigError('bertdata build needs Apache Beam: pip install "bertdata[build]"')
    if runner != RUNNERS[0] and ctx.get_parameter_source("num_workers") is ParameterSource.COMMANDLINE:
        raise click.UsageError(
            f"--num-workers is for {RUNNERS[0]}; other runners have options of their own, such as -- --max_num_workers "
            "(Dataflow) or -- --parallelism (Flink)"
        )
    try:
        submission = check_submission(runner, flags=ctx.meta[BEAM_OPTIONS], inputs=inputs, out=out, options=options)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    for note in submission.notes:
        click.echo(f"note: {note}", err=True)
    return submission


def _print_made(out: str, *, options: BuildOptions, took: Took | None) -> None:
    """Prints a table for each data set of a build; below the last one what this run took, where there was one."""
    from bertdata.launch import read_written_manifest
    from bertdata.storage import open_folder
    from bertdata.summary import format_table, iter_warnings, manifest_rows, took_rows
    from bertdata.work import data_set_places

    places = data_set_places(out, options=options)
    for place in places:
        manifest = read_written_manifest(place)
        for warning in iter_warnings(manifest):
            click.secho(f"warning: {warning}", fg="yellow", err=True)
        rows = took_rows(took) if took is not None and place == places[-1] else []
        click.echo(format_table([*manifest_rows(manifest, where=open_folder(place).location), *rows]))


def _print_estimate(
    inputs: tuple[str, ...], *, out: str, options: BuildOptions, num_workers: int, as_json: bool
) -> None:
    """Prints what a build would make and take."""
    from bertdata.disk import free_bytes
    from bertdata.dry_run import estimate_build
    from bertdata.inputs import find_inputs
    from bertdata.portions import plan_portions
    from bertdata.summary import estimate_rows, format_table

    files = find_inputs(inputs, out=out)
    click.echo("running all stages over a sample of the input; nothing is kept", err=True)
    estimate = estimate_build(plan_portions(files, options=options.read), options=options, num_workers=num_workers)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(estimate), indent=2))
    else:
        free = None if is_uri(out) else free_bytes(Path(out))
        click.echo(format_table(estimate_rows(estimate, free_bytes=free)))


@main.command(epilog="Example: bertdata download --wiki simple --out dumps/")
@click.option("--wiki", required=True, help="Language of the Wikipedia (simple, de), or a database (dewiktionary).")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the dump.")
@click.option("--date", default=LATEST, help="Date of the dump, such as 20261101; or latest.")
@click.option("--mirror", default=DEFAULT_MIRROR, help="Address of the folder with all wikis.")
@click.option(
    "--contact",
    help="Your mail address or page, told to the server as Wikimedia asks; helps if it refuses. [default: none]",
)
def download(wiki: str, out: Path, date: str, mirror: str, contact: str | None) -> None:
    """Fetches the articles of a wiki: its multistream dump.

    Checks it against the SHA-1 that the dump has published, and prints the path of the file. The same command run
    again goes on where it stopped.
    """
    from bertdata.download import fetch_file, find_dump
    from bertdata.web import Http

    http = Http(contact=contact)
    with ending("what came is kept, and the same command goes on with it"):
        for file in find_dump(wiki, date=date, mirror=mirror, http=http):
            click.echo(fetch_file(file, folder=out, http=http))


main.add_command(vocab)
main.add_command(inspect)
main.add_command(report)
main.add_command(verify)
main.add_command(merge)
main.add_command(export)
