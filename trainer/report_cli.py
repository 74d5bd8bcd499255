"""The command line on finished and running runs: `bert-train report`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from bertdata.errors import TrainingError

__all__ = ["report"]


@click.command(epilog="Example: bert-train report run/ --out report.html")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The HTML file to write.")
def report(runs: tuple[Path, ...], out: Path) -> None:
    """Writes a page about a run, or several.

    One HTML file that needs nothing beside it: losses beside what is normal, accuracies, evaluation, learning rate,
    gradient, speed, epochs, options. RUN is the --out folder of a training, finished or in progress; of several, curves
    are drawn on top of each other.
    """
    if not all(map(importlib.util.find_spec, ("jinja2", "matplotlib"))):
        raise TrainingError('bert-train report needs Jinja2 and matplotlib: pip install "bertdata[report]"')
    from trainer.report import write_report

    write_report(runs, out=out)
    click.echo(out)
