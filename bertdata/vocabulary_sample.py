"""The sample that a vocabulary is trained on: words of some documents, the same however the input is cut or read.

The sample is chosen by the documents' own hashes. A document has level n where its hash starts with n zero bits: half
of all documents reach level 1, a quarter level 2, and so on. The sample is the lowest level whose documents have at
most `sample_bytes` of text:

    level 0: 64 MB   level 1: 32 MB   level 2: 17 MB   level 3 and up: 15 MB     sample_bytes = 70 MB -> levels 1 and up

In Thai and other languages without spaces a word is as long as a sentence, nearly every one occurs once, and the
trainer would take gigabytes for them. So the level is also high enough for distinct long words to have 4 million
characters at most. Texts with spaces never have so many, nor have Chinese ones, of which each character is a word.

Each portion of the input counts its words by level, and forgets the lowest levels as soon as what it keeps is too much.
It begins at the lowest level that is still possible by what it sees of portions that are done: the text that any of
them have is text that the sample has, so what is left out on the way was never in the sample, whichever of them are
done by then. Of each portion there are two files:

    words/00003.json          its lowest level, bytes of text and languages by level, and where each level's words end
    word_counts/00003.jsonl   {word: count} of each level, a line each, the highest level first

The first are small, and tell which levels the sample has; of the second, only these are read.

Only words are kept, not text: BERT's pre-tokenizer looks at one white-space-separated chunk at a time, and its
normalizer at one character, so the chunks' counts are all that the trainer needs, and the case rule may be chosen
afterwards.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bertdata.config import ReadOptions
from bertdata.documents import Document
from bertdata.portions import Portion
from bertdata.rejects import iter_checked_documents
from bertdata.sentences import resolve_language
from bertdata.storage import Folder

__all__ = [
    "PortionWords",
    "VocabularySample",
    "WordCounts",
    "count_words_of_portion",
    "lowest_level",
    "read_vocabulary_sample",
]

NUM_LEVELS = 64
_PIECE_CHARS = 1 << 20
_SPACE = re.compile(r"\s")
MAX_LONG_CHARS = 4_000_000  # of distinct long words; the trainer takes about 120 bytes for each
_LONG_WORD = 32  # characters; no language with spaces has many such words
# Between ASCII punctuation and Chinese characters and marks, at which the pre-tokenizer cuts.
_LONG_PART = re.compile("[^!-/:-@[-`{-~\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff00-\uff0f]{32,}")
MAX_RECORDS_SEEN = 64  # of portions that are done, when another begins


@dataclass(frozen=True, kw_only=True, slots=True)
class VocabularySample:
    """What a vocabulary is trained on.

    Attributes:
        chunks: How often each white-space-separated chunk occurs.
        language: Language with the most text, ties by name.
    """

    chunks: Counter[str]
    language: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PortionWords:
    """The small record of a portion whose words have been counted.

    Attributes:
        level: The lowest level that it has; lower ones have too much text in all.
        text_bytes: Bytes of UTF-8 text by level.
        languages: The same by language, by level.
        ends: Where each level's words end in the file of the counts.
    """

    level: int
    text_bytes: Sequence[int]
    languages: Sequence[dict[str, int]]
    ends: Sequence[int]

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def lowest_level(parts: Iterable[PortionWords], *, sample_bytes: int) -> int:
    """Returns the level of the sample of all `parts`; where these are not all, the sample's level is no lower."""
    level = 0
    text_bytes = [0] * NUM_LEVELS
    for part in parts:
        level = max(level, part.level)
        text_bytes = [total + own for total, own in zip(text_bytes, part.text_bytes, strict=True)]
    while level < NUM_LEVELS - 1 and sum(text_bytes[level:]) > sample_bytes:
        level += 1
    return level


class WordCounts:
    """Counts white-space-separated chunks of the documents that may be in the sample.

    Args:
        sample_bytes: Bytes of UTF-8 text in the sample at most.
        level: A level that the sample is not below.
    """

    def __init__(self, *, sample_bytes: int, level: int = 0) -> None:
        self.sample_bytes = sample_bytes
        self.level = level
        self.text_bytes = [0] * NUM_LEVELS
        self.chunks: list[Counter[str]] = [Counter() for _ in range(NUM_LEVELS)]
        self.languages: list[Counter[str]] = [Counter() for _ in range(NUM_LEVELS)]

    def add(self, document: Document, *, language_option: str) -> None:
        """Counts a document's text if the sample may take it."""
        data = document.text.encode()
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8, person=b"vocabulary").digest(), "big")
        level = min(NUM_LEVELS - digest.bit_length(), NUM_LEVELS - 1)
        if level < self.level:
            return
        self.text_bytes[level] += len(data)
        for piece in _iter_pieces(document.text):
            self.chunks[level].update(piece.split())
        self.languages[level][resolve_language(document.language, document.text, option=language_option)] += len(data)
        while self.level < NUM_LEVELS - 1 and sum(self.text_bytes[self.level :]) > self.sample_bytes:
            for counts in (self.chunks, self.languages):
                counts[self.level] = Counter()
            self.text_bytes[self.level] = 0
            self.level += 1

    def write(self, folder: Folder, number: int) -> None:
        """Writes the counts as those of portion `number`: the record, whose being there says so, last."""
        ends = [0] * NUM_LEVELS
        with folder.create(_counts_name(number)) as file:
            for level in reversed(range(self.level, NUM_LEVELS)):
                file.write(json.dumps(self.chunks[level], ensure_ascii=False).encode())
                file.write(b"\n")
                ends[level] = file.tell()
                self.chunks[level] = Counter()
        record = PortionWords(level=self.level, text_bytes=self.text_bytes, languages=self.languages, ends=ends)
        folder.write(_record_name(number), json.dumps(record.to_json()).encode())


def _iter_pieces(text: str) -> Iterator[str]:
    """Cuts text before white space: all the words of a large document at once would take ten times its size."""
    start = 0
    while found := _SPACE.search(text, start + _PIECE_CHARS):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def _counts_name(number: int) -> str:
    return f"word_counts/{number:05d}.jsonl"


def _record_name(number: int) -> str:
    return f"words/{number:05d}.json"


def _read_record(folder: Folder, name: str) -> PortionWords:
    return PortionWords(**json.loads(folder.read(name)))


def count_words_of_portion(
    folder: Folder,
    number: int,
    portion: Portion,
    *,
    options: ReadOptions,
    sample_bytes: int,
    keep_rejects_in: Folder | None = None,
) -> None:
    """Counts the words of one portion, unless that is done.

    Args:
        folder: Where the counts of all portions are.
        number: Number of the portion.
        portion: Where to read.
        options: How to read.
        sample_bytes: Bytes of UTF-8 text in the sample at most.
        keep_rejects_in: Folder for a file with the first bad records when there are more than allowed.

    Raises:
        InputError: A file is damaged, or has more bad records than allowed.
    """
    done = folder.names("words")
    if _record_name(number) in done:
        return
    seen = (_read_record(folder, name) for name in done[-MAX_RECORDS_SEEN:])
    words = WordCounts(sample_bytes=sample_bytes, level=lowest_level(seen, sample_bytes=sample_bytes))
    for document in iter_checked_documents(
        portion, options=options, counts=Counter(), rejects=[], keep_in=keep_rejects_in
    ):
        words.add(document, language_option=options.language)
    words.write(folder, number)


def read_vocabulary_sample(folder: Folder, *, num_portions: int, sample_bytes: int) -> VocabularySample:
    """Reads the words of the sample, of the levels that it has and no other.

    Args:
        folder: Where the counts of all portions are.
        num_portions: How many portions there are; all have been counted.
        sample_bytes: Bytes of UTF-8 text in the sample at most.
    """
    records = [_read_record(folder, _record_name(number)) for number in range(num_portions)]
    level = lowest_level(records, sample_bytes=sample_bytes)
    chunks = _read_chunks(folder, records, level=level)
    while level < NUM_LEVELS - 1 and _num_long_chars(chunks) > MAX_LONG_CHARS:
        level += 1
        chunks = _read_chunks(folder, records, level=level)
    languages: Counter[str] = Counter()
    for record in records:
        for counts in record.languages[level:]:
            languages.update(counts)
    language = min(languages, key=lambda name: (-languages[name], name), default="en")
    return VocabularySample(chunks=chunks, language=language)


def _read_chunks(folder: Folder, records: Sequence[PortionWords], *, level: int) -> Counter[str]:
    """Reads the words of all portions from `level` on."""
    chunks: Counter[str] = Counter()
    parts = [(_counts_name(number), 0, record.ends[level]) for number, record in enumerate(records)]
    for data in folder.read_many(parts):
        for line in data.splitlines():
            chunks.update(json.loads(line))
    return chunks


def _num_long_chars(chunks: Iterable[str]) -> int:
    """Returns how many characters distinct chunks have in what the trainer may take for long words."""
    return sum(len(part) for chunk in chunks if len(chunk) >= _LONG_WORD for part in _LONG_PART.findall(chunk))
