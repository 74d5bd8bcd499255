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
import math
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bertdata.errors import ShardError
from bertdata.files import open_atomically

__all__ = [
    "END_OF_ARCHIVE",
    "FORMAT_VERSION",
    "Block",
    "BlockEntry",
    "ShardWriter",
    "block_name",
    "encode_block",
    "iter_blocks",
    "open_shard",
    "position_dtype",
    "read_block",
    "read_field",
    "shard_name",
    "token_dtype",
]

FORMAT_VERSION = 1

_RECORD = 512
_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(rb"\{'descr': '([<|][a-z]\d)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n")
_DTYPES: dict[str, np.dtype[Any]] = {
    "|u1": np.dtype(np.uint8),
    "<u2": np.dtype("<u2"),
    "<u4": np.dtype("<u4"),
    "<u8": np.dtype("<u8"),
}
END_OF_ARCHIVE = bytes(2 * _RECORD)


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


def _npy_header(array: npt.NDArray[Any]) -> bytes:
    shape = f"({array.shape[0]},)" if array.ndim == 1 else str(tuple(array.shape))
    descr = array.dtype.str
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    padding = -(len(_MAGIC) + 2 + len(text) + 1) % 64
    text += b" " * padding + b"\n"
    return _MAGIC + len(text).to_bytes(2, "little") + text


def _tar_header(name: str, num_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = num_bytes
    info.mode = 0o644
    return info.tobuf(format=tarfile.USTAR_FORMAT)


def encode_block(block: Block, *, name: str) -> bytes:
    """Returns the bytes of a block: eight tar members, each header, data and padding.

    Args:
        block: The samples.
        name: Stem of the members' names, from `block_name`.
    """
    parts = []
    for field in FIELDS:
        array = np.ascontiguousarray(getattr(block, field))
        if array.dtype.str not in _DTYPES:
            raise ShardError(f"block {name}: {field} has dtype {array.dtype}; a shard holds {', '.join(_DTYPES)}")
        header = _npy_header(array)
        num_bytes = len(header) + array.nbytes
        parts += [_tar_header(f"{name}.{field}.npy", num_bytes), header, array.data.cast("B") if array.size else b""]
        parts.append(bytes(-num_bytes % _RECORD))
    return b"".join(parts)


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


def _parse_npy(data: memoryview, *, where: str) -> npt.NDArray[Any]:
    if bytes(data[:8]) != _MAGIC:
        raise ShardError(f"{where}: not an array of the expected form; build the shard again")
    header_end = 10 + int.from_bytes(data[8:10], "little")
    match = _NPY_HEADER.fullmatch(data[10:header_end])
    if match is None or match[1].decode() not in _DTYPES:
        raise ShardError(f"{where}: unexpected array header {bytes(data[10:header_end])[:80]!r}")
    dtype = _DTYPES[match[1].decode()]
    shape = tuple(int(size) for size in match[2].decode().split(",") if size.strip())
    if math.prod(shape) * dtype.itemsize != len(data) - header_end:
        raise ShardError(f"{where}: {len(data) - header_end} bytes do not hold an array of shape {shape}")
    array: npt.NDArray[Any] = np.frombuffer(data[header_end:], dtype=dtype).reshape(shape)
    return array


def _parse_header(header: bytes, position: int, *, num_bytes: int, where: str) -> tuple[str, int, int]:
    """Returns name, start and stop of the file whose tar header lies at `position` in a block of `num_bytes`."""
    try:
        info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except tarfile.HeaderError as error:
        raise ShardError(f"{where}: not a tar member at byte {position} of the block ({error})") from error
    start = position + _RECORD
    stop = start + info.size
    if not info.isreg() or not start <= stop <= num_bytes:
        raise ShardError(f"{where}: member {info.name!r} is no plain file within the block")
    return info.name, start, stop


def _parse_member(data: memoryview, position: int, *, where: str) -> tuple[str, npt.NDArray[Any], int]:
    """Returns name, array and end (padding included) of the tar member at `position`."""
    header = bytes(data[position : position + _RECORD])
    name, start, stop = _parse_header(header, position, num_bytes=len(data), where=where)
    return name, _parse_npy(data[start:stop], where=f"{where}, member {name!r}"), stop + -stop % _RECORD


def _check_block(block: Block, *, where: str) -> None:
    offsets = block.token_offsets
    sizes_fit = (
        all(getattr(block, field).ndim == (2 if field in _MATRICES else 1) for field in FIELDS)
        and len(offsets) == block.num_samples + 1
        and len(block.next_sentence_label) == len(block.num_predictions) == block.num_samples
        and block.document_keys.shape == (block.num_samples, 2)
        and int(offsets[0]) == 0
        and int(offsets[-1]) == len(block.tokens)
        and len(block.mask_positions) == len(block.mask_tokens) == int(block.num_predictions.sum(dtype=np.int64))
    )
    if not sizes_fit:
        raise ShardError(f"{where}: the arrays of the block do not fit each other; build the shard again")


def decode_block(data: bytes, *, where: str) -> Block:
    """Returns the samples in the bytes of one block.

    Args:
        data: Bytes as `encode_block` makes them.
        where: Shard and block, for messages.

    Raises:
        ShardError: A member is missing, of another type, or does not fit the others.
    """
    view = memoryview(data)
    arrays: dict[str, npt.NDArray[Any]] = {}
    position = 0
    for field in FIELDS:
        name, array, position = _parse_member(view, position, where=where)
        if not name.endswith(f".{field}.npy"):
            raise ShardError(f"{where}: found member {name!r} where {field}.npy belongs")
        arrays[field] = array
    block = Block(**arrays)
    _check_block(block, where=where)
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
        The block, its arrays read-only views of the bytes read.

    Raises:
        ShardError: The file is missing or truncated, or the bytes are not those that were written.
    """
    where = f"{path}, block {name or f'at byte {offset}'}"
    try:
        with Path(path).open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), num_bytes, offset)
    except OSError as error:
        raise ShardError(f"{where}: cannot be read ({error}); build or copy the shard again") from error
    if len(data) != num_bytes:
        raise ShardError(f"{where}: {len(data)} bytes where {num_bytes} belong; the shard is truncated, copy it again")
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
    try:
        with Path(path).open("rb", buffering=0) as file:
            position = 0
            for current in FIELDS[: FIELDS.index(field) + 1]:
                header = os.pread(file.fileno(), _RECORD, offset + position)
                name, start, stop = _parse_header(header, position, num_bytes=num_bytes, where=where)
                if not name.endswith(f".{current}.npy"):
                    raise ShardError(f"{where}: found member {name!r} where {current}.npy belongs")
                position = stop + -stop % _RECORD
            data = os.pread(file.fileno(), stop - start, offset + start)
    except OSError as error:
        raise ShardError(f"{where}: cannot be read ({error}); build or copy the shard again") from error
    return _parse_npy(memoryview(data), where=f"{where}, member {name!r}")


def iter_blocks(path: Path | str) -> Iterator[Block]:
    """Yields the blocks of a shard file from its tar headers alone, without index or manifest.

    Raises:
        ShardError: The file is truncated or is no shard.
    """
    with Path(path).open("rb") as file:
        number = 0
        while True:
            where = f"{path}, block {number}"
            header = file.read(_RECORD)
            if header == bytes(_RECORD):
                return
            parts = []
            for field in FIELDS:
                try:
                    info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
                except tarfile.HeaderError as error:
                    raise ShardError(f"{where}: no tar header where {field}.npy belongs ({error})") from error
                body = file.read(info.size + -info.size % _RECORD)
                if len(body) < info.size:
                    raise ShardError(f"{where}: the file ends within {info.name!r}; copy it again")
                parts += [header, body]
                if field != FIELDS[-1]:
                    header = file.read(_RECORD)
            yield decode_block(b"".join(parts), where=where)
            number += 1
