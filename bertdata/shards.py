"""Shards, format version 1: plain tar files of blocks, each block a group of `.npy` members.

    train-00000-of-00064.tar
    ├── train-00000-00000.tokens.npy                 block 0: up to 1,024 samples
    ├── train-00000-00000.token_offsets.npy
    ├── train-00000-00000.segment_b.npy
    ├── train-00000-00000.next_sentence_label.npy
    ├── train-00000-00000.document_keys.npy
    ├── train-00000-00000.num_predictions.npy
    ├── train-00000-00000.mask_positions.npy
    ├── train-00000-00000.mask_tokens.npy
    ├── train-00000-00001.tokens.npy                 block 1
    └── ...

Two samples with K = 2 mask sets in one block:

    tokens               [CLS] a b [SEP] c [SEP] | [CLS] d [SEP] e f [SEP]
    token_offsets        0, 6, 12
    segment_b            4, 3
    next_sentence_label  0, 1
    document_keys        (x, x), (x, y)
    num_predictions      1 1 | 1 1
    mask_positions       2 | 1 |                     4 | 3
    mask_tokens          [MASK] | a                  [MASK] | [MASK]

The label of a prediction is the sample's own token at that position. Tar headers carry no time and no owner, so the
same samples give the same bytes. A block is read with one positioned read and its CRC-32 is checked before it is
parsed; only `.npy` members of unsigned integers are accepted, and nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bertdata.errors import ShardError
from bertdata.files import open_atomically, open_plain_file
from bertdata.members import RECORD, encode_member, padded, parse_member, parse_npy, parse_tar_header

__all__ = [
    "END_OF_ARCHIVE",
    "FORMAT_VERSION",
    "MAX_BLOCK_BYTES",
    "Block",
    "BlockEntry",
    "ShardWriter",
    "block_name",
    "encode_block",
    "iter_blocks",
    "open_shard",
    "parse_block",
    "position_dtype",
    "read_block",
    "read_field",
    "shard_name",
    "token_dtype",
]

FORMAT_VERSION = 1

MAX_BLOCK_BYTES = 1 << 30
"""Bytes of a block at most. The blocks of usual options have a few MB."""

END_OF_ARCHIVE = bytes(2 * RECORD)


def position_dtype(max_seq_length: int) -> np.dtype[Any]:
    """Returns P, the narrowest dtype for positions and counts in samples of at most `max_seq_length` tokens.

    A sample of one segment stores its own length as `segment_b`, so 255 is the longest for which uint8 is enough.
    """
    return np.dtype(np.uint8) if max_seq_length <= 255 else np.dtype("<u2")


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Returns the narrowest dtype for token ids below `vocab_size`."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def shard_name(split: str, number: int, num_shards: int) -> str:
    """Returns the file name of shard `number`, such as `train-00000-of-00064.tar`."""
    return f"{split}-{number:05d}-of-{num_shards:05d}.tar"


def block_name(split: str, shard: int, number: int) -> str:
    """Returns the name that block `number` of a shard gives its tar members, such as `train-00000-00007`."""
    return f"{split}-{shard:05d}-{number:05d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """N samples with K mask sets each, T tokens and M predictions in all. P is `position_dtype`.

    Attributes:
        tokens: uint16 or uint32 [T]; [CLS] A [SEP] B [SEP] of every sample, end to end.
        token_offsets: uint32 [N + 1]; where each sample starts in `tokens`.
        segment_b: P [N]; position in the sample at which segment B starts, its length where there is no B.
        next_sentence_label: uint8 [N]; 0 IsNext, 1 NotNext.
        document_keys: uint64 [N, 2]; first 64 bits of the keys of A's and B's documents.
        num_predictions: P [N, K]; positions in mask set k of sample n.
        mask_positions: P [M]; positions in the sample, ascending within a set, sets in order, samples in order.
        mask_tokens: as tokens [M]; what stands there in the model's input.
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    token_offsets: npt.NDArray[np.uint32]
    segment_b: npt.NDArray[np.unsignedinteger[Any]]
    next_sentence_label: npt.NDArray[np.uint8]
    document_keys: npt.NDArray[np.uint64]
    num_predictions: npt.NDArray[np.unsignedinteger[Any]]
    mask_positions: npt.NDArray[np.unsignedinteger[Any]]
    mask_tokens: npt.NDArray[np.unsignedinteger[Any]]

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return len(self.segment_b)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sample, specials included: int64 [N]."""
        offsets = self.token_offsets.astype(np.int64)
        return offsets[1:] - offsets[:-1]


FIELDS = tuple(field.name for field in dataclasses.fields(Block))
_MATRICES = ("document_keys", "num_predictions")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockEntry:
    """Where a block lies in its shard.

    Attributes:
        offset: First byte of the block, tar headers included.
        num_bytes: Bytes of the block, tar headers and padding included.
        num_samples: Samples in the block.
        num_tokens: Tokens of these samples, specials included.
        crc32: CRC-32 of all its bytes.
    """

    offset: int
    num_bytes: int
    num_samples: int
    num_tokens: int
    crc32: int


def encode_block(block: Block, *, name: str) -> bytes:
    """Returns the bytes of a block: eight tar members, each header, data and padding.

    Args:
        block: The samples.
        name: Stem of the members' names, from `block_name`.

    Raises:
        ShardError: An array is not of unsigned integers, or the block is too large.
    """
    data = b"".join(encode_member(f"{name}.{field}.npy", getattr(block, field)) for field in FIELDS)
    if len(data) > MAX_BLOCK_BYTES:
        raise ShardError(
            f"block {name} has {len(data):,} bytes; it may have {MAX_BLOCK_BYTES:,}. Give a smaller --block-size"
        )
    return data


@contextmanager
def open_shard(path: Path) -> Iterator[ShardWriter]:
    """Opens a shard for writing; the file appears only when all is written, and after an exception nothing is left."""
    with open_atomically(path) as file:
        yield ShardWriter(file)
        file.write(END_OF_ARCHIVE)


class ShardWriter:
    """Appends blocks to a shard, see `open_shard`.

    Attributes:
        entries: Where each block lies.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.entries: list[BlockEntry] = []
        self._file = file

    def add(self, block: Block, *, name: str) -> None:
        """Appends one block under the stem `name`."""
        data = encode_block(block, name=name)
        entry = BlockEntry(
            offset=self._file.tell(),
            num_bytes=len(data),
            num_samples=block.num_samples,
            num_tokens=len(block.tokens),
            crc32=zlib.crc32(data),
        )
        self._file.write(data)
        self.entries.append(entry)


def _check_shapes(block: Block, *, where: str) -> None:
    num_samples, offsets = block.num_samples, block.token_offsets
    shapes_fit = (
        num_samples > 0
        and all(getattr(block, field).ndim == (2 if field in _MATRICES else 1) for field in FIELDS)
        and len(offsets) == num_samples + 1
        and len(block.next_sentence_label) == len(block.num_predictions) == num_samples
        and block.document_keys.shape == (num_samples, 2)
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
    )
    if not dtypes_fit:
        found = ", ".join(f"{field} {getattr(block, field).dtype}" for field in FIELDS)
        raise ShardError(f"{where}: dtypes are not those of a block ({found}); build the shard again")


def _check_values(block: Block, *, where: str) -> None:
    lengths, dtype = block.lengths, block.segment_b.dtype
    counts = block.num_predictions.astype(np.int64).sum(axis=1)
    checks = {
        "token_offsets do not ascend": (lengths < 2).any(),
        f"a sample is longer than positions of {dtype} can tell": (lengths > np.iinfo(dtype).max).any(),
        "segment_b lies outside of its sample": ((block.segment_b < 2) | (block.segment_b > lengths)).any(),
        "next_sentence_label is neither 0 nor 1": (block.next_sentence_label > 1).any(),
    }
    for what, is_wrong in checks.items():
        if is_wrong:
            raise ShardError(f"{where}: {what}; build the shard again")
    last = np.repeat((lengths - 1).astype(dtype), counts)
    if (block.mask_positions == 0).any() or (block.mask_positions >= last).any():
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
    for field in FIELDS:
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


def read_block(path: Path | str, *, offset: int, num_bytes: int, crc32: int, name: str = "") -> Block:
    """Reads one block with a single positioned read and checks it before use.

    Args:
        path: The shard's file.
        offset: First byte of the block.
        num_bytes: Bytes of the block.
        crc32: Expected CRC-32 of these bytes.
        name: Name of the block, for messages.

    Returns:
        The block, see `decode_block`.

    Raises:
        ShardError: The file is missing or truncated, or the bytes are not those that were written.
    """
    where = f"{path}, block {name or f'at byte {offset}'}"
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
        field: One of the attributes of `Block`.

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
    for field in FIELDS:
        header = os.pread(descriptor, RECORD, offset + position)
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
