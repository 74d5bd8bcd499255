"""How fast input is read, reader by reader, against what one would pick instead: `python -m tests.benchmarks.read`.

Every figure is MB of the input (uncompressed) per CPU second on one core, the median of several runs in turn. The
machine decides the figures; the ratios are what can be compared. The dump is the head of the English Wikipedia where it
lies beside the project, else made up; each copy of it in the larger one begins every article with a sentence of its own.
"""

from __future__ import annotations

import bz2
import io
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import mwparserfromhell
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

import bertdata.build
import bertdata.readers
import bertdata.tokenizing
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ReadOptions, ShardOptions, TokenizerOptions
from bertdata.decompress import iter_chunks
from bertdata.launch import open_build
from bertdata.mediawiki import iter_articles
from bertdata.readers import iter_documents
from bertdata.splits import Split, plan_splits
from bertdata.wikitext import clean_wikitext
from tests.benchmarks.stages import WITHIN_SPLIT
from tests.benchmarks.tables import head, report
from tests.benchmarks.texts import BOOKS, load_corpus, write_documents
from tests.benchmarks.timing import StageTimes, median_seconds
from tests.corpus import article, iter_texts

DUMP = BOOKS.with_name("enwiki-106-articles.xml.bz2")
STREAM_PAGES = 100
OPTIONS = ReadOptions()
STAGES = (
    ("tokenize_portion: all else", bertdata.build, "tokenize_portion"),
    ("wikitext", bertdata.readers, "clean_wikitext"),
    *WITHIN_SPLIT,
    ("shards", bertdata.build, "build_shard"),
)


def _load_dump() -> str:
    if DUMP.exists():
        return bz2.decompress(DUMP.read_bytes()).decode()
    pages = "".join(article(f"Page {number}", text) for number, text in enumerate(iter_texts(2000)))
    return f'<mediawiki xml:lang="en">\n{pages}</mediawiki>\n'


def _write_dump(dump: str, folder: Path, *, copies: int) -> Path:
    """Writes some copies of a dump as one, in bz2 streams of 100 pages; no two articles are equal."""
    first, *pages = dump.partition("</mediawiki>")[0].split("<page>")
    parts = [first]
    for copy in range(copies):
        own = f"\n\nThis is what only copy {copy} of the page has to say about it.</text>"
        varied = [f"<page>{page.replace('</text>', own)}" for page in pages]
        parts += ["".join(varied[start : start + STREAM_PAGES]) for start in range(0, len(varied), STREAM_PAGES)]
    path = folder / "dump.xml.bz2"
    path.write_bytes(b"".join(bz2.compress(part.encode()) for part in [*parts, "</mediawiki>\n"]))
    return path


def _plan(path: Path) -> Split:
    (split,) = plan_splits([str(path)], options=OPTIONS, split_bytes=1 << 40)
    return split


def _read_all(path: Path) -> None:
    for _ in iter_documents(_plan(path), options=OPTIONS, counts=Counter(), rejects=[]):
        pass


def _articles(split: Split) -> Iterator[str]:
    chunks = iter_chunks(split.path, compression=split.compression, start=split.start, stop=split.stop)
    for found in iter_articles(split, chunks, max_page_bytes=1 << 30, counts=Counter()):
        yield found.text or ""


def _parse_xml(path: Path) -> None:
    """Reads articles as one would with the standard library."""
    for _, element in ElementTree.iterparse(path):
        if element.tag.endswith("page"):
            element.clear()


def _wikiextractor() -> Callable[[str], Any] | None:
    """Returns WikiExtractor's own cleaning of a page, where it can be imported."""
    try:
        from wikiextractor.extract import Extractor
    except ImportError as error:
        click.echo(f"WikiExtractor is not measured: {error}")
        return None
    return lambda text: Extractor("1", "1", "", "", [text]).clean_text(text)


def _measure_dump(dump: str, folder: Path, *, num_runs: int, peer_bytes: int) -> None:
    head("MediaWiki dump")
    packed = _write_dump(dump, folder, copies=1)
    plain = folder / "dump.xml"
    plain.write_bytes(bz2.decompress(packed.read_bytes()))
    megabytes = plain.stat().st_size / 1e6
    split = _plan(packed)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: sum(
            len(chunk.data) for chunk in iter_chunks(str(packed), compression="bz2", start=0, stop=split.stop)
        ),
        "bz2.decompress": lambda: bz2.decompress(packed.read_bytes()),
        "xml": lambda: sum(map(len, _articles(_plan(plain)))),
        "ElementTree.iterparse": lambda: _parse_xml(plain),
        "documents": lambda: _read_all(packed),
    }
    rate = {name: megabytes / taken for name, taken in median_seconds(ways, num_runs=num_runs).items()}
    report("bz2 to XML", rate["ours"], {"bz2.decompress": rate["bz2.decompress"]})
    report("XML to wikitext", rate["xml"], {"ElementTree.iterparse": rate["ElementTree.iterparse"]})
    _measure_wikitext(list(_articles(split)), num_runs=num_runs, peer_bytes=peer_bytes)
    report("bz2 to documents", rate["documents"], {"bz2.decompress": rate["bz2.decompress"]})
    click.echo(f"bzip2 takes {rate['documents'] / rate['ours']:.0%} of the time from .xml.bz2 to documents")


def _measure_wikitext(pages: list[str], *, num_runs: int, peer_bytes: int) -> None:
    peer_pages, size = [], 0
    for page in pages:
        if size < peer_bytes:
            peer_pages.append(page)
            size += len(page.encode())
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: [clean_wikitext(page) for page in pages],
        "mwparserfromhell": lambda: [mwparserfromhell.parse(page).strip_code() for page in peer_pages],
    }
    if extract := _wikiextractor():
        ways["WikiExtractor"] = lambda: [extract(page) for page in peer_pages]
    seconds = median_seconds(ways, num_runs=num_runs)
    ours = sum(len(page.encode()) for page in pages) / 1e6 / seconds.pop("ours")
    report("wikitext to prose", ours, {name: size / 1e6 / taken for name, taken in seconds.items()})


def _measure_records(documents: list[str], folder: Path, *, num_runs: int) -> None:
    head("Records")
    jsonl, parquet = folder / "a.jsonl", folder / "a.parquet"
    write_documents(documents, jsonl)
    pq.write_table(pa.table({"text": documents}), parquet, row_group_size=200)
    megabytes = sum(len(document.encode()) for document in documents) / 1e6

    def read_json_lines() -> None:
        with jsonl.open("rb") as file:
            for line in file:
                json.loads(line)["text"]

    def read_parquet() -> None:
        for batch in pq.ParquetFile(parquet).iter_batches(columns=["text"], use_threads=False):
            batch.column(0).to_pylist()

    options = pyarrow.json.ReadOptions(use_threads=False, block_size=64 << 20)
    ways: dict[str, Callable[[], Any]] = {
        "jsonl": lambda: _read_all(jsonl),
        "json.loads, as it stands": read_json_lines,
        "pyarrow.json, as it stands": lambda: (
            pyarrow.json.read_json(io.BytesIO(jsonl.read_bytes()), read_options=options).column("text").to_pylist()
        ),
        "parquet": lambda: _read_all(parquet),
        "pyarrow, as it stands": read_parquet,
    }
    rate = {name: megabytes / taken for name, taken in median_seconds(ways, num_runs=num_runs).items()}
    report(
        "JSONL to documents",
        rate["jsonl"],
        {name: rate[name] for name in rate if name.startswith(("json.", "pyarrow."))},
    )
    report("Parquet to documents", rate["parquet"], {name: rate[name] for name in rate if name.startswith("pyarrow, ")})


def _measure_build(dump: str, tokenizer: Path, folder: Path, *, copies: int, num_runs: int) -> None:
    path = _write_dump(dump, folder, copies=copies)
    data = path.read_bytes()
    megabytes = len(bz2.decompress(data)) / 1e6
    options = BuildOptions(
        tokenizer=TokenizerOptions(path=str(tokenizer)),
        pairs=PairOptions(dupe_factor=1),
        masks=MaskOptions(num_mask_sets=10),
        shards=ShardOptions(eval_fraction=0),
    )

    def build() -> float:
        bertdata.tokenizing.make_encoder.cache_clear()
        with open_build([str(path)], out=folder / "out", options=options, overwrite=True) as work:
            assert work is not None
            start = time.process_time()
            bertdata.build.build_serially(work)
            return time.process_time() - start

    seconds = statistics.median(build() for _ in range(num_runs))
    unpacking = median_seconds({"bz2": lambda: bz2.decompress(data)}, num_runs=num_runs)["bz2"]
    head(f"From .xml.bz2 to shards, L = 128, 10 mask sets, one pass; {megabytes:.0f} MB of XML")
    report("the whole", megabytes / seconds, {"bz2.decompress alone": megabytes / unpacking})
    times = StageTimes()
    with times.watch(STAGES):
        build()
    total = sum(times.seconds.values())
    click.echo(f"{'of these: bzip2':<34} {unpacking:>9.2f} s {unpacking / total:>7.1%}")
    times.seconds["tokenize_portion: all else"] -= unpacking
    for stage, taken in times.seconds.items():
        click.echo(f"{stage:<34} {taken:>9.2f} s {taken / total:>7.1%}")


@click.command(help=__doc__)
@click.option("--megabytes", default=30.0, show_default=True, help="Size of the records, MB.")
@click.option("--copies", default=8, show_default=True, help="Copies of the dump in the build.")
@click.option("--peer-megabytes", default=0.5, show_default=True, help="Wikitext that the peers clean, MB.")
@click.option("--runs", default=3, show_default=True, help="Runs of each measurement.")
def main(megabytes: float, copies: int, peer_megabytes: float, runs: int) -> None:
    """Measures everything and prints the tables."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    dump = _load_dump()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = load_corpus("english", path=None, megabytes=megabytes, peer_megabytes=0.1, folder=folder)
        corpus.tokenizer.save(str(folder / "tokenizer.json"))
        _measure_dump(dump, folder, num_runs=runs, peer_bytes=int(peer_megabytes * 1e6))
        _measure_records(corpus.documents, folder, num_runs=runs)
        _measure_build(dump, folder / "tokenizer.json", folder, copies=copies, num_runs=runs)


if __name__ == "__main__":
    main()
