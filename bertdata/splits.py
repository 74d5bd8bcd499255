"""Which bytes of which file are read at once: the formats of input files, and how they are cut into splits.

A record belongs to the split in which its first byte lies, so any way of cutting gives the same records. What can be
cut:

    plain XML, JSONL, text,    at any byte
    WikiExtractor's output
    Parquet                    where a row group starts
    .bz2 MediaWiki dump        where a bz2 stream starts (a "multistream" dump has one per 100 pages)
    everything else            not at all: one split per file
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bertdata.config import MIB, ReadOptions, is_hook
from bertdata.decompress import BZ2_START_BYTES, find_bz2_stream
from bertdata.detect import check_compression, detect_format, iter_heads
from bertdata.dump_header import Header, read_header
from bertdata.errors import ConfigError, InputError
from bertdata.inputs import InputFile, file_name, find_inputs, open_input
from bertdata.parquet import row_group_starts
from bertdata.uris import is_uri

__all__ = ["Split", "plan_files", "plan_splits", "usual_split_bytes"]

_LOG = logging.getLogger(__name__)

_SPLIT_BYTES = 4 * MIB  # at least: about a second of work, for which the others wait at the end of a stage
_STREAM_BYTES = 1 << 18  # about as many as a stream of a hundred pages has
_FETCHED_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A byte range of one input file.

    Attributes:
        path: Absolute path of the file.
        start: First byte of the range, as stored (compressed where the file is).
        stop: The byte after the range.
        format: mediawiki, jsonl, parquet, wikiextractor or text; MODULE:FUNCTION for a reader of the user's own.
        compression: none, bz2, gz or zst.
        language: Language code that the file as a whole declares (a dump's xml:lang), if any.
        namespaces: MediaWiki only: the dump's namespaces as (name, number), which are in the wiki's language.
        closing_tag: MediaWiki only: the file opens with <mediawiki>, so it must close it.
        file_bytes: Bytes of the whole file, as stored.
        file_version: `InputFile.version` of the file.
    """

    path: str
    start: int
    stop: int
    file_bytes: int
    file_version: int
    format: str
    compression: str
    language: str | None
    namespaces: tuple[tuple[str, int], ...] = ()
    closing_tag: bool = False

    @property
    def name(self) -> str:
        """File name and byte range, for messages and progress."""
        return f"{file_name(self.path)}[{self.start:,}-{self.stop:,}]"

    @property
    def num_bytes(self) -> int:
        """Bytes of the range, as stored."""
        return self.stop - self.start

    @property
    def is_custom(self) -> bool:
        """Whether a reader of the user's own reads it."""
        return is_hook(self.format)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its file."""
        return self.start == 0 and self.stop == self.file_bytes

    def is_past(self, offset: int) -> bool:
        """Returns whether what begins at `offset` of the file, decompressed, is of a later split."""
        return offset >= self.stop and self.compression == "none"  # compressed lines are never cut


def plan_splits(paths: Sequence[str], *, options: ReadOptions, split_bytes: int | None = None) -> list[Split]:
    """Cuts the input into splits of about equal size: `plan_files` of what `find_inputs` finds.

    Raises:
        InputError: No file, or one of a kind that is not read.
    """
    return plan_files(find_inputs(paths), options=options, split_bytes=split_bytes)


def usual_split_bytes(files: Sequence[InputFile]) -> int:
    """Returns how many bytes a split of an input has, as stored: the larger of 4 MiB and a 2,000th of the input."""
    return max(_SPLIT_BYTES, sum(file.num_bytes for file in files) // 2000)


def plan_files(files: Sequence[InputFile], *, options: ReadOptions, split_bytes: int | None = None) -> list[Split]:
    """Cuts files into splits of about equal size.

    Args:
        files: What `find_inputs` gives.
        options: How files are read.
        split_bytes: Bytes of a split as stored; None for `usual_split_bytes`.

    Returns:
        The splits, in the order of the files; empty files have none.

    Raises:
        InputError: A file of a kind that is not read.
    """
    split_bytes = split_bytes or usual_split_bytes(files)
    for path, size, _ in files:
        if size == 0:
            _LOG.warning("%s is empty", path)
        elif is_hook(options.format) and is_uri(path):
            raise ConfigError(f"--format {options.format} reads local files only; copy {path} to one first")
    filled = [file for file in files if file.num_bytes]
    heads = itertools.repeat(("none", b"")) if is_hook(options.format) else iter_heads(filled)
    return [
        split
        for file, (compression, head) in zip(filled, heads, strict=False)
        for split in _plan_file(file, compression, head, options=options, split_bytes=split_bytes)
    ]


def _plan_file(
    file: InputFile, compression: str, head: bytes, *, options: ReadOptions, split_bytes: int
) -> list[Split]:
    path, size, version = file
    file_format, header = options.format, Header()
    if not is_hook(file_format):
        check_compression(path, compression=compression, head=head)
        file_format = options.format if options.format != "auto" else detect_format(path, head)
        if file_format == "mediawiki":
            header = read_header(path, head)
        if file_format == "parquet" and compression != "none":
            raise InputError(f"{path} is a Parquet file within {compression}; decompress it first")
    cuts = _cuts(file, compression=compression, file_format=file_format, options=options, split_bytes=split_bytes)
    if len(cuts) == 1 and size > split_bytes:
        _warn_of_one_split(path, compression=compression, file_format=file_format)
    return [
        Split(
            path=path,
            start=start,
            stop=stop,
            file_bytes=size,
            file_version=version,
            format=file_format,
            compression=compression,
            language=header.language,
            namespaces=header.namespaces,
            closing_tag=header.has_root,
        )
        for start, stop in zip(cuts, [*cuts[1:], size], strict=True)
    ]


def _warn_of_one_split(path: str, *, compression: str, file_format: str) -> None:
    if file_format == "parquet":
        why, remedy = "one row group", "write it with smaller row groups"
    elif compression == "bz2" and file_format == "mediawiki":
        why = compression
        remedy = "use the multistream dump (pages-articles-multistream.xml.bz2), or decompress it"
    elif compression != "none":
        why, remedy = compression, "decompress it"
    else:
        return
    _LOG.warning("%s (%s) cannot be cut, so one worker reads all of it; %s", path, why, remedy)


def _cuts(file: InputFile, *, compression: str, file_format: str, options: ReadOptions, split_bytes: int) -> list[int]:
    """Returns where the splits of a file start."""
    path, size, _ = file
    if file_format == "parquet":
        try:
            return _coarsen(row_group_starts(path)[1:], split_bytes=split_bytes)
        except InputError:
            if not options.skip_bad_splits:
                raise
            return [0]  # the worker that reads it counts it
    if compression == "bz2" and file_format == "mediawiki":
        return [0, *_iter_bz2_starts(file, split_bytes=split_bytes)]
    is_whole = file_format == "text" and options.document_per == "file"
    if compression != "none" or is_hook(file_format) or is_whole:
        return [0]
    num_splits = -(-size // split_bytes)
    return [size * i // num_splits for i in range(num_splits)]


def _coarsen(starts: Sequence[int], *, split_bytes: int) -> list[int]:
    """Returns 0 and, for each whole multiple of `split_bytes`, the first of the places from there on."""
    cuts, wanted = [0], split_bytes
    for start in starts:
        if start >= wanted:
            cuts.append(start)
            wanted = (start // split_bytes + 1) * split_bytes
    return cuts


def _iter_bz2_starts(file: InputFile, *, split_bytes: int) -> Iterator[int]:
    """Yields, for each whole multiple of `split_bytes`, the first start of a stream from there on."""
    last = 0
    with open_input(file.path) as opened:
        for wanted, data in _iter_after_multiples(file, split_bytes=split_bytes):
            if wanted <= last:
                continue
            found = find_bz2_stream(io.BytesIO(data), start=0)
            if found is not None:
                last = wanted + found
            else:
                start = find_bz2_stream(opened, start=max(wanted, wanted + len(data) - BZ2_START_BYTES + 1))
                if start is None:
                    return
                last = start
            yield last


def _iter_after_multiples(file: InputFile, *, split_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yields each whole multiple of `split_bytes`, and some bytes from there on: of an object, where streams start."""
    places = range(split_bytes, file.num_bytes, split_bytes)
    if not is_uri(file.path):
        yield from ((place, b"") for place in places)
        return
    from bertdata.remote_inputs import iter_parts

    for number in range(0, len(places), _FETCHED_AT_ONCE):
        batch = places[number : number + _FETCHED_AT_ONCE]
        parts = list(iter_parts([(file.path, place, place + _STREAM_BYTES) for place in batch]))
        yield from zip(batch, parts, strict=True)
