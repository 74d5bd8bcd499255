"""How fast a data set is verified, against the hashes alone: `python -m tests.benchmarks.verify`.

Every figure is MB of shards per CPU second on one core, the median of several runs in turn, on the shards of English
novels where they lie beside the project, else of made-up text. Also what counting statistics adds to building a shard.
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import bertdata
import bertdata.build
from bertdata.build import build_serially
from bertdata.config import BuildOptions, MaskOptions, ShardOptions, TokenizerOptions
from bertdata.launch import open_build
from bertdata.verify import iter_problems
from tests.benchmarks.tables import head, report
from tests.benchmarks.texts import load_corpus, write_documents
from tests.benchmarks.timing import StageTimes, median_seconds

COUNTING = (
    ("building shards", bertdata.build, "build_shard"),
    ("counting statistics", bertdata.build, "count_block"),
    ("counting statistics", bertdata.build, "count_documents"),
    ("counting statistics", bertdata.build, "count_shown_tokens"),
    ("counting statistics", bertdata.build, "sample_keys"),
)
CHUNK = 1 << 20


def _build(folder: Path, *, megabytes: float) -> Path:
    """Builds the shards, and prints how much of the time counting took."""
    corpus = load_corpus("english", path=None, megabytes=megabytes, peer_megabytes=0.01, folder=folder)
    text, vocab = folder / "text.jsonl", folder / "tokenizer.json"
    write_documents(corpus.documents, text)
    corpus.tokenizer.save(str(vocab))
    options = BuildOptions(
        tokenizer=TokenizerOptions(path=str(vocab)),
        masks=MaskOptions(num_mask_sets=10),
        shards=ShardOptions(shard_size=16 << 20),
    )
    times = StageTimes()
    with open_build([str(text)], out=folder / "shards", options=options) as work, times.watch(COUNTING):
        assert work is not None
        build_serially(work)
    counting, rest = (times.seconds[stage] for stage in ("counting statistics", "building shards"))
    click.echo(f"counting statistics takes {counting / (counting + rest):.1%} of building shards")
    return folder / "shards"


def _hash_all(folder: Path, update: Callable[[bytes], Any]) -> None:
    for path in folder.glob("*.tar"):
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                update(data)


def _verify(folder: Path, *, quick: bool) -> None:
    problems = list(iter_problems(folder, quick=quick))
    assert not problems, problems[0]


@click.command()
@click.option("--megabytes", default=40.0, show_default=True, help="MB of text.")
@click.option("--runs", default=5, show_default=True, help="Runs of each; the median is printed.")
def main(megabytes: float, runs: int) -> None:
    """Prints how fast a data set is verified, against hashes alone."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = _build(Path(temporary), megabytes=megabytes)
        num_megabytes = sum(shard.num_bytes for shard in bertdata.open_data_set(folder).manifest.shards) / 1e6
        ways: dict[str, Callable[[], Any]] = {
            "checksums": lambda: _verify(folder, quick=True),
            "all": lambda: _verify(folder, quick=False),
            "SHA-256 alone": lambda: _hash_all(folder, hashlib.sha256().update),
            "CRC-32 alone": lambda: _hash_all(folder, zlib.crc32),
        }
        seconds = median_seconds(ways, num_runs=runs)
    rates = {name: num_megabytes / taken for name, taken in seconds.items()}
    head(f"Verifying {num_megabytes:,.0f} MB of shards, 10 mask sets")
    for name in ("checksums", "all"):
        report(name, rates[name], {peer: rates[peer] for peer in ("SHA-256 alone", "CRC-32 alone")})


if __name__ == "__main__":
    main()
