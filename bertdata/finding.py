"""Finding one record of the input by its name: a wiki page by its title, others by their place or title."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertdata.byte_progress import ByteProgress
from bertdata.config import ReadOptions
from bertdata.decompress import Chunk, iter_chunks
from bertdata.documents import Document, Reject
from bertdata.errors import InputError
from bertdata.inputs import file_name
from bertdata.intake import Intake
from bertdata.mediawiki import iter_pages
from bertdata.parquet import Row
from bertdata.readers import Record, iter_records, read_record
from bertdata.splits import Split, plan_splits
from bertdata.wikiextractor import Extract

__all__ = ["FoundRecord", "find_record"]

_LOG = logging.getLogger(__name__)

_PLACE = re.compile(r"(?:line|row|record|byte) \d+|file")
_BYTE = re.compile(r"(?:.*:)?byte (\d+)")
_NAMES_AT_ONCE = 4096
_WHOLE_FILE = 1 << 40  # bytes of a split
_TITLE_FIELDS = ("title", "id")

# What a page that is no article is instead.
_OTHER_PAGES = {
    "redirects": "it is a redirect",
    "other_namespaces": "it is in another namespace than the articles",
    "other_models": "what it holds is not wikitext",
}
_LINK_TARGET = re.compile(r"\[\[([^\]|]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRecord:
    """A record of the input, and what the build's reader makes of it.

    Attributes:
        path: Its file.
        where: Its title, line, row, byte or number.
        raw: The record as it stands in the file; None where it is too large to be held in memory.
        document: The document, also of a record that was dropped as too short or by a filter; None where there is none.
        dropped: Why it is no document of the build; empty where it is one.
    """

    path: str
    where: str
    raw: str | None
    document: Document | None
    dropped: str


def find_record(inputs: Sequence[str], *, name: str, options: ReadOptions) -> FoundRecord:
    """Finds the first record of a name, and reads it as the build does. Shows its progress on stderr.

    Args:
        inputs: Files, folders or glob patterns.
        name: A page's title; of other records the place, such as "line 12" or "row 3", the id ("file.jsonl:line 12"),
            or the "title" or "id" of a JSON object or dictionary that has one.
        options: How the build read its input.

    Raises:
        InputError: There is no such record (the message says which have names like it), or a file is damaged.
    """
    search = _Search(name, options)
    # Lines are counted from the beginning of a split, so one split a file; but damage ends a split.
    split_bytes = None if options.skip_bad_splits else _WHOLE_FILE
    for split in plan_splits(inputs, options=options, split_bytes=split_bytes):
        try:
            found = search.look(split)
        except InputError as error:
            if not options.skip_bad_splits:
                raise
            _LOG.warning("%s is damaged; the rest of it is left out: %s", split.name, error)
            continue
        if found is not None:
            return found
    nearest = search.nearest()
    seen = f"is not among the {search.num_seen:,} records of the input" if search.num_seen else "is no record's place"
    hint = f"the nearest names are {', '.join(map(repr, nearest))}" if nearest else "no name is like it"
    raise InputError(
        f"--document {name!r} {seen}; {hint}. A page goes by its title, other records by the place where they begin "
        '("line 12", "row 3", "record 5", "byte 1234"), or by file and place ("corpus.jsonl:line 12")'
    )


class _Search:
    """Looks for a name, and remembers those that are like it."""

    def __init__(self, name: str, options: ReadOptions) -> None:
        self.num_seen = 0
        self._name = name
        self._options = options
        spaced = name.replace("_", " ").strip()
        self._titles = {name, spaced, spaced[:1].upper() + spaced[1:]}  # as a wiki looks a title up
        self._place = name.replace(",", "")
        self._is_place = _PLACE.fullmatch(self._place.rpartition(":")[2]) is not None
        self._like: list[str] = []
        self._unsorted: list[str] = []

    def nearest(self) -> list[str]:
        """Returns up to three of the names seen, the one most like the wanted one first."""
        self._like = difflib.get_close_matches(self._name, [*self._like, *self._unsorted], n=3)
        self._unsorted = []
        return self._like

    def look(self, split: Split) -> FoundRecord | None:
        """Looks through a split."""
        byte = _BYTE.fullmatch(self._place)
        if byte and split.compression == "none" and split.format in ("jsonl", "text", "wikiextractor"):
            split = dataclasses.replace(split, start=int(byte[1]), stop=int(byte[1]) + 1)
            if split.start >= split.file_bytes:
                return None
        is_stored = split.format == "mediawiki" or (split.compression == "none" and split.format != "parquet")
        total = split.num_bytes if is_stored and not split.is_custom else None
        with ByteProgress(f"looking in {file_name(split.path)}", total=total) as progress:
            return (self._look_at_pages if split.format == "mediawiki" else self._look_at_records)(split, progress)

    def _look_at_pages(self, split: Split, progress: ByteProgress) -> FoundRecord | None:
        intake = _intake_of(split, self._options)
        chunks = _iter_chunks(split, progress)
        for kind, (title, text) in iter_pages(split, chunks, max_page_bytes=intake.max_record_bytes):
            if title in self._titles:
                if kind == "articles":
                    return _read(Record(title, text), split, options=self._options)
                target = _LINK_TARGET.search(text or "") if kind == "redirects" else None
                dropped = _OTHER_PAGES[kind] + (f" to {target[1]!r}" if target else "")
                return FoundRecord(path=split.path, where=title, raw=text, document=None, dropped=dropped)
            self._pass_over(title)
        return None

    def _look_at_records(self, split: Split, progress: ByteProgress) -> FoundRecord | None:
        name_of_file = file_name(split.path)
        for record in iter_records(split, intake=_intake_of(split, self._options)):
            data = record.data.text if isinstance(record.data, Extract) else record.data
            progress.advance(len(data) if isinstance(data, (bytes, str)) else 0)
            where = record.where.replace(",", "")
            names = [] if self._is_place else _titles_of(record)
            if self._place in (where, f"{name_of_file}:{where}") or self._name in (record.where, *names):
                return _read(record, split, options=self._options)
            self._pass_over(*(names or [f"{name_of_file}:{where}"]))
        return None

    def _pass_over(self, *names: str) -> None:
        self.num_seen += 1
        self._unsorted += names
        if len(self._unsorted) >= _NAMES_AT_ONCE:
            self.nearest()


def _intake_of(split: Split, options: ReadOptions) -> Intake:
    """Returns an intake whose counts and rejects nobody looks at."""
    return Intake(split, options=options, counts=Counter(), rejects=[])


def _iter_chunks(split: Split, progress: ByteProgress) -> Iterator[Chunk]:
    position = split.start
    for chunk in iter_chunks(split.path, compression=split.compression, start=split.start, stop=split.stop):
        progress.advance(chunk.position - position)
        position = chunk.position
        yield chunk


def _titles_of(record: Record) -> list[str]:
    """Returns the title or id that a record has of its own."""
    values: Any = record.data
    if isinstance(values, bytes) and values.lstrip().startswith(b"{"):
        try:
            values = json.loads(values)
        except (ValueError, RecursionError):
            return []
    if isinstance(values, Extract):
        return [record.where]
    found = [values.get(field) for field in _TITLE_FIELDS] if isinstance(values, Mapping) else []
    return [str(title) for title in found if isinstance(title, (str, int))]


def _read(record: Record, split: Split, *, options: ReadOptions) -> FoundRecord:
    """Makes a document of a record as the build does, and finds out why where it makes none."""
    counts: Counter[str] = Counter()
    rejects: list[Reject] = []
    documents = list(read_record(record, split, intake=Intake(split, options=options, counts=counts, rejects=rejects)))
    dropped = ""
    if not documents:
        lenient = dataclasses.replace(options, min_document_chars=1, filter=None)
        documents = list(read_record(record, split, intake=_intake_of(split, lenient)))
        dropped = _why_dropped(counts, rejects, documents, options=options)
    return FoundRecord(
        path=split.path,
        where=record.where,
        raw=_raw_text(record.data),
        document=documents[0] if documents else None,
        dropped=dropped,
    )


def _why_dropped(
    counts: Counter[str], rejects: list[Reject], documents: list[Document], *, options: ReadOptions
) -> str:
    if rejects:
        return f"the record is rejected: {rejects[0].reason.replace('_', ' ')}"
    if counts["too_short"] and documents:
        num_chars = len(documents[0].text)
        return f"its text has {num_chars:,} characters; --min-document-chars is {options.min_document_chars:,}"
    reasons = [name.removeprefix("filtered_") for name in counts if name.startswith("filtered_")]
    return f"--filter {options.filter} drops it: {reasons[0]}" if reasons else "no text is left of it"


def _raw_text(data: Any) -> str | None:
    """Returns a record as text."""
    if isinstance(data, Extract):
        data = data.text
    if isinstance(data, Row):
        data = data.value
    if isinstance(data, bytes):
        return data.decode("utf-8", "backslashreplace")
    if data is None or isinstance(data, str):
        return data
    return json.dumps(data, ensure_ascii=False, default=repr)
