"""Which sentences of a document a sample is made of: its tokens are looked up in those of the document.

Nothing is known here of how pairs are built, so what is found explains the sample by its bytes alone:

    document    s1 s1 s1 s2 s2 s2 s3 s3 s3
    A              s1 s1 s2 s2 s2              sentences 1-2, cut: 1 front
    B                             s3 s3        sentence 3, cut: 1 back

Where the same tokens stand in a document more than once, the place is taken that explains them with the fewest tokens
cut; a build may have taken them from the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.blocks import Sample
from bertdata.errors import ShardError

__all__ = ["Alignment", "Segment", "align"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A run of tokens of a document.

    Attributes:
        start: Its first token in the document.
        stop: The token after its last one.
        first: The sentence of its first token.
        last: The sentence of its last token.
        front_cut: Tokens of sentence `first` before it.
        back_cut: Tokens of sentence `last` after it.
    """

    start: int
    stop: int
    first: int
    last: int
    front_cut: int
    back_cut: int

    def name(self, names: Sequence[str]) -> str:
        """Returns which sentences these are, given the names of all: "3", or "3-5"."""
        return names[self.first] if self.first == self.last else f"{names[self.first]}-{names[self.last]}"

    @property
    def cuts(self) -> str:
        """How many tokens are cut off its ends: "cut: 2 front, 1 back"; empty where none are."""
        sides = [(self.front_cut, "front"), (self.back_cut, "back")]
        cuts = ", ".join(f"{count} {side}" for count, side in sides if count)
        return f"cut: {cuts}" if cuts else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """Where the segments of a sample stand in a document.

    Attributes:
        a: Segment A.
        b: Segment B; None where there is none, or where it is of another document.
    """

    a: Segment
    b: Segment | None


def align(sample: Sample, *, tokens: npt.NDArray[Any], offsets: IntArray, next_sentence: str) -> Alignment:
    """Finds the segments of a sample in the document that A is of.

    Args:
        sample: The sample.
        tokens: Ids of the document [T].
        offsets: int64 [S + 1]; where each sentence starts among them.
        next_sentence: The mode in which the sample was built.

    Raises:
        ShardError: They are not there.
    """
    boundary = sample.segment_ids.index(1) if 1 in sample.segment_ids else len(sample.tokens)
    a = _occurrences(tokens, sample.tokens[1 : boundary - 1])
    a_size = boundary - 2
    key_a, key_b = sample.document_keys
    b_tokens = sample.tokens[boundary:-1]
    if not b_tokens or key_a != key_b:
        return Alignment(a=_best(a, a_size, offsets), b=None)
    b = _occurrences(tokens, b_tokens)
    if not sample.next_sentence_label:
        pair = _adjacent(a, b, sizes=(a_size, len(b_tokens)), offsets=offsets)
    elif next_sentence == "sop":
        pair = _adjacent(b, a, sizes=(len(b_tokens), a_size), offsets=offsets)[::-1]
    else:
        pair = _best(a, a_size, offsets), _best(b, len(b_tokens), offsets)
    return Alignment(a=pair[0], b=pair[1])


def _occurrences(tokens: npt.NDArray[Any], part: Sequence[int]) -> IntArray:
    """Returns where a part begins in a document, in order.

    Raises:
        ShardError: It is not there.
    """
    starts = np.arange(len(tokens) - len(part) + 1)
    for place, token in enumerate(part):
        starts = starts[tokens[starts + place] == token]
    if not len(starts):
        raise ShardError(
            "a sample with this document's key holds tokens that the document does not: the shard is damaged, or text "
            "is tokenized otherwise than at the build (see the versions in its manifest)"
        )
    return starts


def _cuts(starts: IntArray, size: int, offsets: IntArray) -> tuple[IntArray, IntArray]:
    """Returns the tokens between each start and the beginning of its sentence, and those after each end."""
    stops = starts + size
    front = starts - offsets[np.searchsorted(offsets, starts, side="right") - 1]
    return front, offsets[np.searchsorted(offsets, stops)] - stops


def _segment(start: int, size: int, offsets: IntArray) -> Segment:
    front, back = _cuts(np.array([start]), size, offsets)
    return Segment(
        start=start,
        stop=start + size,
        first=int(np.searchsorted(offsets, start, side="right")) - 1,
        last=int(np.searchsorted(offsets, start + size)) - 1,
        front_cut=int(front[0]),
        back_cut=int(back[0]),
    )


def _best(starts: IntArray, size: int, offsets: IntArray) -> Segment:
    """Returns the first of the places with the fewest tokens cut."""
    return _segment(int(starts[np.argmin(sum(_cuts(starts, size, offsets)))]), size, offsets)


def _adjacent(
    before: IntArray, after: IntArray, *, sizes: tuple[int, int], offsets: IntArray
) -> tuple[Segment, Segment]:
    """Returns the places of two segments, one after the other, between and around which the fewest tokens are cut.

    Raises:
        ShardError: The second stands nowhere after the first.
    """
    before_size, after_size = sizes
    next_after = np.searchsorted(after, before + before_size)
    has_next = next_after < len(after)
    if not has_next.any():
        raise ShardError("a sample's second segment does not follow its first in their document: the shard is damaged")
    before, following = before[has_next], after[next_after[has_next]]
    front, _ = _cuts(before, before_size, offsets)
    _, back = _cuts(following, after_size, offsets)
    chosen = int(np.argmin(following - (before + before_size) + front + back))
    return _segment(int(before[chosen]), before_size, offsets), _segment(int(following[chosen]), after_size, offsets)
