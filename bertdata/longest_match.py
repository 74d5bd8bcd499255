"""WordPiece for many words at once: longest match first, as a walk through a trie that all words take together.

    vocabulary    un  ##aff  ##able  ##a  ##b
    word          u n a f f a b l e
                  un|aff|able            at each place the longest entry that fits; [UNK] for the word where none does

The trie is a hash table from (node, character) to the next node. It has two roots, for the piece that begins a word and
for those that continue it. In each step every word that is not done takes one character further, or ends its piece with
the last node on its way that is an entry.

Source: Wu et al. 2016 and the `tokenizers` library, whose `models.WordPiece` gives the same ids for a word.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

__all__ = ["LongestMatch", "code_points"]

IntArray = npt.NDArray[np.int64]

_CODE_BITS = 21  # of a Unicode code point
_NONE = -1
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_FIRST_PIECE, _NEXT_PIECE = range(2)  # the roots


def code_points(text: str) -> IntArray:
    """Returns the code points of a text: int64 [characters]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)


class _HashTable:
    """Non-negative integers by non-negative integer keys; open addressing with linear probing."""

    def __init__(self, keys: IntArray, values: IntArray) -> None:
        self._shift = np.uint64(64 - max(4, int(2 * len(keys)).bit_length()))
        size = 1 << (64 - int(self._shift))
        self._keys = np.full(size, _NONE, dtype=np.int64)
        self._values = np.full(size, _NONE, dtype=np.int64)
        slots = self._slots(keys)
        while len(keys):
            free = np.flatnonzero(self._keys[slots] == _NONE)
            _, first = np.unique(slots[free], return_index=True)  # one key for each free slot
            placed = free[first]
            self._keys[slots[placed]], self._values[slots[placed]] = keys[placed], values[placed]
            left = np.ones(len(keys), dtype=bool)
            left[placed] = False
            keys, values, slots = keys[left], values[left], (slots[left] + 1) & (size - 1)

    def _slots(self, keys: IntArray) -> IntArray:
        return ((keys.astype(np.uint64) * _FACTOR) >> self._shift).view(np.int64)

    def get(self, keys: IntArray) -> IntArray:
        """Returns the value of each key, -1 for a key that is not there."""
        slots = self._slots(keys)
        found = self._keys[slots]
        values = np.where(found == keys, self._values[slots], _NONE)
        rows = np.flatnonzero((found != keys) & (found != _NONE))
        keys, slots = keys[rows], slots[rows]
        while len(rows):
            slots = (slots + 1) & (len(self._keys) - 1)
            found = self._keys[slots]
            is_hit = found == keys
            values[rows[is_hit]] = self._values[slots[is_hit]]
            more = ~is_hit & (found != _NONE)
            rows, keys, slots = rows[more], keys[more], slots[more]
        return values


class LongestMatch:
    """The WordPiece model of a tokenizer.

    Args:
        tokenizer: A tokenizer whose model is WordPiece.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        model = tokenizer.model
        vocab = tokenizer.get_vocab(with_added_tokens=False)
        prefix = model.continuing_subword_prefix
        self._unknown = vocab[model.unk_token]
        self._max_chars = model.max_input_chars_per_word
        entries = [(_FIRST_PIECE, text, number) for text, number in vocab.items()]
        entries += [
            (_NEXT_PIECE, text.removeprefix(prefix), number)
            for text, number in vocab.items()
            if text.startswith(prefix)
        ]
        self._build([entry for entry in entries if entry[1]])

    def _build(self, entries: list[tuple[int, str, int]]) -> None:
        roots, texts, numbers = zip(*entries, strict=True)
        codes = code_points("".join(texts))
        lengths = np.array([len(text) for text in texts])
        starts = np.cumsum(lengths) - lengths
        node = np.array(roots, dtype=np.int64)
        num_nodes = 2
        keys, values = [], []
        rows = np.arange(len(texts))
        for depth in range(int(lengths.max())):
            rows = rows[lengths[rows] > depth]
            new, number = np.unique((node[rows] << _CODE_BITS) | codes[starts[rows] + depth], return_inverse=True)
            node[rows] = num_nodes + number
            keys.append(new)
            values.append(num_nodes + np.arange(len(new)))
            num_nodes += len(new)
        self._next = _HashTable(np.concatenate(keys), np.concatenate(values))
        self._entry = np.full(num_nodes, _NONE, dtype=np.int64)  # id of the entry that ends at a node
        self._entry[node] = numbers

    def encode(self, codes: IntArray, starts: IntArray, stops: IntArray) -> tuple[IntArray, IntArray]:
        """Returns the ids of W words end to end, and how many each has.

        Args:
            codes: int64 [C]; code points.
            starts: int64 [W]; word w is codes[starts[w]:stops[w]].
            stops: int64 [W].

        Returns:
            ids, int64 [T]; lengths, int64 [W], 0 for an empty word.
        """
        is_unknown = stops - starts > self._max_chars
        word = np.flatnonzero(~is_unknown & (stops > starts))
        place, stop = starts[word], stops[word]
        node = np.full(len(word), _FIRST_PIECE)
        entry, entry_stop = np.full(len(word), _NONE), place  # the longest on the way so far
        found_words, found_ids = [word[:0]], [word[:0]]
        while len(word):
            inside = place < stop
            key = (node << _CODE_BITS) | codes[np.where(inside, place, 0)]
            node = np.where(inside, self._next.get(key), _NONE)
            place = place + 1
            reached = np.where(node == _NONE, _NONE, self._entry[node])
            entry = np.where(reached == _NONE, entry, reached)
            entry_stop = np.where(reached == _NONE, entry_stop, place)

            ended = np.flatnonzero(node == _NONE)
            if not len(ended):
                continue
            is_unknown[word[ended[entry[ended] == _NONE]]] = True
            found_words.append(word[ended])
            found_ids.append(entry[ended])
            place[ended], node[ended] = entry_stop[ended], _NEXT_PIECE
            is_done = (entry[ended] == _NONE) | (entry_stop[ended] == stop[ended])
            entry[ended] = _NONE
            if is_done.any():
                more = np.ones(len(word), dtype=bool)
                more[ended[is_done]] = False
                word, place, stop, node = word[more], place[more], stop[more], node[more]
                entry, entry_stop = entry[more], entry_stop[more]
        return self._join(np.concatenate(found_words), np.concatenate(found_ids), is_unknown)

    def _join(self, word: IntArray, ids: IntArray, is_unknown: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
        """Puts pieces in order of their words; one [UNK] for a word that is not made of entries."""
        known = ~is_unknown[word]
        unknown = np.flatnonzero(is_unknown)
        word = np.concatenate([word[known], unknown])
        ids = np.concatenate([ids[known], np.full(len(unknown), self._unknown)])
        return ids[np.argsort(word, kind="stable")], np.bincount(word, minlength=len(is_unknown))
