"""Texts for the benchmarks: English novels where they lie beside the project, and text made up in other scripts.

Made-up text has the word statistics that decide the speed of tokenization: word frequencies by Zipf's law, and for the
agglutinative language stems with chains of suffixes, so that new words never end. It says nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from bertdata.config import ReadOptions, TokenizerOptions
from bertdata.splits import plan_splits
from bertdata.storage import LocalFolder
from bertdata.vocabulary import train_wordpiece
from bertdata.vocabulary_sample import count_words_of_portion, read_vocabulary_sample
from bertdata.wordpiece import load_tokenizer

LANGUAGES = {"english": "en", "korean": "ko", "chinese": "zh"}
BOOKS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "books-en.jsonl.zst"
_DOCUMENT_SENTENCES = 40


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """One language's text, the first part of it for the peers, and a tokenizer for it."""

    name: str
    documents: list[str]
    peer_documents: list[str]
    tokenizer: Tokenizer

    @property
    def language(self) -> str:
        """Language code."""
        return LANGUAGES[self.name]

    @property
    def megabytes(self) -> float:
        """MB of the whole text."""
        return _megabytes(self.documents)

    @property
    def peer_megabytes(self) -> float:
        """MB of the peers' part."""
        return _megabytes(self.peer_documents)


def _megabytes(documents: list[str]) -> float:
    return sum(len(document.encode()) for document in documents) / 1e6


def write_documents(documents: list[str], path: Path) -> None:
    """Writes documents as JSONL."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")


def _trained_tokenizer(documents: list[str], folder: Path) -> Tokenizer:
    path = folder / "vocabulary.jsonl"
    write_documents(documents, path)
    options = TokenizerOptions(lowercase=False)
    splits = plan_splits([str(path)], options=ReadOptions())
    work = LocalFolder(folder)
    count_words_of_portion(work, 0, splits, options=ReadOptions(), sample_bytes=options.sample_bytes)
    return train_wordpiece(
        read_vocabulary_sample(work, num_portions=1, sample_bytes=options.sample_bytes), options=options
    )


def load_corpus(name: str, *, path: Path | None, megabytes: float, peer_megabytes: float, folder: Path) -> Corpus:
    """Loads the text of one language, and the published vocabulary where it fits, or one trained on 8 MB of the text.

    Args:
        name: english, korean or chinese.
        path: Plain text to use, or None.
        megabytes: Size of the whole text at most.
        peer_megabytes: Size of the peers' part.
        folder: Where a vocabulary is trained.
    """
    documents = _load_documents(name, path=path, num_bytes=int(megabytes * 1e6))
    peer = _load_documents(name, path=path, num_bytes=int(peer_megabytes * 1e6))
    vocab = BOOKS.with_name("bert-base-uncased-vocab.txt")
    if name == "english" and vocab.exists():
        tokenizer = load_tokenizer(vocab)
    else:
        tokenizer = _trained_tokenizer(_load_documents(name, path=path, num_bytes=int(8 * 1e6)), folder)
        tokenizer.encode_special_tokens = True
    return Corpus(name=name, documents=documents, peer_documents=peer, tokenizer=tokenizer)


def _load_documents(name: str, *, path: Path | None, num_bytes: int) -> list[str]:
    """Returns documents of about `num_bytes` of UTF-8 text in all: from `path`, real where there is some, or made up.

    Args:
        name: english, korean or chinese.
        path: Plain text with blank lines between documents, instead.
        num_bytes: How much; less where the source has less.
    """
    if path is not None:
        source: Iterator[str] = iter(path.read_text(encoding="utf-8").split("\n\n"))
    elif name == "english" and BOOKS.exists():
        source = _books()
    else:
        source = {"english": _english, "korean": _korean, "chinese": _chinese}[name]()
    documents, total = [], 0
    for document in source:
        documents.append(document)
        total += len(document.encode())
        if total >= num_bytes:
            break
    return documents


def _books() -> Iterator[str]:
    with pa.input_stream(str(BOOKS), compression="zstd") as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            yield json.loads(line)["text"]


def _zipf(rng: np.random.Generator, size: int, *, number: int, exponent: float = 1.05) -> np.ndarray:
    """Draws `number` ranks below `size` with probability falling as rank**-exponent."""
    weights = np.arange(1, size + 1) ** -exponent
    return np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(number)).clip(max=size - 1)


def _coin(rng: np.random.Generator, letters: list[str], *, number: int, most: int) -> list[str]:
    """Makes up words of 1 to `most` letters, frequent letters first, short words first."""
    lengths = np.sort(rng.integers(1, most + 1, number))
    drawn = iter(_zipf(rng, len(letters), number=int(lengths.sum()), exponent=0.7).tolist())
    return ["".join(letters[next(drawn)] for _ in range(length)) for length in lengths.tolist()]


def _compose(rng: np.random.Generator, words: list[str], *, space: str, comma: str, stop: str) -> str:
    sentences, start = [], 0
    while start < len(words):
        length = int(rng.integers(6, 24))
        parts = words[start : start + length]
        if len(parts) > 10:
            parts[len(parts) // 2] += comma
        sentences.append(space.join(parts) + stop)
        start += length
    paragraphs = [sentences[first : first + 6] for first in range(0, len(sentences), 6)]
    return "\n".join(space.join(paragraph) for paragraph in paragraphs)


def _english() -> Iterator[str]:
    rng = np.random.default_rng(1)
    stems = _coin(rng, list("etaoinshrdlucmfwygpbvkxqjz"), number=60_000, most=9)
    while True:
        ranks = _zipf(rng, len(stems), number=_DOCUMENT_SENTENCES * 15)
        yield _compose(rng, [stems[rank] for rank in ranks.tolist()], space=" ", comma=",", stop=".")


def _korean() -> Iterator[str]:
    rng = np.random.default_rng(2)
    syllables = [chr(0xAC00 + int(code)) for code in rng.permutation(11_172)[:1_200]]
    stems = _coin(rng, syllables, number=60_000, most=4)
    suffixes = ["", *_coin(rng, syllables[:200], number=150, most=2)]
    while True:
        number = _DOCUMENT_SENTENCES * 15
        ranks = _zipf(rng, len(stems), number=number).tolist()
        chains = _zipf(rng, len(suffixes), number=2 * number, exponent=1.6).reshape(2, number).tolist()
        words = [
            stems[rank] + suffixes[first] + suffixes[second] for rank, first, second in zip(ranks, *chains, strict=True)
        ]
        yield _compose(rng, words, space=" ", comma=",", stop=".")


def _chinese() -> Iterator[str]:
    rng = np.random.default_rng(3)
    characters = [chr(0x4E00 + int(code)) for code in rng.permutation(20_992)[:4_000]]
    words = _coin(rng, characters, number=50_000, most=3)
    while True:
        ranks = _zipf(rng, len(words), number=_DOCUMENT_SENTENCES * 15)
        yield _compose(rng, [words[rank] for rank in ranks.tolist()], space="", comma="\uff0c", stop="\u3002")
