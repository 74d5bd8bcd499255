"""Statistics of a data set, counted while it is built: `statistics.json` beside the manifest.

Shards are counted one by one (`bertdata.counting`) and added up, so no count needs a second pass over the data. What is
counted of samples can be counted again from the shards (`bertdata.verify.recount`); what is counted of documents needs
the input.

Lengths of documents and sentences are kept in buckets: one per value below 32, then 16 for each doubling, so that a
length is known to within 6 %.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.arrays import read_npz
from bertdata.errors import ShardError
from bertdata.files import read_plain_file, write_atomically
from bertdata.typed_json import from_json

__all__ = [
    "MAX_STATISTICS_BYTES",
    "NUM_BUCKETS",
    "NUM_PLACES",
    "SAMPLE_COUNTS",
    "STATISTICS",
    "Statistics",
    "add_segment_lengths",
    "bucket_edges",
    "bucket_of",
    "empty_segment_lengths",
    "length_cell",
    "load_statistics",
    "write_statistics",
]

STATISTICS = "statistics.json"
MAX_STATISTICS_BYTES = 1 << 26
IntArray = npt.NDArray[np.int64]

_EXACT = 32  # values below have a bucket each
_PER_DOUBLING = 16
NUM_BUCKETS = 600
NUM_PLACES = 20
_LENGTH_CELLS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Counts over the samples and documents of a data set; L tokens at most, V ids. All int64. `+` adds two of them.

    Attributes:
        sample_lengths: [L + 1]; samples by tokens, specials included.
        segment_lengths: [2, 2, G, G]; samples by even or odd place in their block, label, and cell of the tokens of A
            and of A and B together, specials left out. A cell is `max(1, L // 128)` lengths. Empty for samples of one
            segment.
        token_counts: [V]; tokens of all samples by id, unmasked, specials included.
        shown: [3]; predicted positions that show [MASK], another token, and the token itself.
        predictions_by_candidates: [L + 1]; predicted positions by how many positions of their sample could be.
        prediction_places: [20]; predicted positions by the twentieth of these that they lie in.
        document_tokens: [600]; documents by tokens, in buckets. Documents are those that samples are made of.
        document_sentences: [600]; documents by sentences, in buckets.
        sentence_tokens: [600]; sentences of documents by tokens, in buckets; long ones after they were cut.
    """

    sample_lengths: IntArray
    segment_lengths: IntArray
    token_counts: IntArray
    shown: IntArray
    predictions_by_candidates: IntArray
    prediction_places: IntArray
    document_tokens: IntArray
    document_sentences: IntArray
    sentence_tokens: IntArray

    @classmethod
    def empty(cls, *, max_seq_length: int, vocab_size: int) -> Statistics:
        """Returns the statistics of nothing."""
        shapes = {
            "sample_lengths": (max_seq_length + 1,),
            "segment_lengths": empty_segment_lengths(max_seq_length).shape,
            "token_counts": (vocab_size,),
            "shown": (3,),
            "predictions_by_candidates": (max_seq_length + 1,),
            "prediction_places": (NUM_PLACES,),
        }
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.zeros(shapes.get(name, NUM_BUCKETS), dtype=np.int64) for name in names})

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})

    def differing(self, other: Statistics) -> list[str]:
        """Returns the names of the counts of samples that are not those of `other`."""
        return [name for name in SAMPLE_COUNTS if not np.array_equal(getattr(self, name), getattr(other, name))]

    @property
    def expected_places(self) -> npt.NDArray[np.float64]:
        """What `prediction_places` would be on average if every position were as likely: float64 [20]."""
        numbers = np.flatnonzero(self.predictions_by_candidates)
        edges = -(-np.outer(numbers, np.arange(NUM_PLACES + 1)) // NUM_PLACES)
        shares = np.diff(edges, axis=1) / np.maximum(numbers, 1)[:, None]
        return np.asarray(self.predictions_by_candidates[numbers] @ shares)

    def to_npz(self) -> bytes:
        """Returns the counts as a compressed `.npz`, for the work folder."""
        sink = io.BytesIO()
        np.savez_compressed(sink, **{name: getattr(self, name) for name in _NAMES})
        return sink.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> Statistics:
        """Reads what `to_npz` gave."""
        arrays = read_npz(data)
        return cls(**{name: arrays[name] for name in _NAMES})

    def to_json(self) -> bytes:
        """Returns `statistics.json`: of each count its shape, and the places that are not zero, flattened."""
        values = {name: _sparse(getattr(self, name)) for name in _NAMES}
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
        return f"{{\n{lines}\n}}\n".encode()


_NAMES = tuple(field.name for field in dataclasses.fields(Statistics))
SAMPLE_COUNTS = tuple(name for name in _NAMES if not name.startswith(("document_", "sentence_")))


def length_cell(max_seq_length: int) -> int:
    """Returns how many lengths lie in a cell of `Statistics.segment_lengths`."""
    return max(1, max_seq_length // _LENGTH_CELLS)


def empty_segment_lengths(max_seq_length: int) -> IntArray:
    """Returns `Statistics.segment_lengths` of no samples."""
    cells = max_seq_length // length_cell(max_seq_length) + 1
    return np.zeros((2, 2, cells, cells), dtype=np.int64)


def add_segment_lengths(
    counts: IntArray,
    *,
    places: npt.NDArray[np.integer[Any]],
    labels: npt.NDArray[np.integer[Any]],
    a_lengths: npt.NDArray[np.integer[Any]],
    both_lengths: npt.NDArray[np.integer[Any]],
    max_seq_length: int,
) -> None:
    """Counts samples into `Statistics.segment_lengths`.

    Args:
        counts: What to add to.
        places: int [N], place of each sample in its block.
        labels: int [N], of next sentences.
        a_lengths: int [N], tokens of A, specials left out.
        both_lengths: int [N], tokens of A and B, specials left out.
        max_seq_length: Tokens of a sample at most.
    """
    cell = length_cell(max_seq_length)
    np.add.at(counts, (places % 2, labels, a_lengths // cell, both_lengths // cell), 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sparse:
    shape: tuple[int, ...]
    places: list[int]
    counts: list[int]


def _sparse(array: IntArray) -> dict[str, list[int]]:
    flat = array.ravel()
    places = np.flatnonzero(flat)
    return {"shape": list(array.shape), "places": places.tolist(), "counts": flat[places].tolist()}


def _dense(value: Any, *, name: str, shape: tuple[int, ...]) -> IntArray:
    sparse = from_json(_Sparse, value, where=name)
    if sparse.shape != shape:
        raise ValueError(f"{name} has shape {reprlib.repr(sparse.shape)}, not {shape}")
    places, counts = sparse.places, sparse.counts
    if len(places) != len(counts) or min(places, default=0) < 0 or max(places, default=0) >= math.prod(shape):
        raise ValueError(f"places of {name} do not fit its counts or its shape")
    if min(counts, default=0) < 0 or sum(counts) >= 1 << 62:
        raise ValueError(f"{name} has counts below 0, or more than can be")
    array = np.zeros(shape, dtype=np.int64)
    array.ravel()[places] = counts
    return array


def load_statistics(folder: Path, *, max_seq_length: int, vocab_size: int) -> Statistics:
    """Reads the statistics of a data set.

    Args:
        folder: The data set's folder.
        max_seq_length: That of its options.
        vocab_size: That of its tokenizer.

    Raises:
        ShardError: They are missing, or not those of such a data set.
    """
    path = folder / STATISTICS
    shapes = Statistics.empty(max_seq_length=max_seq_length, vocab_size=vocab_size)
    try:
        values = json.loads(read_plain_file(path, max_bytes=MAX_STATISTICS_BYTES))
        if not isinstance(values, dict) or not values.keys() >= set(_NAMES):
            raise ValueError(f"it has not all of {', '.join(_NAMES)}")
        return Statistics(
            **{name: _dense(values[name], name=name, shape=getattr(shapes, name).shape) for name in _NAMES}
        )
    except (OSError, ValueError, RecursionError) as error:
        raise ShardError(f"{path} cannot be read as statistics ({error}); copy the data set again") from error


def write_statistics(folder: Path, parts: Iterable[Statistics], *, empty: Statistics) -> None:
    """Writes the sum of the statistics of all shards."""
    write_atomically(folder / STATISTICS, sum(parts, start=empty).to_json())


def bucket_of(values: IntArray) -> IntArray:
    """Returns the bucket of each length: int64 [N], below 600."""
    doublings = np.frexp(np.maximum(values, 1).astype(np.float64))[1].astype(np.int64) - 1
    shift = np.maximum(doublings - 4, 0)
    buckets = np.where(values < _EXACT, values, _EXACT + _PER_DOUBLING * (doublings - 5) + (values >> shift) - 16)
    return np.minimum(buckets, NUM_BUCKETS - 1)


def bucket_edges() -> IntArray:
    """Returns where buckets begin and end: bucket i holds lengths from edge i to below edge i + 1; int64 [601]."""
    doublings, steps = np.divmod(np.arange(NUM_BUCKETS + 1 - _EXACT), _PER_DOUBLING)
    return np.concatenate([np.arange(_EXACT), (_PER_DOUBLING + steps) << (doublings + 1)])
