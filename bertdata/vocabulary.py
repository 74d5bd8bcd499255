"""The vocabulary: a WordPiece vocabulary trained on a deterministic sample of the input.

The sample is chosen by the documents' own hashes, so that it is the same however the input is cut, ordered,
compressed or distributed. A document has level n where its hash starts with n zero bits: half of all documents reach
level 1, a quarter level 2, and so on. The sample is the lowest level whose documents have at most `sample_bytes` of
text; each portion counts words by level and forgets the lowest levels as soon as what it keeps is too much, so memory
is bounded.

    level 0: 64 MB   level 1: 32 MB   level 2: 17 MB   level 3 and up: 15 MB     sample_bytes = 70 MB -> levels 1 and up

Only words are kept, not text: BERT's pre-tokenizer looks at one white-space-separated chunk at a time, and its
normalizer at one character, so the chunks' counts are all that the trainer needs, and the case rule may be chosen
afterwards.

`tokenizers`' WordPieceTrainer numbers its alphabet in the order of a hash map, another one in every process. Here the
alphabet is fixed beforehand (characters by count until 0.9995 of all words are made of them, ties by code point, with
their continuing forms) and given to the trainer as special tokens, which it keeps in order; merges are deterministic
then.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from bertdata.config import ReadOptions, TokenizerOptions
from bertdata.documents import Document
from bertdata.errors import InputError
from bertdata.portions import Portion
from bertdata.rejects import iter_checked_documents
from bertdata.sentences import resolve_language
from bertdata.storage import Folder
from bertdata.wordpiece import ROLES, new_bert_tokenizer

__all__ = ["WordCounts", "count_portion", "train_wordpiece"]

NUM_LEVELS = 64
COVERAGE = 0.9995  # of words
MIN_FREQUENCY = 2
SPECIALS = tuple(names[0] for names in ROLES.values())


class WordCounts:
    """Counts of white-space-separated chunks in a bounded sample of documents.

    Adding documents in any order, and merging parts in any order, gives the same counts.

    Args:
        sample_bytes: Bytes of UTF-8 text in the sample at most.
    """

    def __init__(self, *, sample_bytes: int) -> None:
        self.sample_bytes = sample_bytes
        self.level = 0
        self.text_bytes = [0] * NUM_LEVELS
        self.chunks: list[Counter[str]] = [Counter() for _ in range(NUM_LEVELS)]
        self.languages: list[Counter[str]] = [Counter() for _ in range(NUM_LEVELS)]

    def add(self, document: Document, *, language_option: str) -> None:
        """Counts a document's text if the sample takes it."""
        data = document.text.encode()
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8, person=b"vocabulary").digest(), "big")
        level = min(NUM_LEVELS - digest.bit_length(), NUM_LEVELS - 1)
        if level < self.level:
            return
        self.text_bytes[level] += len(data)
        self.chunks[level].update(document.text.split())
        self.languages[level][resolve_language(document.language, document.text, option=language_option)] += len(data)
        self._shrink()

    def merge(self, other: WordCounts) -> None:
        """Adds the counts of another part of the input."""
        self.level = max(self.level, other.level)
        for level in range(self.level, NUM_LEVELS):
            self.text_bytes[level] += other.text_bytes[level]
            self.chunks[level].update(other.chunks[level])
            self.languages[level].update(other.languages[level])
        self._shrink()

    def to_json(self) -> dict[str, Any]:
        """Returns the counts as JSON values."""
        return {
            "sample_bytes": self.sample_bytes,
            "level": self.level,
            "text_bytes": self.text_bytes,
            "chunks": self.chunks,
            "languages": self.languages,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> WordCounts:
        """Returns the counts that `to_json` wrote."""
        counts = cls(sample_bytes=values["sample_bytes"])
        counts.level = values["level"]
        counts.text_bytes = values["text_bytes"]
        counts.chunks = [Counter(chunks) for chunks in values["chunks"]]
        counts.languages = [Counter(languages) for languages in values["languages"]]
        return counts

    def _shrink(self) -> None:
        while self.level < NUM_LEVELS - 1 and sum(self.text_bytes[self.level :]) > self.sample_bytes:
            self.level += 1
        for level in range(self.level):
            self.text_bytes[level] = 0
            self.chunks[level].clear()
            self.languages[level].clear()

    @property
    def language(self) -> str:
        """Language with the most text in the sample, ties by name."""
        total = _sum(self.languages)
        return min(total, key=lambda language: (-total[language], language), default="en")

    def total(self) -> Counter[str]:
        """Returns the chunks' counts over all levels of the sample."""
        return _sum(self.chunks)


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)  # in place: `sum` would copy the total each time
    return total


def count_portion(
    portion: Portion, *, options: ReadOptions, sample_bytes: int, keep_rejects_in: Folder | None = None
) -> WordCounts:
    """Counts the words of one portion.

    Args:
        portion: Where to read.
        options: How to read.
        sample_bytes: Bytes of UTF-8 text in the sample at most.
        keep_rejects_in: Folder for a file with the first bad records when there are more than allowed.

    Raises:
        InputError: The file is damaged, or has more bad records than allowed.
    """
    words = WordCounts(sample_bytes=sample_bytes)
    for document in iter_checked_documents(
        portion, options=options, counts=Counter(), rejects=[], keep_in=keep_rejects_in
    ):
        words.add(document, language_option=options.language)
    return words


def _count_words(chunks: Counter[str], *, normalizer: normalizers.Normalizer) -> Counter[str]:
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for chunk, count in chunks.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(chunk)):
            words[word] += count
    return words


def _alphabet(words: Counter[str]) -> list[str]:
    """Returns the most frequent characters, sorted, of which 0.9995 of the words are made, then their continuing forms.

    One unknown character makes a whole word unknown, so the words are counted: 0.9995 of the characters left up to
    0.17 % of the tokens unknown. A character that only ever stands alone, as Chinese characters and punctuation do,
    needs no continuing form.
    """
    characters: Counter[str] = Counter()
    within: set[str] = set()
    for word, count in words.items():
        for character in word:
            characters[character] += count
        if len(word) > 1:
            within.update(word)
    by_frequency = sorted(characters, key=lambda character: (-characters[character], character))
    rank = {character: number for number, character in enumerate(by_frequency)}
    known_from: Counter[int] = Counter()  # words that are known once the character of that rank is
    for word, count in words.items():
        known_from[max(rank[character] for character in word)] += count
    left = words.total() - COVERAGE * words.total()
    num_kept = len(by_frequency)
    while num_kept and known_from[num_kept - 1] <= left:
        num_kept -= 1
        left -= known_from[num_kept]
    kept = sorted(by_frequency[:num_kept])
    return kept + [f"##{character}" for character in kept if character in within]


def _iter_repeated(words: Counter[str], *, batch: int = 1000) -> Iterator[str]:
    for word in sorted(words):
        full, rest = divmod(words[word], batch)
        for _ in range(full):
            yield " ".join([word] * batch)
        if rest:
            yield " ".join([word] * rest)


def _learn(words: Counter[str], *, alphabet: list[str], vocab_size: int) -> dict[str, int]:
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*SPECIALS, *alphabet],
        limit_alphabet=0,
        initial_alphabet=[],
        show_progress=False,
    )
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(_iter_repeated(words), trainer)
    return {text: number for text, number in tokenizer.get_vocab().items() if number < vocab_size}


def train_wordpiece(parts: Iterable[WordCounts], *, options: TokenizerOptions) -> Tokenizer:
    """Trains a WordPiece vocabulary and returns its tokenizer.

    English is lower-cased and its accents stripped, as in the published BERT; every other language keeps its case,
    because lower-casing with stripping merges words. `--lowercase` for another language keeps accents.

    Args:
        parts: Word counts of all portions, in any order.
        options: Size of the vocabulary, and the case rule where it is forced.

    Raises:
        InputError: There is no text to train on.
    """
    counts = WordCounts(sample_bytes=options.sample_bytes)
    for part in parts:
        counts.merge(part)
    english = counts.language.split("-")[0] == "en"
    lowercase = english if options.lowercase is None else options.lowercase
    strip_accents = (lowercase and english) if options.strip_accents is None else options.strip_accents
    normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    words = _count_words(counts.total(), normalizer=normalizer)
    if not words:
        raise InputError(
            "no text to train a vocabulary on: no document came out of the input; check --input and --format"
        )
    room = options.vocab_size - len(SPECIALS)
    alphabet = _alphabet(words)[:room]
    vocab = _learn(words, alphabet=alphabet, vocab_size=options.vocab_size)
    return new_bert_tokenizer(vocab, lowercase=lowercase, strip_accents=strip_accents)
