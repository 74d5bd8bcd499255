"""From a split of an input file to documents of plain text: one reader per format.

For a MediaWiki dump records are the articles: pages = articles + redirects + other_namespaces + other_models. What
becomes of a record, `bertdata.intake` tells.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from bertdata.config import ReadOptions
from bertdata.decompress import iter_chunks
from bertdata.documents import Document, Reject
from bertdata.errors import ConfigError, InputError
from bertdata.hooks import describe_failure, load_hook
from bertdata.inputs import check_unchanged
from bertdata.intake import Intake
from bertdata.lines import is_blank, iter_lines, iter_paragraphs, join_lines, read_whole
from bertdata.links import MEDIA_NAMESPACES
from bertdata.mediawiki import iter_articles
from bertdata.parquet import iter_rows
from bertdata.splits import Split
from bertdata.uris import is_uri
from bertdata.wikiextractor import is_extracted_record, iter_extracts, unescape
from bertdata.wikitext import clean_wikitext

__all__ = ["Record", "iter_documents", "iter_records", "read_record"]


class Record(NamedTuple):
    """A record as it stands in the input.

    Attributes:
        where: Title, line, row, byte or number.
        data: A dump's wikitext, the bytes of a line, paragraph or file, an `Extract`, a `Row`, or what a reader of the
            user's own gave; None for wikitext or bytes that are too large.
    """

    where: str
    data: Any


def iter_documents(
    split: Split, *, options: ReadOptions, counts: Counter[str], rejects: list[Reject]
) -> Iterator[Document]:
    """Yields the documents that begin in a split, in the order of the file.

    Args:
        split: Where to read.
        options: How to read.
        counts: Incremented, see `bertdata.intake`.
        rejects: Gets the first 20 rejected records of the split.

    Raises:
        ChangedInputError: The file is not what it was when the build began.
        InputError: The file is damaged or cut off.
        ConfigError: The user's own filter fails.
    """
    facts = {"num_bytes": split.file_bytes, "version": split.file_version}
    if not is_uri(split.path):  # an object's state is told with its first bytes; one request less
        check_unchanged(split.path, **facts)
    intake = Intake(split, options=options, counts=counts, rejects=rejects)
    try:
        for record in iter_records(split, intake=intake):
            yield from read_record(record, split, intake=intake)
    except InputError:
        check_unchanged(split.path, **facts)  # which may be why
        raise
    check_unchanged(split.path, **facts)


def iter_records(split: Split, *, intake: Intake) -> Iterator[Record]:
    """Yields the records that begin in a split, in the order of the file.

    Args:
        split: Where to read.
        intake: Its options say how; of a dump, it counts the pages.

    Raises:
        InputError: The file is damaged or cut off.
    """
    return (_iter_custom if split.is_custom else _ITER_RECORDS[split.format])(split, intake)


def read_record(record: Record, split: Split, *, intake: Intake) -> Iterator[Document]:
    """Yields the document of a record of a split, unless `intake` books it elsewhere."""
    intake.counts["records"] += 1
    yield from (_read_custom if split.is_custom else _READ_RECORD[split.format])(record, split, intake)


def _iter_mediawiki(split: Split, intake: Intake) -> Iterator[Record]:
    chunks = iter_chunks(split.path, compression=split.compression, start=split.start, stop=split.stop)
    articles = iter_articles(split, chunks, max_page_bytes=intake.max_record_bytes, counts=intake.counts)
    return (Record(*article) for article in articles)


def _read_mediawiki(record: Record, split: Split, intake: Intake) -> Iterator[Document]:
    if record.data is None:
        return intake.reject(record.where, "too_large", "")
    text = clean_wikitext(record.data, media_names=_media_names(split.namespaces))
    return (yield from intake.accept(record.where, text, language=split.language))


@lru_cache(maxsize=8)
def _media_names(namespaces: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    return tuple(sorted(name for name, number in namespaces if number in MEDIA_NAMESPACES))


def _iter_filled_lines(split: Split, intake: Intake) -> Iterator[Record]:
    lines = iter_lines(split, max_bytes=intake.max_record_bytes)
    return (Record(where, line) for where, line in lines if line is None or not is_blank(line))


def _read_jsonl(record: Record, _: Split, intake: Intake) -> Iterator[Document]:
    line = intake.decode(record.where, record.data)
    if line is None:
        return None
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError):
        return intake.reject(record.where, "bad_json", line)
    if not isinstance(values, dict):
        return intake.reject(record.where, "bad_json", line)
    value, language, excerpt = values.get(intake.options.text_field), values.get("language"), line[:1000]
    if isinstance(value, str) and is_extracted_record(values):
        value = unescape(value)
    documents = intake.accept_value(record.where, value, language=language, record=excerpt)
    del line, values, value  # they may be large, and would live as long as the document is worked on
    return (yield from documents)


def _iter_parquet(split: Split, intake: Intake) -> Iterator[Record]:
    field = intake.options.text_field
    return (
        Record(row.where, row) for row in iter_rows(split.path, start=split.start, stop=split.stop, text_field=field)
    )


def _read_parquet(record: Record, _: Split, intake: Intake) -> Iterator[Document]:
    where, value, language = record.data
    if isinstance(value, bytes):
        return intake.reject(where, "bad_utf8", value)
    return (yield from intake.accept_value(where, value, language=language, record=str(value)[:1000]))


def _iter_wikiextractor(split: Split, intake: Intake) -> Iterator[Record]:
    return (Record(extract.where, extract) for extract in iter_extracts(split, max_bytes=intake.max_record_bytes))


def _read_wikiextractor(record: Record, _: Split, intake: Intake) -> Iterator[Document]:
    where, data, problem = record.data
    if problem:
        return intake.reject(where, "bad_markup", data or b"")
    text = intake.decode(where, data)
    if text is not None:
        yield from intake.accept(where, join_lines(unescape(text)), language=None)


def _iter_custom(split: Split, _: Intake) -> Iterator[Record]:
    """Reads with a function of the user's own."""
    name = f"--format {split.format}"
    reader = load_hook(split.format, option="--format")
    try:
        records = reader(split.path)
        if isinstance(records, (str, bytes, Mapping)) or not hasattr(records, "__iter__"):
            raise ConfigError(f"{name} returned {records!r:.80}; it must return the records of a file, or yield them")
        for number, record in enumerate(records, start=1):
            yield Record(f"record {number:,}", record)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{name}: {describe_failure(error, split.path, hook=split.format)}") from error


def _read_custom(record: Record, _: Split, intake: Intake) -> Iterator[Document]:
    value: Any = record.data
    language = None
    if isinstance(value, Mapping):
        value, language = value.get(intake.options.text_field), value.get("language")
    return intake.accept_value(record.where, value, language=language, record=repr(record.data)[:1000])


def _iter_text(split: Split, intake: Intake) -> Iterator[Record]:
    if intake.options.document_per == "file":
        return iter([Record("file", read_whole(split, max_bytes=intake.max_record_bytes))])
    if intake.options.document_per == "line":
        return _iter_filled_lines(split, intake)
    return (Record(where, data) for where, data in iter_paragraphs(split, max_bytes=intake.max_record_bytes))


def _read_text(record: Record, _: Split, intake: Intake) -> Iterator[Document]:
    text = intake.decode(record.where, record.data)
    if text is None:
        return
    if intake.options.sentence_per_line:
        yield from intake.accept_sentences(record.where, text.split("\n"), language=None)
    else:
        yield from intake.accept(record.where, join_lines(text), language=None)


_ITER_RECORDS = {
    "mediawiki": _iter_mediawiki,
    "jsonl": _iter_filled_lines,
    "parquet": _iter_parquet,
    "wikiextractor": _iter_wikiextractor,
    "text": _iter_text,
}
_READ_RECORD = {
    "mediawiki": _read_mediawiki,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "wikiextractor": _read_wikiextractor,
    "text": _read_text,
}
