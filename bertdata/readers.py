"""From a split of an input file to documents of plain text: one reader per format.

For a MediaWiki dump records are the articles: pages = articles + redirects + other_namespaces + other_models. What
becomes of a record, `bertdata.intake` tells.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bertdata.config import ReadOptions
from bertdata.decompress import iter_chunks
from bertdata.documents import Document, Reject
from bertdata.errors import ConfigError, InputError
from bertdata.hooks import describe_failure, load_hook
from bertdata.intake import Intake
from bertdata.lines import is_blank, iter_lines, iter_paragraphs, join_lines, read_whole
from bertdata.links import MEDIA_NAMESPACES
from bertdata.mediawiki import iter_articles
from bertdata.parquet import iter_rows
from bertdata.splits import Split
from bertdata.wikiextractor import is_extracted_record, iter_extracts, unescape
from bertdata.wikitext import clean_wikitext

__all__ = ["iter_documents"]


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
        InputError: The file is damaged or cut off.
        ConfigError: The user's own filter fails.
    """
    intake = Intake(split, options, counts, rejects)
    if ":" in split.format:
        yield from _iter_custom(split, intake)
    else:
        yield from _READERS[split.format](split, intake)


def _iter_mediawiki(split: Split, intake: Intake) -> Iterator[Document]:
    chunks = iter_chunks(split.path, compression=split.compression, start=split.start, stop=split.stop)
    media_names = tuple(sorted(name for name, number in split.namespaces if number in MEDIA_NAMESPACES))
    articles = iter_articles(split, chunks, max_page_bytes=intake.max_record_bytes, counts=intake.counts)
    for title, wikitext in articles:
        intake.counts["records"] += 1
        if wikitext is None:
            intake.reject(title, "too_large", "")
        else:
            text = clean_wikitext(wikitext, media_names=media_names)
            yield from intake.accept(title, text, language=split.language)


def _iter_jsonl(split: Split, intake: Intake) -> Iterator[Document]:
    for where, line in iter_lines(split, max_bytes=intake.max_record_bytes):
        if line is None or not is_blank(line):
            intake.counts["records"] += 1
            text = intake.decode(where, line)
            if text is not None:
                yield from _read_json(where, text, intake)


def _read_json(where: str, line: str, intake: Intake) -> Iterator[Document]:
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return intake.reject(where, "bad_json", line)
    if not isinstance(record, dict):
        return intake.reject(where, "bad_json", line)
    value = record.get(intake.options.text_field)
    if isinstance(value, str) and is_extracted_record(record):
        value = unescape(value)
    return (yield from intake.accept_value(where, value, language=record.get("language"), record=line))


def _iter_parquet(split: Split, intake: Intake) -> Iterator[Document]:
    field = intake.options.text_field
    for where, value, language in iter_rows(split.path, start=split.start, stop=split.stop, text_field=field):
        intake.counts["records"] += 1
        if isinstance(value, bytes):
            intake.reject(where, "bad_utf8", value)
        else:
            yield from intake.accept_value(where, value, language=language, record=str(value)[:1000])


def _iter_wikiextractor(split: Split, intake: Intake) -> Iterator[Document]:
    for where, data, problem in iter_extracts(split, max_bytes=intake.max_record_bytes):
        intake.counts["records"] += 1
        if problem:
            intake.reject(where, "bad_markup", data or b"")
            continue
        text = intake.decode(where, data)
        if text is not None:
            yield from intake.accept(where, join_lines(unescape(text)), language=None)


def _iter_custom(split: Split, intake: Intake) -> Iterator[Document]:
    """Reads with a function of the user's own."""
    for number, record in enumerate(_iter_custom_records(split), start=1):
        intake.counts["records"] += 1
        language = None
        value: Any = record
        if isinstance(record, Mapping):
            value, language = record.get(intake.options.text_field), record.get("language")
        yield from intake.accept_value(f"record {number:,}", value, language=language, record=repr(record)[:1000])


def _iter_custom_records(split: Split) -> Iterator[Any]:
    name = f"--format {split.format}"
    reader = load_hook(split.format, option="--format")
    try:
        records = reader(split.path)
        if isinstance(records, (str, bytes, Mapping)) or not hasattr(records, "__iter__"):
            raise ConfigError(f"{name} returned {records!r:.80}; it must return the records of a file, or yield them")
        yield from records
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{name}: {describe_failure(error, split.path, hook=split.format)}") from error


def _iter_text(split: Split, intake: Intake) -> Iterator[Document]:
    if intake.options.document_per == "line":
        records = iter_lines(split, max_bytes=intake.max_record_bytes)
    elif intake.options.document_per == "file":
        records = iter([("file", read_whole(split, max_bytes=intake.max_record_bytes))])
    else:
        records = iter_paragraphs(split, max_bytes=intake.max_record_bytes)
    for where, data in records:
        if data is not None and intake.options.document_per == "line" and is_blank(data):
            continue
        intake.counts["records"] += 1
        text = intake.decode(where, data)
        if text is None:
            continue
        if intake.options.sentence_per_line:
            yield from intake.accept_sentences(where, text.split("\n"), language=None)
        else:
            yield from intake.accept(where, join_lines(text), language=None)


_READERS = {
    "mediawiki": _iter_mediawiki,
    "jsonl": _iter_jsonl,
    "parquet": _iter_parquet,
    "wikiextractor": _iter_wikiextractor,
    "text": _iter_text,
}
