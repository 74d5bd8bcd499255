"""A sample of the input for `--dry-run`: the same every time, spread out over all of it, and read by the real readers.

The input as stored is cut into equal strata, and a place is read in the middle of each:

    |    ==    |    ==    |    ==    |    ==    |

Each place stands for its stratum, so what is counted there is multiplied by the stratum's bytes over the place's own.
Where a file can be cut, a place is a split like any other. Of a file that is one stream only the beginning can be
reached; it is decompressed into a file of its own, up to the end of a record. A file that is one document, or for a
reader of the user's own, is read whole.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertdata.config import ReadOptions
from bertdata.costs import InputCosts
from bertdata.decompress import find_bz2_stream, iter_chunks
from bertdata.inputs import open_input
from bertdata.marks import RECORD_ENDS, RECORD_STARTS
from bertdata.parquet import row_group_starts
from bertdata.portions import Portion, portion_bytes
from bertdata.splits import Split

__all__ = ["SAMPLE_TEXT_BYTES", "Place", "sample_places"]

NUM_PLACES = 24
SAMPLE_TEXT_BYTES = 24e6  # of text: some ten seconds for all stages
_MAX_FILES = 200  # at a place
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A part of the input that is read for all of its stratum.

    Attributes:
        portion: What is read.
        stored_bytes: Bytes of input that these are.
        stands_for: Bytes of input that it stands for.
        unpack_seconds: How long it took to decompress, where that was done beforehand.
    """

    portion: Portion
    stored_bytes: int
    stands_for: float
    unpack_seconds: float = 0.0

    @property
    def weight(self) -> float:
        """By what to multiply what is counted here."""
        return self.stands_for / self.stored_bytes


def sample_places(
    portions: Sequence[Portion], *, options: ReadOptions, folder: Path, text_bytes: float = SAMPLE_TEXT_BYTES
) -> list[Place]:
    """Chooses the places; a small input is read whole.

    Args:
        portions: The input.
        options: How it is read.
        folder: Where the beginnings of compressed files are written.
        text_bytes: About how many bytes of text to read.
    """
    splits = [split for portion in portions for split in portion]
    costs = InputCosts.of(splits)
    if costs.text_bytes <= text_bytes:
        sizes = [portion_bytes(portion) for portion in portions]
        return [
            Place(portion=portion, stored_bytes=size, stands_for=size)
            for portion, size in zip(portions, sizes, strict=True)
        ]
    total = costs.input_bytes
    place_bytes = max(1, int(total * text_bytes / costs.text_bytes / NUM_PLACES))
    ends = list(itertools.accumulate(split.num_bytes for split in splits))
    stratum = total / NUM_PLACES
    chosen = [bisect.bisect_right(ends, int(stratum * (number + 0.5))) for number in range(NUM_PLACES)]
    found: dict[tuple[str, int], Place] = {}
    for number, index in enumerate(chosen):
        split = splits[index]
        if _is_cuttable(split, options):
            offset = int(stratum * (number + 0.5)) - (ends[index] - split.num_bytes)
            place = _place(splits, index, offset, place_bytes=place_bytes, options=options)
        elif number and chosen[number - 1] == index:  # its beginning stands for all strata with their middle in it
            continue
        elif split.num_bytes <= place_bytes or _is_whole_document(split, options):
            place = _place_of_files(splits, index, place_bytes=place_bytes, options=options)
        else:
            place = _beginning(split, place_bytes=chosen.count(index) * place_bytes, path=folder / f"{index:06d}")
        key = place.portion[0].path, place.portion[0].start
        num_strata = 1 if _is_cuttable(split, options) else chosen.count(index)
        stands_for = num_strata * stratum + (found[key].stands_for if key in found else 0)
        found[key] = dataclasses.replace(place, stands_for=stands_for)
    return list(found.values())


def _is_whole_document(split: Split, options: ReadOptions) -> bool:
    return split.is_custom or (split.format == "text" and options.document_per == "file")


def _is_cuttable(split: Split, options: ReadOptions) -> bool:
    if _is_whole_document(split, options):
        return False
    if split.compression == "bz2" and split.format == "mediawiki":
        with open_input(split.path) as file:
            second = find_bz2_stream(file, start=split.start + 1)
        return second is not None and second < split.stop
    return split.compression == "none"


def _place(splits: Sequence[Split], index: int, offset: int, *, place_bytes: int, options: ReadOptions) -> Place:
    """Returns the place at an offset in a file that can be cut."""
    split = splits[index]
    if split.num_bytes <= place_bytes:
        return _place_of_files(splits, index, place_bytes=place_bytes, options=options)
    start = min(split.start + offset, split.stop - place_bytes)
    if split.format == "parquet":
        return _place_of(split, *_bounds(row_group_starts(split.path), split, start))
    if split.compression == "none":
        begin, last = (_next_record(split, byte, options=options) for byte in (start, start + place_bytes))
        return _place_of(split, begin, last) if begin < last else _place_of(split, split.start, split.stop)
    with open_input(split.path) as file:
        first = find_bz2_stream(file, start=start)
        if first is None or first >= split.stop:
            first = split.start
        end = find_bz2_stream(file, start=first + place_bytes)
    return _place_of(split, first, min(end or split.stop, split.stop))


def _next_record(split: Split, byte: int, *, options: ReadOptions) -> int:
    """Returns where the first record begins from a byte on; else a place would be said to be as long as it is not."""
    mark = RECORD_STARTS.get(split.format, b"\n" if options.document_per == "line" else b"\n\n")
    with open_input(split.path) as file:
        file.seek(byte)
        tail, position = b"", byte
        while position < split.stop and (data := file.read(_CHUNK_BYTES)):
            data = tail + data
            if (found := data.find(mark)) >= 0:
                start = position - len(tail) + found
                return min(start + (len(mark) if mark.isspace() else 0), split.stop)
            position += len(data) - len(tail)
            tail = data[-len(mark) + 1 :] if len(mark) > 1 else b""
    return split.stop


def _bounds(starts: Sequence[int], split: Split, byte: int) -> tuple[int, int]:
    """Returns the row group of a split that holds a byte; what stands before the first one is put to it."""
    cuts = [
        split.start,
        *[start for start in starts if split.start < start < split.stop][split.start == 0 :],
        split.stop,
    ]
    last = bisect.bisect_right(cuts, byte)
    return cuts[last - 1], cuts[min(last, len(cuts) - 1)]


def _place_of(split: Split, start: int, stop: int) -> Place:
    part = dataclasses.replace(split, start=start, stop=stop)
    return Place(portion=(part,), stored_bytes=stop - start, stands_for=0)


def _place_of_files(splits: Sequence[Split], index: int, *, place_bytes: int, options: ReadOptions) -> Place:
    """Returns the place of a small file and those after it that are small, too."""
    taken: list[Split] = []
    size = 0
    for split in splits[index : index + _MAX_FILES]:
        is_alone = split.is_whole or _is_whole_document(split, options)
        if taken and (size + split.num_bytes > place_bytes or not is_alone):
            break
        taken.append(split)
        size += split.num_bytes
    return Place(portion=tuple(taken), stored_bytes=size, stands_for=0)


def _beginning(split: Split, *, place_bytes: int, path: Path) -> Place:
    """Writes the beginning of a compressed file, decompressed, up to the end of a record."""
    mark = RECORD_ENDS.get(split.format, b"\n\n")
    read = previous = split.start
    end, started = 0, time.perf_counter()
    with path.open("wb") as file:
        for chunk in iter_chunks(split.path, compression=split.compression, start=split.start, stop=split.stop):
            # When more is read, what came before has been decompressed.
            if chunk.position != read:
                previous, read = read, chunk.position
                if previous - split.start >= place_bytes and end:
                    file.truncate(end)
                    break
            found = chunk.data.rfind(mark)
            end = file.tell() + found + len(mark) if found >= 0 else end
            file.write(chunk.data)
        else:
            previous = split.stop
    size = path.stat().st_size
    part = dataclasses.replace(
        split,
        path=str(path),
        start=0,
        stop=size,
        compression="none",
        closing_tag=False,
        file_bytes=size,
        file_version=path.stat().st_mtime_ns,
    )
    return Place(
        portion=(part,),
        stored_bytes=previous - split.start,
        stands_for=0,
        unpack_seconds=time.perf_counter() - started,
    )
