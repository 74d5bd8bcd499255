"""Sentences to token ids: those of the tokenizer's own `encode`, at a multiple of its speed.

BERT's normalizer, pre-tokenizer and WordPiece treat every word by itself, and a corpus has few different words. So a
batch of sentences is cut into words without making a Python object of each, Arrow finds the distinct ones, only those
that have not been seen go through the tokenizer, and the ids are expanded with numpy:

    sentences      "The cat (a pet)."           "The dog."
    words          The_ | cat_ | ( | a_ | pet | ) | .      The_ | dog | .          _ is the space, kept with its word
    distinct       The_  cat_  (  a_  pet  )  .  dog       8 of 10
    ids            known ones from the cache, the others from the tokenizer

A text may be cut wherever normalizer, pre-tokenizer and model give the same for the whole as for the parts: at a space
and before and after a character that the pre-tokenizer sets apart, of which there are ASCII punctuation, the
punctuation of other scripts and, where the tokenizer sets them apart, Chinese characters. None of these is changed or
moved by the normalizer (a combining mark never moves across them), and which characters they are is asked of the
tokenizer. All else (accents, control characters, unusual white space, surrogates of emoji) stays inside a word and is
the tokenizer's own business.

Most new words are also spared the tokenizer's normalizer, which takes most of its time: where all characters are
letters, digits or symbols, it maps each by itself, and what it makes of each is asked once.

A tokenizer that does not work word by word (byte-level BPE, Unigram, entries added to the vocabulary that are matched
in raw text) goes the plain way, through its `encode_batch_fast`.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from bertdata.spill import offsets_of
from bertdata.wordpiece import Vocabulary

__all__ = ["Encoder", "is_word_by_word"]

IntArray = npt.NDArray[np.int64]

CACHE_WORDS = 1 << 19
_PART_OF_WORD, _APART, _SPACE, _UNKNOWN = range(4)
_SPACES = " \t\n\r"
_UNMAPPED = "\uffff"


def is_word_by_word(tokenizer: Tokenizer) -> bool:
    """Returns whether a tokenizer treats every word by itself: BERT's normalizer, pre-tokenizer and WordPiece.

    Entries added to the vocabulary are matched in the raw text, across words, unless they are special: those stay
    text with `encode_special_tokens`.
    """
    parts = json.loads(tokenizer.to_str())
    kinds = [(parts[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        and tokenizer.encode_special_tokens
        and all(token.special for token in added)
    )


class Encoder:
    """Turns sentences into token ids.

    Args:
        tokenizer: A tokenizer from `load_tokenizer`.
        vocabulary: Its vocabulary.
        cache_words: Distinct words to remember; all are forgotten before a batch that finds more. 2**19 take about
            100 MB.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, *, cache_words: int = CACHE_WORDS) -> None:
        self._tokenizer = tokenizer
        self._dtype = vocabulary.dtype
        self._words = _WordTable(tokenizer, dtype=self._dtype, max_words=cache_words)
        self._splitter = _WordSplitter(tokenizer) if is_word_by_word(tokenizer) else None

    def encode(self, sentences: Sequence[str]) -> tuple[npt.NDArray[Any], IntArray]:
        """Returns the ids of all sentences end to end, and how many each has.

        Args:
            sentences: S sentences of less than 2 GiB of UTF-8 text in all; the more at once (some MB), the faster.

        Returns:
            ids, uint16 or uint32 [T]; lengths, int64 [S], 0 for a sentence that has no token.
        """
        if self._splitter is None:
            return _encode_plainly(self._tokenizer, sentences, dtype=self._dtype)
        words, first_words = self._splitter.split(sentences)
        distinct = words.dictionary_encode()
        ids, starts, lengths = self._words.look_up(distinct.dictionary.to_pylist())
        tokens, offsets = _expand(ids, starts, lengths, distinct.indices.to_numpy())
        return tokens, np.diff(offsets[first_words])

    @property
    def num_cached_words(self) -> int:
        """Distinct words that are remembered now."""
        return len(self._words)


def _encode_plainly(
    tokenizer: Tokenizer, sentences: Iterable[str], *, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], IntArray]:
    encodings = tokenizer.encode_batch_fast(list(sentences), add_special_tokens=False)
    return _join_rows([encoding.ids for encoding in encodings], dtype=dtype)


def _join_rows(rows: Sequence[Sequence[int]], *, dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], IntArray]:
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    return np.array([token for row in rows for token in row], dtype=dtype), lengths


def _expand(
    ids: npt.NDArray[Any], starts: IntArray, lengths: IntArray, indices: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[Any], IntArray]:
    """Returns the ids of the words with the given indices end to end, and where each word starts among them.

    Like `gather_spans`, in 32 bits: a batch has fewer tokens than bytes.
    """
    num_ids = lengths.astype(np.int32)[indices]
    offsets = offsets_of(num_ids)
    places = np.repeat(starts.astype(np.int32)[indices] - offsets[:-1].astype(np.int32), num_ids)
    places += np.arange(len(places), dtype=np.int32)
    return ids[places], offsets


class _WordSplitter:
    """Cuts sentences into words: each with the spaces after it, or a single character that is set apart."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._kind_of_byte = np.zeros(256, dtype=np.uint8)
        self._kind_of_byte[:128] = [self._kind(chr(code)) for code in range(128)]
        self._kind_of_code = np.full(1 << 16, _UNKNOWN, dtype=np.uint8)
        # First bytes of characters of three bytes, but for Hangul and the private area.
        leads = np.arange(256)
        self._is_lead = ((leads >= 0xE2) & (leads <= 0xE9)) | (leads == 0xEF)

    def _kind(self, character: str) -> int:
        if character in _SPACES:
            return _SPACE
        return _APART if _pieces(self._tokenizer, f"a{character}b") == ["a", character, "b"] else _PART_OF_WORD

    def split(self, sentences: Sequence[str]) -> tuple[pa.StringArray, IntArray]:
        """Returns the words of all sentences, which lie end to end, and where each sentence starts among them.

        Args:
            sentences: S sentences.

        Returns:
            words, W strings; int64 [S + 1].
        """
        array = pa.array(sentences, pa.string())
        _, offset_buffer, text_buffer = array.buffers()
        sentence_starts = np.frombuffer(offset_buffer, dtype=np.int32)[: len(sentences) + 1]
        num_bytes = int(sentence_starts[-1])
        text = np.frombuffer(text_buffer, dtype=np.uint8)[:num_bytes] if num_bytes else np.zeros(0, dtype=np.uint8)
        kind = self._kind_of_byte[text]
        begins = np.zeros(num_bytes + 1, dtype=bool)  # a word does, at this byte
        np.not_equal(kind[:-1], _PART_OF_WORD, out=begins[1:-1])
        begins[:-1] |= kind == _APART
        self._mark_apart(text, begins)
        begins[:-1] &= kind != _SPACE
        begins[sentence_starts] = True
        word_starts = np.flatnonzero(begins).astype(np.int32)
        words = pa.StringArray.from_buffers(len(word_starts) - 1, pa.py_buffer(word_starts), text_buffer)
        return words, np.searchsorted(word_starts, sentence_starts)

    def _mark_apart(self, text: npt.NDArray[np.uint8], begins: npt.NDArray[np.bool_]) -> None:
        """Marks the characters of three bytes that are set apart, and the places after them."""
        leads = np.flatnonzero(self._is_lead[text])
        if not len(leads):
            return
        codes = (text[leads].astype(np.uint16) & 0x0F) << 12
        codes |= (text[leads + 1].astype(np.uint16) & 0x3F) << 6
        codes |= text[leads + 2] & 0x3F
        kinds = self._kind_of_code[codes]
        if (kinds == _UNKNOWN).any():
            for code in np.unique(codes[kinds == _UNKNOWN]).tolist():
                self._kind_of_code[code] = self._kind(chr(code))
            kinds = self._kind_of_code[codes]
        apart = leads[kinds == _APART]
        begins[apart] = True
        begins[apart + 3] = True


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """Returns what the normalizer and the pre-tokenizer make of a text: pieces, each of which the model gets alone."""
    normalized = tokenizer.normalizer.normalize_str(text)
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized)]


class _WordTable:
    """The ids of words seen before, and of new ones by the tokenizer. Forgets all when it has become too large."""

    def __init__(self, tokenizer: Tokenizer, *, dtype: np.dtype[Any], max_words: int) -> None:
        self._tokenizer = tokenizer
        self._model = tokenizer.model
        self._characters = _CharacterMap(tokenizer)
        self._dtype = dtype
        self._max_words = max_words
        self._forget()

    def _forget(self) -> None:
        self._number_of: dict[str, int] = {}
        self._ids = np.zeros(0, dtype=self._dtype)
        self._offsets = np.zeros(1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._number_of)

    def look_up(self, words: Sequence[str]) -> tuple[npt.NDArray[Any], IntArray, IntArray]:
        """Returns ids, and start and length in them of each of W distinct words: int64 [W] both."""
        if len(self._number_of) > self._max_words:
            self._forget()
        self._learn([word for word in words if word not in self._number_of])
        numbers = np.array([self._number_of[word] for word in words], dtype=np.int64)
        starts = self._offsets[numbers]
        return self._ids, starts, self._offsets[numbers + 1] - starts

    def _learn(self, words: Sequence[str]) -> None:
        if not words:
            return
        mapped = "\n".join([word.strip(_SPACES) for word in words]).translate(self._characters).split("\n")
        simple = [(word, text) for word, text in zip(words, mapped, strict=True) if text and _UNMAPPED not in text]
        others = [word for word, text in zip(words, mapped, strict=True) if not text or _UNMAPPED in text]
        tokenize = self._model.tokenize
        self._add([word for word, _ in simple], [[token.id for token in tokenize(text)] for _, text in simple])
        encodings = self._tokenizer.encode_batch_fast(others, add_special_tokens=False)
        self._add(others, [encoding.ids for encoding in encodings])

    def _add(self, words: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        first = len(self._number_of)
        self._number_of.update(zip(words, range(first, first + len(words)), strict=True))
        ids, lengths = _join_rows(rows, dtype=self._dtype)
        self._ids = np.concatenate([self._ids, ids])
        self._offsets = np.concatenate([self._offsets, self._offsets[-1] + np.cumsum(lengths)])


class _CharacterMap(dict[int, str]):
    """What the normalizer makes of a character inside a word, for `str.translate`; `_UNMAPPED` where it is not simple.

    It is simple for a letter, digit or symbol that stays inside the word. Marks are not: the normalizer may reorder
    them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__({ord("\n"): "\n"})
        self._tokenizer = tokenizer

    def __missing__(self, code: int) -> str:
        self[code] = self._map(chr(code))
        return self[code]

    def _map(self, character: str) -> str:
        if unicodedata.category(character)[0] not in "LNS":
            return _UNMAPPED
        pieces = _pieces(self._tokenizer, f"a{character}b")
        if len(pieces) != 1 or not (pieces[0].startswith("a") and pieces[0].endswith("b")):
            return _UNMAPPED
        return pieces[0][1:-1]
