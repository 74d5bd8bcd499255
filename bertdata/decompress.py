"""Bytes of a stored file, decompressed piece by piece: bz2, gzip, zstd or none."""

from __future__ import annotations

import bz2
import functools
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from io import SEEK_END, BufferedIOBase
from typing import NamedTuple

import pyarrow as pa

from bertdata.config import MIB
from bertdata.errors import InputError
from bertdata.inputs import open_input
from bertdata.meter import count

__all__ = [
    "BZ2_START",
    "BZ2_START_BYTES",
    "Chunk",
    "find_bz2_stream",
    "iter_chunks",
    "iter_chunks_of",
]

_CHUNK_BYTES = MIB

# Both kinds of bz2 stream: with data (the digits of pi), and without (of its square root).
BZ2_START = re.compile(rb"BZh[1-9](?:\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)")
_BZ2_DATA_START = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")
BZ2_START_BYTES = 10


class Chunk(NamedTuple):
    """Some bytes of a file after decompression.

    Attributes:
        data: The bytes.
        owned: Whether they belong to the split; what comes after it is read only to finish a record begun in it.
        position: Byte of the stored file up to which it had been read, for messages.
    """

    data: bytes
    owned: bool
    position: int


def find_bz2_stream(file: BufferedIOBase, *, start: int) -> int | None:
    """Finds where the next bz2 stream with data begins.

    Args:
        file: A bz2 file, open; its position changes.
        start: Byte from which on to look.

    Returns:
        The stream's first byte, or None where no stream begins any more.
    """
    file.seek(start)
    position, tail = start, b""  # of the bytes at hand; the end of the last ones, which may hold part of a start
    while data := file.read(_CHUNK_BYTES):
        data = tail + data
        if match := _BZ2_DATA_START.search(data):
            return position + match.start()
        tail = data[-(BZ2_START_BYTES - 1) :]
        position += len(data) - len(tail)
    return None


def _counted(read: Callable[..., Iterator[Chunk]]) -> Callable[..., Iterator[Chunk]]:
    """Has a reader of chunks count the stored bytes up to `stop` that it has got through."""

    @functools.wraps(read)
    def counting(path: str, *, compression: str, start: int, stop: int) -> Iterator[Chunk]:
        done = start
        for chunk in read(path, compression=compression, start=start, stop=stop):
            position = min(chunk.position, stop)
            count(read_bytes=max(0, position - done))
            done = max(done, position)
            yield chunk

    return counting


@_counted
def iter_chunks(path: str, *, compression: str, start: int, stop: int) -> Iterator[Chunk]:
    """Yields the bytes of a file from `start` to its end, decompressed, in pieces of bounded size.

    Args:
        path: The file.
        compression: none, bz2, gz or zst; only none and bz2 may start elsewhere than at 0.
        start: Byte as stored; the start of a stream in a bz2 file.
        stop: Byte as stored from which on pieces are no longer `owned`.

    Raises:
        InputError: The file cannot be read, or its compressed data are damaged or end too early.
    """
    with open_input(path, stop=stop) as file:
        yield from iter_chunks_of(file, path, compression=compression, start=start, stop=stop)


def iter_chunks_of(file: BufferedIOBase, path: str, *, compression: str, start: int, stop: int) -> Iterator[Chunk]:
    """Yields the same of a file that is open; `path` is for messages."""
    try:
        if compression == "none":
            yield from _iter_plain(file, start=start, stop=stop)
        elif compression == "bz2":
            yield from _iter_bz2(file, start=start, stop=stop)
        else:
            opened = gzip.GzipFile(fileobj=file) if compression == "gz" else pa.CompressedInputStream(file, "zstd")
            while data := opened.read(_CHUNK_BYTES):
                yield Chunk(data, True, file.tell())
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        position = file.tell()
        size = file.seek(0, SEEK_END)
        raise InputError(
            f"{path}: {compression} data damaged or cut off near byte {position:,} of {size:,} ({error}); "
            f"fetch or compress the file again, or leave it out of the input"
        ) from error


def _iter_plain(file: BufferedIOBase, *, start: int, stop: int) -> Iterator[Chunk]:
    file.seek(start)
    position = start
    # What one read gives, not more: of an object, bytes after the range are fetched bit by bit.
    while data := file.read1(min(_CHUNK_BYTES, stop - position) if position < stop else _CHUNK_BYTES):
        owned = position < stop
        position += len(data)
        yield Chunk(data, owned, position)


def _iter_bz2(file: BufferedIOBase, *, start: int, stop: int) -> Iterator[Chunk]:
    file.seek(start)
    data = b""
    while data or (data := file.read1(_CHUNK_BYTES // 4)):
        owned = file.tell() - len(data) < stop
        stream = bz2.BZ2Decompressor()
        while not stream.eof:
            if stream.needs_input and not data and not (data := file.read1(_CHUNK_BYTES // 4)):
                raise EOFError("the last bz2 stream has no end")
            text = stream.decompress(data, max_length=_CHUNK_BYTES)
            data = b""
            if text:
                yield Chunk(text, owned, file.tell())
        data = stream.unused_data
