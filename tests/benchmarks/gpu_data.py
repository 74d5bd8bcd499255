"""Shards for the benchmark on a GPU, small enough to be carried to it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tests.benchmarks.bench import given_vocabulary
from tests.benchmarks.gpu_parts import LENGTHS
from tests.benchmarks.texts import load_corpus, write_documents


def make_shards(folder: Path, *, source: Path | None, megabytes: float) -> None:
    """Builds data sets of both lengths from books, or from made-up text where they do not lie beside the project."""
    with tempfile.TemporaryDirectory() as name:
        if source is None:
            corpus = load_corpus("english", path=None, megabytes=megabytes, peer_megabytes=0.01, folder=Path(name))
            source = Path(name) / "text.jsonl"
            write_documents(corpus.documents, source)
        command = [sys.executable, "-m", "bertdata", "build", "--input", str(source), "--out", str(folder)]
        command += ["--max-seq-length", ",".join(map(str, LENGTHS)), "--overwrite", "--dupe-factor", "1"]
        command += ["--num-mask-sets", "2", "--shard-size", "16MiB", *given_vocabulary()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"the build of {source} ended with {done.returncode}:\n{done.stderr}")
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    click.echo(f"{folder}: {num_bytes / 2**20:.1f} MiB")
