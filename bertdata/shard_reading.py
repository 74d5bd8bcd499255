"""Reading shards: bytes become blocks, and nothing in them is used before it is checked.

A block is read with one positioned read and its CRC-32 is checked before it is parsed; only `.npy` members of unsigned
integers are accepted, and nothing is ever unpickled.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.errors import ShardError
from bertdata.files import open_plain_file
from bertdata.members import RECORD, padded, parse_member, parse_npy, parse_tar_header
from bertdata.shards import END_OF_ARCHIVE, FIELDS, FORCED, MAX_BLOCK_BYTES, Block, members_of

__all__ = ["decode_block", "iter_blocks", "parse_block", "read_block", "read_field"]

_MATRICES = ("document_keys", "num_predictions")
_FORCED_NAME = f".{FORCED}.npy".encode()


def _check_shapes(block: Block, *, where: str) -> None:
    num_samples, offsets = block.num_samples, block.token_offsets
    shapes_fit = (
        num_samples > 0
        and all(getattr(block, field).ndim == (2 if field in _MATRICES else 1) for field in members_of(block))
        and len(offsets) == num_samples + 1
        and len(block.next_sentence_label) == len(block.num_predictions) == num_samples
        and block.document_keys.shape == (num_samples, 2)
        and (block.label_forced is None or len(block.label_forced) == num_samples)
        and int(offsets[0]) == 0
        and int(offsets[-1]) == len(block.tokens)
        and len(block.mask_positions) == len(block.mask_tokens) == int(block.num_predictions.sum(dtype=np.int64))
    )
    if not shapes_fit:
        raise ShardError(f"{where}: the arrays of the block do not fit each other; build the shard again")


def _check_dtypes(block: Block, *, where: str) -> None:
    positions, tokens = block.segment_b.dtype, block.tokens.dtype
    dtypes_fit = (
        positions.itemsize <= 2
        and block.num_predictions.dtype == block.mask_positions.dtype == positions
        and tokens.itemsize in (2, 4)
        and block.mask_tokens.dtype == tokens
        and block.token_offsets.dtype == np.uint32
        and block.next_sentence_label.dtype == np.uint8
        and block.document_keys.dtype == np.uint64
        and (block.label_forced is None or block.label_forced.dtype == np.uint8)
    )
    if not dtypes_fit:
        found = ", ".join(f"{field} {getattr(block, field).dtype}" for field in members_of(block))
        raise ShardError(f"{where}: dtypes are not those of a block ({found}); build the shard again")


def _check_values(block: Block, *, where: str) -> None:
    lengths, dtype = block.lengths, block.segment_b.dtype
    counts = block.num_predictions.astype(np.int64).sum(axis=1)
    checks = {
        "token_offsets do not ascend": lengths.min() < 2,
        f"a sample is longer than positions of {dtype} can tell": lengths.max() > np.iinfo(dtype).max,
        "segment_b lies outside of its sample": block.segment_b.min() < 2 or (block.segment_b > lengths).any(),
        "next_sentence_label is neither 0 nor 1": block.next_sentence_label.max() > 1,
        "label_forced is neither 0 nor 1": block.label_forced is not None and block.label_forced.max() > 1,
    }
    for what, is_wrong in checks.items():
        if is_wrong:
            raise ShardError(f"{where}: {what}; build the shard again")
    last = np.repeat((lengths - 1).astype(dtype), counts)
    if block.mask_positions.min(initial=1) == 0 or (block.mask_positions >= last).any():
        raise ShardError(
            f"{where}: mask_positions lie outside of their samples or on their ends; build the shard again"
        )


def parse_block(data: bytes, *, where: str) -> Block:
    """Returns what lies in the bytes of one block; its values may be any, so it is there to be checked, not used.

    Args:
        data: Bytes as `encode_block` makes them.
        where: Shard and block, for messages.

    Returns:
        The block, its arrays read-only views of `data` whose shapes fit each other.

    Raises:
        ShardError: A member is missing, of another kind, or does not fit the others.
    """
    view = memoryview(data)
    arrays: dict[str, npt.NDArray[Any]] = {}
    position, stem = 0, ""
    for field in (*FIELDS, FORCED):
        if field == FORCED and position == len(data):
            break
        name, array, position = parse_member(view, position, where=where)
        stem = stem or name.partition(".")[0]
        if name != f"{stem}.{field}.npy":
            raise ShardError(f"{where}: found member {name} where {stem}.{field}.npy belongs; build the shard again")
        arrays[field] = array
    if position != len(data):
        raise ShardError(f"{where}: {len(data) - position} bytes follow the last member; build the shard again")
    block = Block(**arrays)
    _check_shapes(block, where=where)
    return block


def decode_block(data: bytes, *, where: str) -> Block:
    """Returns the samples in the bytes of one block, as `parse_block` does, and checks what leads from one to another.

    Dtypes are those of a block, and boundaries and positions lie within their samples, so no index that is made of them
    leads elsewhere. That the samples make sense is not checked.

    Raises:
        ShardError: A member is missing, of another kind, does not fit the others, or leads out of a sample.
    """
    block = parse_block(data, where=where)
    _check_dtypes(block, where=where)
    _check_values(block, where=where)
    return block


def read_block(
    path: Path | str, *, offset: int, num_bytes: int, crc32: int, name: str = "", location: str = ""
) -> Block:
    """Reads one block with a single positioned read and checks it before use.

    Args:
        path: The shard's file.
        offset: First byte of the block.
        num_bytes: Bytes of the block.
        crc32: Expected CRC-32 of these bytes.
        name: Name of the block, for messages.
        location: Where the shard lies, for messages; where it is not the path, as with a copy.

    Returns:
        The block, see `decode_block`.

    Raises:
        ShardError: The file is missing or truncated, or the bytes are not those that were written.
    """
    where = f"{location or path}, block {name or f'at byte {offset}'}"
    with _open_span(path, offset=offset, num_bytes=num_bytes, where=where) as descriptor:
        data = os.pread(descriptor, num_bytes, offset)
    found = zlib.crc32(data)
    if found != crc32:
        raise ShardError(f"{where}: CRC-32 is {found:08x}, not {crc32:08x}; the shard is damaged, copy it again")
    return decode_block(data, where=where)


def read_field(path: Path | str, *, offset: int, num_bytes: int, field: str) -> npt.NDArray[Any]:
    """Reads one array of a block and the tar headers before it, and nothing else; its CRC-32 is not checked.

    Args:
        path: The shard's file.
        offset: First byte of the block.
        num_bytes: Bytes of the block.
        field: One of the members that every block has.

    Raises:
        ShardError: The file is missing or truncated, or holds something else there.
    """
    where = f"{path}, block at byte {offset}"
    with _open_span(path, offset=offset, num_bytes=num_bytes, where=where) as descriptor:
        members = _iter_members(descriptor, offset, num_bytes=num_bytes, where=where)
        start, stop = next(itertools.islice(members, FIELDS.index(field), None))
        data = os.pread(descriptor, stop - start, start)
    return parse_npy(memoryview(data), where=f"{where}, {field}.npy")


@contextmanager
def _open_span(path: Path | str, *, offset: int, num_bytes: int, where: str) -> Iterator[int]:
    """Opens a shard of which a block is to be read, and yields its descriptor once it is known to have these bytes."""
    if offset < 0 or not 0 <= num_bytes <= MAX_BLOCK_BYTES:
        raise ShardError(
            f"{where}: no block has {num_bytes} bytes at byte {offset}; its index is wrong, build the data set again"
        )
    try:
        with open_plain_file(path) as (descriptor, file_bytes):
            if offset + num_bytes > file_bytes:
                raise ShardError(
                    f"{where}: bytes {offset} to {offset + num_bytes} belong to it, but the file has {file_bytes}; the "
                    "shard is truncated, copy it again"
                )
            yield descriptor
    except OSError as error:
        raise ShardError(f"{where}: cannot be read ({error}); build or copy the shard again") from error


def _iter_members(descriptor: int, offset: int, *, num_bytes: int, where: str) -> Iterator[tuple[int, int]]:
    """Yields where each member's file starts and stops in the shard, from the tar headers of the block at `offset`."""
    position = 0
    for field in (*FIELDS, FORCED):
        header = os.pread(descriptor, RECORD, offset + position)
        # What follows the last member may also be the next block, or the end of the archive.
        if field == FORCED and not (position < num_bytes and header[:100].rstrip(b"\0").endswith(_FORCED_NAME)):
            return
        name, size = parse_tar_header(header, where=f"{where}, byte {position}")
        if not name.endswith(f".{field}.npy"):
            raise ShardError(f"{where}: found member {name} where {field}.npy belongs; build the shard again")
        start = position + RECORD
        position = start + padded(size)
        if position > num_bytes:
            raise ShardError(f"{where}: {name} reaches past byte {num_bytes}, where the block must end; copy it again")
        yield offset + start, offset + start + size


def iter_blocks(path: Path | str) -> Iterator[Block]:
    """Yields the blocks of a shard file from its tar headers alone, without index or manifest.

    Args:
        path: The shard's file.

    Raises:
        ShardError: The file is truncated or is no shard.
    """
    try:
        with open_plain_file(path) as (descriptor, file_bytes):
            start = number = 0
            while file_bytes - start > len(END_OF_ARCHIVE):
                where = f"{path}, block {number}"
                limit = min(file_bytes - start, MAX_BLOCK_BYTES)
                *_, (_, stop) = _iter_members(descriptor, start, num_bytes=limit, where=where)
                num_bytes = padded(stop - start)
                yield decode_block(os.pread(descriptor, num_bytes, start), where=where)
                start += num_bytes
                number += 1
            end = os.pread(descriptor, len(END_OF_ARCHIVE), start)
    except OSError as error:
        raise ShardError(f"{path} cannot be read ({error}); build or copy the shard again") from error
    if end != END_OF_ARCHIVE:
        raise ShardError(f"{path}: {number} blocks, but no end of the archive after them; copy it again")
