"""The command line that shows how pre-training works on one document: `bert-train follow`."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import click

from bertdata.errors import TrainingError
from bertdata.parameters import CorpusCommand

__all__ = ["follow"]


@click.command(
    cls=CorpusCommand,
    epilog="\b\nExample: bert-train follow run/ --shards shards/ --document Achilles --input wiki.xml --out page.html",
)
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--shards", required=True, type=click.Path(path_type=Path), help="Folder that `bertdata build` wrote.")
@click.option(
    "--document",
    required=True,
    metavar="TITLE",
    help='The document: a wiki page\'s title; of other records the title or id, or the place, such as "line 12".',
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="PATH",
    help="The input of the build: files, folders or glob patterns.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    help="Which of the document's samples to follow, from 1 on.  [default: one that is easy to follow]",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The HTML file to write.")
def follow(model: Path, shards: Path, document: str, inputs: tuple[str, ...], sample: int | None, out: Path) -> None:
    """Writes a page that follows one document all the way.

    One HTML file that needs nothing beside it: source, plain text, sentences, a pair and its label, tokens, mask sets,
    embeddings, layers, the predicted words beside the truth, next sentence, losses. MODEL is the folder of a run, or
    one for transformers.
    """
    missing = [name for name in ("jinja2", "sentencex") if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(f'bert-train follow needs {" and ".join(missing)}: pip install "bertdata[build,report]"')
    if not all(map(importlib.util.find_spec, ("torch", "safetensors"))):
        raise TrainingError('bert-train follow needs torch and safetensors: pip install "bertdata[train]"')
    from bertdata.data_set import open_data_set
    from trainer.follow_page import write_follow_page

    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    write_follow_page(
        model, data_set=open_data_set(shards), inputs=inputs, document=document.strip(), sample=sample, out=out
    )
    click.echo(out)
