"""Reading runs: the documents of a shard, out of one contiguous part of each run (`bertdata.runs` has the layout)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertdata.runs import HEAD_BYTES, SIZE_AND_CRC, damaged_run
from bertdata.spans import gather_spans, offsets_of
from bertdata.spill import Documents, key_bins
from bertdata.storage import Folder

__all__ = ["RunPart", "read_runs"]

_KEY_WORDS = np.arange(2, 6)


class RunPart(NamedTuple):
    """The documents of a shard in one run: name of the file, first byte, and the byte after the last."""

    name: str
    start: int
    stop: int


def read_runs(
    folder: Folder, parts: Sequence[RunPart], *, first_bin: int, last_bin: int, dtype: np.dtype[Any]
) -> Documents:
    """Reads the documents of a range of keys out of all runs.

    Args:
        folder: Where the runs are.
        parts: What to read of each run.
        first_bin: First key bin of the documents.
        last_bin: The bin after the last.
        dtype: dtype of the token ids.

    Returns:
        The documents in the order of their keys; equal keys stay in the order of the parts.

    Raises:
        OutputError: A run is missing or damaged.
    """
    parts = [part for part in parts if part.stop > part.start]
    data = bytearray(sum(part.stop - part.start for part in parts))
    starts: list[int] = []
    position, name = 0, parts[0].name if parts else ""
    try:
        for part, read in zip(parts, folder.read_many(parts), strict=True):
            name = part.name
            data[position : position + len(read)] = read
            starts += _find_documents(data, position, position + len(read))
            position += len(read)
    except (OSError, ValueError) as error:
        raise damaged_run(f"{folder.location}/{name}", error) from error
    try:
        return _parse(data, np.array(starts, dtype=np.int64) // 4, first_bin=first_bin, last_bin=last_bin, dtype=dtype)
    except ValueError as error:
        raise damaged_run(f"{folder.location} or the plan", error) from error


def _find_documents(data: bytearray, start: int, stop: int) -> Iterable[int]:
    """Returns where each document starts, and checks that all are whole."""
    starts = []
    size_and_crc, crc32 = SIZE_AND_CRC.unpack_from, zlib.crc32
    with memoryview(data) as view:
        while start < stop:
            size, crc = size_and_crc(view, start) if start + HEAD_BYTES <= stop else (0, 0)
            if size < HEAD_BYTES or start + size > stop or crc32(view[start + 8 : start + size]) != crc:
                raise ValueError(f"the document at byte {start:,} of the part of it that was read is damaged")
            starts.append(start)
            start += size
    return starts


def _parse(
    data: bytearray, starts: npt.NDArray[np.int64], *, first_bin: int, last_bin: int, dtype: np.dtype[Any]
) -> Documents:
    """Returns the documents whose first words are given, in the order of their keys."""
    words = np.frombuffer(data, dtype="<u4")
    keys = words[starts[:, None] + _KEY_WORDS].view(">u8").astype(np.uint64)
    bins = key_bins(keys)
    if len(bins) and not (first_bin <= bins.min() and bins.max() < last_bin):
        raise ValueError("documents of other key bins are where those of the shard should be")
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    keys, starts = keys[order], starts[order]
    num_sentences, num_tokens = words[starts + 6].astype(np.int64), words[starts + 7].astype(np.int64)
    first = starts + HEAD_BYTES // 4 + num_sentences  # word of tokens
    token_words = -(-num_tokens * dtype.itemsize // 4)
    if (first + token_words - starts != words[starts] // 4).any():
        raise ValueError("lengths of documents do not add up")
    lengths = words[gather_spans(first - num_sentences, first)[0]]
    sentence_offsets, token_offsets = offsets_of(num_sentences), offsets_of(lengths)
    if (np.diff(token_offsets[sentence_offsets]) != num_tokens).any():
        raise ValueError("lengths of sentences do not add up")
    tokens = np.frombuffer(data, dtype=dtype)
    first *= 4 // dtype.itemsize
    # A slice of each costs less time and memory than the places of all tokens.
    slices = [tokens[start:stop] for start, stop in zip(first.tolist(), (first + num_tokens).tolist(), strict=True)]
    return Documents(
        keys=keys,
        sentence_offsets=sentence_offsets,
        token_offsets=token_offsets,
        tokens=np.concatenate([tokens[:0], *slices]),
    )
