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
import threading
import unicodedata
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from bertdata.longest_match import LongestMatch, code_points
from bertdata.spans import offsets_of
from bertdata.wordpiece import Vocabulary

__all__ = ["Encoder", "is_word_by_word"]

IntArray = npt.NDArray[np.int64]

CACHE_WORDS = 1 << 19
_PART_OF_WORD, _APART, _SPACE, _UNKNOWN = range(4)
_SPACES = " \t\n\r"
_WORDS_AT_ONCE = 1 << 15
_NEW = -1
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
    """Turns sentences into token ids. Threads may share one: some runners have several in a process.

    Args:
        tokenizer: A tokenizer from `load_tokenizer`.
        vocabulary: Its vocabulary.
        cache_words: Distinct words to remember; all are forgotten before a batch that finds more. 2**19 take about
            100 MB.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, *, cache_words: int = CACHE_WORDS) -> None:
        self._tokenizer = tokenizer
        self._dtype = vocabulary.dtype
        self._splitter = self._words = None
        if is_word_by_word(tokenizer):
            self._splitter = _WordSplitter(tokenizer)
            self._words = _WordTable(tokenizer, dtype=self._dtype, max_words=cache_words)

    def encode(self, sentences: Sequence[str]) -> tuple[npt.NDArray[Any], IntArray]:
        """Returns the ids of all sentences end to end, and how many each has.

        Args:
            sentences: S sentences of less than 2 GiB of UTF-8 text in all; the more at once (some MB), the faster.

        Returns:
            ids, uint16 or uint32 [T]; lengths, int64 [S], 0 for a sentence that has no token.
        """
        if self._splitter is None or self._words is None:
            return _encode_plainly(self._tokenizer, sentences, dtype=self._dtype)
        words, first_words = self._splitter.split(sentences)
        distinct = words.dictionary_encode()
        ids, starts, lengths = self._words.look_up(distinct.dictionary)
        tokens, offsets = _expand(ids, starts, lengths, distinct.indices.to_numpy())
        return tokens, np.diff(offsets[first_words])

    @property
    def num_cached_words(self) -> int:
        """Distinct words that are remembered now."""
        return 0 if self._words is None else len(self._words)


def _encode_plainly(
    tokenizer: Tokenizer, sentences: Sequence[str], *, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], IntArray]:
    encodings = tokenizer.encode_batch_fast(list(sentences), add_special_tokens=False)
    rows = [encoding.ids for encoding in encodings]
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
        self._model = LongestMatch(tokenizer)
        self._characters = _CharacterMap(tokenizer)
        self._dtype = dtype
        self._max_words = max_words
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._number_of: dict[str, int] = {}
        self._ids = np.zeros(0, dtype=self._dtype)
        self._offsets = np.zeros(1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._number_of)

    def look_up(self, words: pa.StringArray) -> tuple[npt.NDArray[Any], IntArray, IntArray]:
        """Returns ids, and start and length in them of each of W distinct words: int64 [W] both."""
        with self._lock:  # a word's number is its place in arrays that grow; what is returned is never changed again
            return self._look_up(words)

    def _look_up(self, words: pa.StringArray) -> tuple[npt.NDArray[Any], IntArray, IntArray]:
        if len(self._number_of) > self._max_words:
            self._forget()
        texts = words.to_pylist()
        numbers = np.fromiter(map(self._number_of.get, texts, repeat(_NEW)), dtype=np.int64, count=len(texts))
        new = np.flatnonzero(numbers == _NEW)
        for first in range(0, len(new), _WORDS_AT_ONCE):
            part = new[first : first + _WORDS_AT_ONCE]
            numbers[part] = self._learn([texts[row] for row in part.tolist()], words.take(pa.array(part)))
        starts = self._offsets[numbers]
        return self._ids, starts, self._offsets[numbers + 1] - starts

    def _learn(self, texts: Sequence[str], words: pa.StringArray) -> IntArray:
        """Adds the ids of new words, given as strings and as an array, and returns the number of each."""
        # The tokenizer's normalizer takes most of its time, so words of simple characters are spared it.
        stripped = pc.utf8_trim(words, characters=_SPACES)
        joined = pc.binary_join(pa.ListArray.from_arrays([0, len(stripped)], stripped), "\n")[0].as_py()
        codes = code_points(joined.translate(self._characters))
        stops = np.append(np.flatnonzero(codes == ord("\n")), len(codes))
        starts = np.append(0, stops[:-1] + 1)
        num_unmapped = offsets_of(codes == ord(_UNMAPPED))
        is_simple = num_unmapped[starts] == num_unmapped[stops]
        simple, others = np.flatnonzero(is_simple), np.flatnonzero(~is_simple)
        numbers = np.empty(len(texts), dtype=np.int64)
        numbers[simple] = self._add(*self._model.encode(codes, starts[simple], stops[simple]))
        other_texts = [texts[row] for row in others.tolist()]
        numbers[others] = self._add(*_encode_plainly(self._tokenizer, other_texts, dtype=self._dtype))
        self._number_of.update(zip(texts, numbers.tolist(), strict=True))
        return numbers

    def _add(self, ids: npt.NDArray[Any], lengths: IntArray) -> IntArray:
        numbers = len(self._offsets) - 1 + np.arange(len(lengths))
        self._ids = np.concatenate([self._ids, ids.astype(self._dtype, copy=False)])
        self._offsets = np.concatenate([self._offsets, self._offsets[-1] + np.cumsum(lengths)])
        return numbers


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
