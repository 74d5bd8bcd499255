"""The command line: `bertdata vocab`."""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from bertdata.errors import OutputError
from bertdata.options import make_read_options, make_tokenizer_options, read_options, workers_option
from bertdata.parameters import CorpusCommand
from bertdata.program import ending

__all__ = ["vocab"]

_LINE_SECONDS = 10


@click.command(
    cls=CorpusCommand,
    epilog="Example: bertdata vocab --input wiki.xml --out tokenizer.json",
)
@read_options
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The tokenizer.json to write."
)
@workers_option
def vocab(inputs: tuple[str, ...], out: Path, num_workers: int, **values: Any) -> None:
    """Trains a WordPiece vocabulary and writes it as tokenizer.json.

    It is trained on a sample of at most 128 MiB of text: whole documents, chosen by hashes of their text, half of all,
    a quarter, and so on. So the same documents give the same vocabulary, in whatever files and order they come, and
    with any number of workers.
    """
    from bertdata.inputs import find_inputs
    from bertdata.portions import plan_portions
    from bertdata.storage import LocalFolder
    from bertdata.vocabulary import train_wordpiece
    from bertdata.vocabulary_sample import read_vocabulary_sample
    from bertdata.wordpiece import write_tokenizer
    from bertdata.workers import map_in_processes

    read = make_read_options(values)
    options = make_tokenizer_options(values, path=None)
    portions = plan_portions(find_inputs(inputs), options=read)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written to: {error.strerror}") from error
    with ending("nothing was written"):
        with tempfile.TemporaryDirectory(prefix="bertdata-vocab-") as name:
            folder = LocalFolder(Path(name))
            count = functools.partial(_count, folder=folder.path, options=read, sample_bytes=options.sample_bytes)
            tasks = list(enumerate(portions))
            _show_progress(map_in_processes(count, tasks, num_workers=num_workers), total=len(tasks))
            sample = read_vocabulary_sample(folder, num_portions=len(portions), sample_bytes=options.sample_bytes)
        tokenizer = train_wordpiece(sample, options=options)
    write_tokenizer(tokenizer, out)
    click.echo(f"{tokenizer.get_vocab_size():,} entries in {out}")


def _count(task: tuple[int, Any], *, folder: Path, options: Any, sample_bytes: int) -> None:
    from bertdata.storage import LocalFolder
    from bertdata.vocabulary_sample import count_words_of_portion

    number, portion = task
    count_words_of_portion(LocalFolder(folder), number, portion, options=options, sample_bytes=sample_bytes)


def _show_progress(done: Iterable[None], *, total: int) -> None:
    """Takes all of `done`, and shows on stderr how many: a bar, or lines where it is no terminal."""
    is_terminal = sys.stderr.isatty()
    started = shown = time.monotonic()
    with tqdm(total=total, desc="reading words", unit=" parts", file=sys.stderr, disable=not is_terminal) as bar:
        for number, _ in enumerate(done, start=1):
            bar.update()
            now = time.monotonic()
            if not is_terminal and (number == total or now >= shown + _LINE_SECONDS):
                shown = now
                click.echo(f"[{now - started:6.1f} s] reading words {number}/{total}", err=True)
    click.echo("training the vocabulary", err=True)
