"""From a split of an input file to documents of plain text.

Every record that is read ends up in exactly one count:

    records = documents + empty + too_short + rejected_too_large + rejected_bad_utf8 + rejected_bad_json
              + rejected_missing_field + rejected_bad_field

For a MediaWiki dump records are the articles: pages = articles + redirects + other_namespaces + other_models.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertdata.characters import clean_characters
from bertdata.config import MIB, ReadOptions
from bertdata.decompress import iter_chunks
from bertdata.lines import iter_lines, iter_paragraphs, join_lines, read_whole
from bertdata.links import MEDIA_NAMESPACES
from bertdata.mediawiki import iter_articles
from bertdata.splits import Split
from bertdata.wikitext import clean_wikitext

__all__ = ["Document", "Reject", "iter_documents"]

_MAX_REJECTS_KEPT = 20
_EXCERPT_CHARS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    r"""Plain text of one article, record, file, paragraph or line.

    Attributes:
        id: "<file name>:<title, line number or byte>", for messages; it never decides bytes.
        text: NFC text, paragraphs separated by "\n".
        language: Language code that the dump or the record declares, if any.
        sentences: The sentences, where the input has them already (sentence per line, list of sentences in JSONL).
    """

    id: str
    text: str
    language: str | None
    sentences: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """A record that could not be used.

    Attributes:
        path: Its file.
        where: Line, byte offset or page title.
        reason: too_large, bad_utf8, bad_json, missing_field or bad_field.
        excerpt: Its beginning, 200 characters at most.
    """

    path: str
    where: str
    reason: str
    excerpt: str


def iter_documents(
    split: Split, *, options: ReadOptions, counts: Counter[str], rejects: list[Reject]
) -> Iterator[Document]:
    """Yields the documents that begin in a split, in the order of the file.

    Args:
        split: Where to read.
        options: How to read.
        counts: Incremented, see the module's head.
        rejects: Gets the first 20 rejected records of the split.

    Raises:
        InputError: The file is damaged or cut off.
    """
    intake = _Intake(split, options, counts, rejects)
    if split.format == "mediawiki":
        yield from _iter_mediawiki(split, intake)
    elif split.format == "jsonl":
        yield from _iter_jsonl(split, intake)
    else:
        yield from _iter_text(split, intake)


class _Intake:
    """Turns records into documents and books where each one went."""

    def __init__(self, split: Split, options: ReadOptions, counts: Counter[str], rejects: list[Reject]) -> None:
        self.options = options
        # A record may be longer than its text, by escapes or markup, but not without limit: it is held in memory.
        self.max_record_bytes = 3 * options.max_document_bytes + MIB
        self.counts = counts
        self._split = split
        self._file_name = Path(split.path).name
        self._rejects = rejects
        self._num_rejects = 0

    def reject(self, where: str, reason: str, record: bytes | str) -> None:
        self.counts[f"rejected_{reason}"] += 1
        self._num_rejects += 1
        if self._num_rejects <= _MAX_REJECTS_KEPT:
            if isinstance(record, bytes):
                record = record[: 4 * _EXCERPT_CHARS].decode("utf-8", "backslashreplace")
            excerpt = record[:_EXCERPT_CHARS].encode("utf-8", "backslashreplace").decode()[:_EXCERPT_CHARS]
            self._rejects.append(Reject(path=self._split.path, where=where, reason=reason, excerpt=excerpt))

    def accept(
        self, where: str, text: str, *, language: str | None, sentences: tuple[str, ...] | None = None
    ) -> Iterator[Document]:
        """Yields the document, unless there is too much or too little of it."""
        options = self.options
        if 4 * len(text) > options.max_document_bytes and len(text.encode()) > options.max_document_bytes:
            self.reject(where, "too_large", text)
        elif not text:
            self.counts["empty"] += 1
        elif len(text) < options.min_document_chars:
            self.counts["too_short"] += 1
        else:
            self.counts["documents"] += 1
            yield Document(id=f"{self._file_name}:{where}", text=text, language=language, sentences=sentences)

    def accept_sentences(self, where: str, lines: list[str], *, language: str | None) -> Iterator[Document]:
        sentences = tuple(sentence for line in lines if (sentence := " ".join(clean_characters(line).split())))
        yield from self.accept(where, "\n".join(sentences), language=language, sentences=sentences)


def _iter_mediawiki(split: Split, intake: _Intake) -> Iterator[Document]:
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


def _iter_jsonl(split: Split, intake: _Intake) -> Iterator[Document]:
    for where, line in iter_lines(split, max_bytes=intake.max_record_bytes):
        if line is None:
            intake.counts["records"] += 1
            intake.reject(where, "too_large", "")
        elif line and not line.isspace():
            intake.counts["records"] += 1
            yield from _read_json(where, line, intake)


def _read_json(where: str, line: bytes, intake: _Intake) -> Iterator[Document]:
    field = intake.options.text_field
    try:
        record: Any = json.loads(line.decode())
    except UnicodeDecodeError:
        return intake.reject(where, "bad_utf8", line)
    except (ValueError, RecursionError):
        return intake.reject(where, "bad_json", line)
    if not isinstance(record, dict):
        return intake.reject(where, "bad_json", line)
    if record.get(field) is None:
        return intake.reject(where, "missing_field", line)
    value = record[field]
    language = record.get("language")
    language = language if isinstance(language, str) and language else None
    is_list = isinstance(value, list) and all(isinstance(sentence, str) for sentence in value)
    if not is_list and not isinstance(value, str):
        return intake.reject(where, "bad_field", line)
    # "\ud800" is valid JSON but no text.
    if b"\\u" in line and not _is_encodable("\n".join(value) if is_list else value):
        return intake.reject(where, "bad_utf8", line)
    if is_list:
        yield from intake.accept_sentences(where, value, language=language)
    else:
        yield from intake.accept(where, join_lines(value), language=language)
    return None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _iter_text(split: Split, intake: _Intake) -> Iterator[Document]:
    if intake.options.document_per == "line":
        records = iter_lines(split, max_bytes=intake.max_record_bytes)
    elif intake.options.document_per == "file":
        records = iter([("file", read_whole(split, max_bytes=intake.max_record_bytes))])
    else:
        records = iter_paragraphs(split, max_bytes=intake.max_record_bytes)
    for where, data in records:
        if data is not None and (not data or data.isspace()) and intake.options.document_per == "line":
            continue
        intake.counts["records"] += 1
        if data is None:
            intake.reject(where, "too_large", "")
            continue
        try:
            text = data.decode()
        except UnicodeDecodeError:
            intake.reject(where, "bad_utf8", data)
            continue
        if intake.options.sentence_per_line:
            yield from intake.accept_sentences(where, text.split("\n"), language=None)
        else:
            yield from intake.accept(where, join_lines(text), language=None)
