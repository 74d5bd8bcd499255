"""The samples that a report shows: what the model sees, and what it has to say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bertdata.blocks import Sample
from bertdata.data_set import DataSet
from bertdata.inspection import iter_shard_samples
from bertdata.painting import Painter
from bertdata.wordpiece import Vocabulary

__all__ = ["Piece", "ShownSample", "iter_shown_samples", "pieces_of"]

_WORD_MARKS = "\u0120\u2581"  # what byte-level BPE and sentencepiece write for the space before a word


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A token of a sample as the page shows it.

    Attributes:
        text: What the model sees.
        answer: What it has to say there; None where nothing is predicted.
        kind: "special", "masked", "replaced", "kept" or "".
        is_joined: It goes on with the word before it.
    """

    text: str
    answer: str | None
    kind: str
    is_joined: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownSample:
    """A sample as the page shows it.

    Attributes:
        place: Where it lies.
        label: What its label is called; None where it has none.
        documents: Keys of the documents of A and of B, hexadecimal.
        segments: Pieces of A and of B, special tokens with them.
    """

    place: str
    label: str | None
    documents: list[str]
    segments: list[list[Piece]]


def iter_shown_samples(data_set: DataSet, *, num_samples: int) -> Iterator[ShownSample]:
    """Yields the first training samples, with their first mask set: stored, or drawn as the trainer does.

    Args:
        data_set: The data set; as many blocks are read as it takes.
        num_samples: How many samples at most.

    Raises:
        ShardError: A block is damaged.
    """
    if not num_samples or not data_set.manifest.num_samples("train"):
        return
    painter = Painter.of(data_set)
    vocabulary = data_set.load_vocabulary()
    for found in iter_shard_samples(data_set, num_samples=num_samples, mask_set=0):
        sample = found.content
        boundary = sample.segment_ids.count(0)
        pieces = pieces_of(sample, painter=painter, vocabulary=vocabulary, mask_set=0)
        yield ShownSample(
            place=f"{found.shard}, block {found.block}, sample {found.sample}",
            label=painter.label_name(sample),
            documents=[f"{key:016x}" for key in dict.fromkeys(sample.document_keys)],
            segments=[part for part in (pieces[:boundary], pieces[boundary:]) if part],
        )


def pieces_of(sample: Sample, *, painter: Painter, vocabulary: Vocabulary, mask_set: int | None = None) -> list[Piece]:
    """Returns the pieces of a sample, one for each token.

    Args:
        sample: The sample.
        painter: The painter of its data set.
        vocabulary: The vocabulary of its tokens.
        mask_set: Which of its mask sets is shown; None for none.
    """
    shown = {} if mask_set is None else dict(zip(*sample.mask_sets[mask_set], strict=True))
    specials = {vocabulary.roles["cls"], vocabulary.roles["sep"]}
    pieces: list[Piece] = []
    for position, token in enumerate(sample.tokens):
        seen = shown.get(position, token)
        is_special = token in specials
        is_predicted = position in shown
        starts_word = is_special or vocabulary.starts_word is None or bool(vocabulary.starts_word[token])
        is_joined = not starts_word and pieces[-1].kind != "special"
        pieces.append(
            Piece(
                text=_readable(painter.piece(seen), is_joined=is_joined),
                answer=_readable(painter.piece(token), is_joined=is_joined) if is_predicted else None,
                kind=painter.kind(token, seen) if is_predicted else "special" if is_special else "",
                is_joined=is_joined,
            )
        )
    return pieces


def _readable(text: str, *, is_joined: bool) -> str:
    """Returns a vocabulary entry without the mark of a word's beginning, or of its going on where that is seen."""
    return (text.removeprefix("##") if is_joined else text.lstrip(_WORD_MARKS)) or text
