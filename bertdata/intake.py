"""From records to documents: every record ends up in exactly one count.

records = documents + empty + too_short + filtered_<reason> + rejected_too_large + rejected_bad_utf8
          + rejected_bad_json + rejected_missing_field + rejected_bad_field + rejected_bad_markup
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bertdata.characters import clean_characters
from bertdata.config import MIB, ReadOptions
from bertdata.documents import Document, Reject
from bertdata.errors import ConfigError
from bertdata.hooks import describe_failure, load_hook
from bertdata.inputs import file_name
from bertdata.lines import join_lines
from bertdata.splits import Split

__all__ = ["Intake"]

_MAX_REJECTS_KEPT = 20
_EXCERPT_CHARS = 200
_REASON = re.compile(r"[A-Za-z0-9_-]{1,40}")


class Intake:
    """Turns the records of a split into documents and books where each one went.

    Args:
        split: Where the records come from.
        options: How to read.
        counts: Incremented, see the module's head.
        rejects: Gets the first 20 rejected records.
    """

    def __init__(self, split: Split, *, options: ReadOptions, counts: Counter[str], rejects: list[Reject]) -> None:
        self.options = options
        # A record may be longer than its text, by escapes or markup, but not without limit: it is held in memory.
        self.max_record_bytes = 3 * options.max_document_bytes + MIB
        self.counts = counts
        self._split = split
        self._file_name = file_name(split.path)
        self._rejects = rejects
        self._num_rejects = 0
        self._filter = load_hook(options.filter, option="--filter") if options.filter is not None else None

    def reject(self, where: str, reason: str, record: bytes | str) -> None:
        """Books a record that cannot be used."""
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
        """Yields the document, unless there is too much or too little of it, or the filter drops it."""
        document = Document(id=f"{self._file_name}:{where}", text=text, language=language, sentences=sentences)
        if not self._has_right_size(where, document):
            return
        if self._filter is not None:
            filtered = self._apply_filter(document)
            if filtered is None or (filtered is not document and not self._has_right_size(where, filtered)):
                return
            document = filtered
        self.counts["documents"] += 1
        yield document

    def accept_value(self, where: str, value: Any, *, language: Any, record: bytes | str) -> Iterator[Document]:
        """Yields the document of a record's field.

        Args:
            where: Which record.
            value: What the field holds: a text or a list of sentences; anything else is booked as bad.
            language: What the record says of its language; passed over where it is no string.
            record: For the excerpt of a rejected record.
        """
        language = language if isinstance(language, str) and language else None
        parts = (value,) if isinstance(value, str) else _as_parts(value)
        if value is None:
            self.reject(where, "missing_field", record)
        elif not all(isinstance(part, str) for part in parts):
            self.reject(where, "bad_field", record)
        elif not all(map(_is_encodable, parts)):
            self.reject(where, "bad_utf8", record)
        elif isinstance(value, str):
            text = join_lines(value)
            del value, parts  # they may be large, and would live as long as the document is worked on
            yield from self.accept(where, text, language=language)
        else:
            yield from self.accept_sentences(where, parts, language=language)

    def accept_sentences(self, where: str, sentences: Sequence[str], *, language: str | None) -> Iterator[Document]:
        """Yields the document whose sentences are given."""
        text, cleaned = _clean_sentences(sentences)
        yield from self.accept(where, text, language=language, sentences=cleaned)

    def decode(self, where: str, record: bytes | None) -> str | None:
        """Returns the text of a record; None for one that is booked as too large (None) or as no UTF-8."""
        if record is None:
            self.reject(where, "too_large", "")
            return None
        try:
            return record.decode()
        except UnicodeDecodeError:
            self.reject(where, "bad_utf8", record)
            return None

    def _has_right_size(self, where: str, document: Document) -> bool:
        text, options = document.text, self.options
        if 4 * len(text) > options.max_document_bytes and len(text.encode()) > options.max_document_bytes:
            self.reject(where, "too_large", text)
        elif not text:
            self.counts["empty"] += 1
        elif len(text) < options.min_document_chars:
            self.counts["too_short"] += 1
        else:
            return True
        return False

    def _apply_filter(self, document: Document) -> Document | None:
        assert self._filter is not None
        assert self.options.filter is not None
        name = f"--filter {self.options.filter}"
        try:
            result: Any = self._filter(document)
        except (Exception, SystemExit) as error:
            what = f"document {document.id!r}"
            raise ConfigError(f"{name}: {describe_failure(error, what, hook=self.options.filter)}") from error
        if isinstance(result, str) and _REASON.fullmatch(result):
            self.counts[f"filtered_{result}"] += 1
            return None
        if isinstance(result, Document):
            return result if result is document else _cleaned(result, document, name)
        raise ConfigError(
            f"{name} returned {result!r:.80} for document {document.id!r}; it must return the document, a changed "
            'copy, or, to drop it, a reason of letters, digits, "_" and "-"'
        )


def _cleaned(changed: Document, document: Document, name: str) -> Document:
    """Returns what a filter has made of a document, in the form that documents have.

    Raises:
        ConfigError: Its fields are not what a document's are, or its text changed where its sentences count.
    """
    values = (changed.text, changed.language or "", *_as_parts(changed.sentences))
    if not all(isinstance(value, str) and _is_encodable(value) for value in values):
        raise ConfigError(
            f"{name} returned {changed!r:.200}; text must be a string, language a string or None, sentences a tuple of "
            "strings or None"
        )
    if changed.sentences is None:
        text, sentences = join_lines(changed.text), None
    elif changed.sentences == document.sentences and changed.text != document.text:
        raise ConfigError(
            f"{name} changed the text of document {document.id!r}, but not its sentences, which are what is used"
        )
    else:
        text, sentences = _clean_sentences(changed.sentences)
    return Document(id=document.id, text=text, language=changed.language, sentences=sentences)


def _as_parts(sentences: Any) -> tuple[Any, ...]:
    """Returns sentences one by one; what is no tuple or list of them comes as one thing that is no string."""
    if sentences is None:
        return ()
    return tuple(sentences) if isinstance(sentences, (tuple, list)) else (None,)


def _clean_sentences(sentences: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Returns a document's text, a sentence per line, and its sentences without those that are empty."""
    cleaned = tuple(sentence for line in sentences if (sentence := " ".join(clean_characters(line).split())))
    return "\n".join(cleaned), cleaned


def _is_encodable(text: str) -> bool:
    r"""Returns whether text has none of the surrogates that JSON can spell ("\ud800"), which are no characters."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
