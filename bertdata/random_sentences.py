"""Random sentences: where segment B of a NotNext pair starts, in another document than A's.

google draws a document first, up to ten times where it is A's own, then a sentence in it. balanced draws among all
sentences of the shard that are neither of A's document nor the first of theirs:

    documents     a: a0 a1 a2     b: b0 b1     c: c0 c1 c2 c3
    candidates    for A in b: a1 a2 c1 c2 c3, each as likely
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bertdata.chunks import Draw
from bertdata.seeds import below, hash64
from bertdata.spans import offsets_of
from bertdata.spill import Documents

__all__ = ["RandomSentences"]

IntArray = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]

_MAX_TRIES = 10


class RandomSentences:
    """Draws where a random B starts.

    Args:
        documents: D documents.
        mode: "google" or "balanced", see `bertdata.pairs`.
    """

    def __init__(self, documents: Documents, *, mode: str) -> None:
        self._starts = documents.sentence_offsets[:-1]
        self._num_sentences = np.diff(documents.sentence_offsets)
        self._is_google = mode == "google"
        # Balanced: candidate c of a document is its sentence 1 + c, so its candidates are all but the opening.
        self._candidate_offsets = offsets_of(self._num_sentences - 1)

    @property
    def is_possible(self) -> bool:
        """Whether there is a sentence to draw for every document."""
        others = self._candidate_offsets[-1] - np.diff(self._candidate_offsets)
        return self._is_google or bool(len(others) and others.min() > 0)

    def draw(self, rows: IntArray, keys: UInt64Array) -> tuple[IntArray, IntArray]:
        """Returns where a random B starts for each of C chunks.

        Args:
            rows: int64 [C]; rows of A's documents.
            keys: uint64 [C]; keys of the chunks.

        Returns:
            The sentence, int64 [C]; the row of its document, int64 [C].
        """
        return self._draw_document_first(rows, keys) if self._is_google else self._draw_sentence(rows, keys)

    def _draw_document_first(self, rows: IntArray, keys: UInt64Array) -> tuple[IntArray, IntArray]:
        document = below(hash64(keys, Draw.B_RETRY), len(self._starts))
        for attempt in range(1, _MAX_TRIES):
            again = np.flatnonzero(document == rows)
            document[again] = below(hash64(keys[again], Draw.B_RETRY + attempt), len(self._starts))
        sentence = below(hash64(keys, Draw.B_SENTENCE), self._num_sentences[document])
        return self._starts[document] + sentence, document

    def _draw_sentence(self, rows: IntArray, keys: UInt64Array) -> tuple[IntArray, IntArray]:
        offsets = self._candidate_offsets
        own_start, own_stop = offsets[rows], offsets[rows + 1]
        number = below(hash64(keys, Draw.B), offsets[-1] - (own_stop - own_start))
        number += np.where(number >= own_start, own_stop - own_start, 0)
        document = np.searchsorted(offsets, number, side="right") - 1
        return self._starts[document] + 1 + number - offsets[document], document
