"""The same documents in every format that is read, however a file may be made."""

import bz2
import gzip
import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.corpus import article

URL = "https://en.wikipedia.org/wiki?curid="


def _mediawiki(texts: Sequence[str]) -> bytes:
    pages = "".join(article(f"T{number}", text) for number, text in enumerate(texts))
    return f'<mediawiki xml:lang="en">\n{pages}</mediawiki>\n'.encode()


def _jsonl(texts: Sequence[str]) -> bytes:
    return "".join(json.dumps({"text": text, "language": "en"}) + "\n" for text in texts).encode()


def _text(texts: Sequence[str]) -> bytes:
    return "\n\n".join(texts).encode()


def extract(number: int, title: str, text: str) -> str:
    """Returns an article as WikiExtractor 3 writes it; `text` is escaped already."""
    return f'<doc id="{number}" url="{URL}{number}" title="{title}">\n{html.escape(title, quote=False)}\n\n{text}\n</doc>\n'


def _extracts(texts: Sequence[str]) -> bytes:
    docs = (extract(number, f"T{number}", html.escape(text, quote=False)) for number, text in enumerate(texts))
    return "".join(docs).encode()


def _parquet(texts: Sequence[str]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"id": range(len(texts)), "text": list(texts), "language": ["en"] * len(texts)})
    pq.write_table(table, sink, row_group_size=2, write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def _multistream(texts: Sequence[str]) -> bytes:
    """Two pages to a stream, as Wikimedia has a hundred."""
    head, *pages = _mediawiki(texts).split(b"<page>")
    parts = [head, *(b"".join(b"<page>" + page for page in pages[i : i + 2]) for i in range(0, len(pages), 2))]
    return b"".join(map(bz2.compress, parts))


def _cut_anywhere(texts: Sequence[str]) -> bytes:
    """Streams that end in the middle of pages and tags, as pbzip2 writes them."""
    data = _mediawiki(texts)
    return b"".join(bz2.compress(data[i : i + 97]) for i in range(0, len(data), 97))


def _zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


FORMATS: dict[str, Callable[[Sequence[str]], bytes]] = {
    "dump.xml": _mediawiki,
    "multistream.xml.bz2": _multistream,
    "pbzip2.xml.bz2": _cut_anywhere,
    "single.xml.bz2": lambda texts: bz2.compress(_mediawiki(texts)),
    "dump.xml.gz": lambda texts: gzip.compress(_mediawiki(texts)),
    "records.jsonl": _jsonl,
    "records.jsonl.gz": lambda texts: gzip.compress(_jsonl(texts)),
    "records.jsonl.zst": lambda texts: _zstd(_jsonl(texts)),
    "rows.parquet": _parquet,
    "wiki_00": _extracts,
    "wiki_00.bz2": lambda texts: bz2.compress(_extracts(texts)),
    "text.txt": _text,
    "text.txt.bz2": lambda texts: bz2.compress(_text(texts)),
}


_FORMAT_OF = {"dump": "mediawiki", "multistream": "mediawiki", "pbzip2": "mediawiki", "single": "mediawiki"}
_FORMAT_OF |= {"records": "jsonl", "rows": "parquet", "wiki_00": "wikiextractor", "text": "text"}


def format_of(name: str) -> str:
    """Returns the format that a name in `FORMATS` stands for."""
    return _FORMAT_OF[name.split(".")[0]]


def write_format(folder: Path, name: str, texts: Sequence[str]) -> Path:
    """Writes texts, each a paragraph of sentences, to a file of the format that the name stands for."""
    path = folder / name
    path.write_bytes(FORMATS[name](texts))
    return path
