"""The index of a data set, `index.arrow`: where each block lies, how much it holds, and its CRC-32.

It is an Arrow file of plain columns without missing values. A compressed one would be refused: a few bytes of it can
ask for all memory.
"""

from __future__ import annotations

import dataclasses
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bertdata.errors import ShardError
from bertdata.files import read_plain_file, write_atomically
from bertdata.shards import END_OF_ARCHIVE, MAX_BLOCK_BYTES, BlockEntry

if TYPE_CHECKING:
    from bertdata.manifest import ShardEntry

__all__ = ["INDEX", "MAX_INDEX_BYTES", "BlockIndex", "IndexBuilder", "load_index", "write_index"]

INDEX = "index.arrow"
MAX_INDEX_BYTES = 1 << 30  # 30 million blocks

_DTYPES: dict[str, np.dtype[Any]] = {
    "shard": np.dtype(np.int32),
    "offset": np.dtype(np.int64),
    "num_bytes": np.dtype(np.int64),
    "num_samples": np.dtype(np.int64),
    "num_tokens": np.dtype(np.int64),
    "crc32": np.dtype(np.uint32),
}
_SCHEMA = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name, dtype in _DTYPES.items()])
_MAGIC = b"ARROW1"


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockIndex:
    """Where each of N blocks lies. One row per block, in shard order.

    Attributes:
        shard: int32 [N]; index into `Manifest.shards`.
        offset: int64 [N]; first byte of the block in its shard.
        num_bytes: int64 [N].
        num_samples: int64 [N].
        num_tokens: int64 [N].
        crc32: uint32 [N]; of the block's bytes.
    """

    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    num_bytes: npt.NDArray[np.int64]
    num_samples: npt.NDArray[np.int64]
    num_tokens: npt.NDArray[np.int64]
    crc32: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.shard)

    def take(self, rows: npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]) -> BlockIndex:
        """Returns the chosen rows."""
        return BlockIndex(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


class IndexBuilder:
    """Collects the rows of an index, shard by shard: 36 bytes a block, where the entries themselves take hundreds."""

    def __init__(self) -> None:
        self._num_shards = 0
        self._columns = {name: array(dtype.char) for name, dtype in _DTYPES.items()}

    def add(self, blocks: Sequence[BlockEntry]) -> None:
        """Adds the blocks of the next shard, in the order of `Manifest.shards`."""
        for name, column in self._columns.items():
            is_shard = name == "shard"
            column.extend([self._num_shards] * len(blocks) if is_shard else [getattr(block, name) for block in blocks])
        self._num_shards += 1

    def encode(self) -> bytes:
        """Returns the content of `index.arrow`."""
        # `pa.array` would load pandas where that is installed, and 60 MB of memory with it.
        columns = [
            pa.Array.from_buffers(field.type, len(values), [None, pa.py_buffer(values)])
            for field, values in zip(_SCHEMA, self._columns.values(), strict=True)
        ]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))
        data: bytes = sink.getvalue().to_pybytes()
        return data


def write_index(folder: Path, blocks: Iterable[Sequence[BlockEntry]]) -> None:
    """Writes `index.arrow` into the folder of a data set.

    Args:
        folder: The folder.
        blocks: The blocks of each shard, in the order of `Manifest.shards`.
    """
    index = IndexBuilder()
    for entries in blocks:
        index.add(entries)
    write_atomically(folder / INDEX, index.encode())


def load_index(path: Path, *, shards: Sequence[ShardEntry]) -> BlockIndex:
    """Reads the index, and checks that its blocks fill the given shards.

    Args:
        path: The file.
        shards: The shards that the manifest names.

    Raises:
        ShardError: It cannot be read, or is that of other shards.
    """
    try:
        table = _read_table(read_plain_file(path, max_bytes=MAX_INDEX_BYTES))
    except (OSError, ValueError, struct.error, pa.ArrowException) as error:
        raise ShardError(
            f"{path} cannot be read as a block index ({error}); copy or build the data set again"
        ) from error
    index = BlockIndex(**{name: table[name].to_numpy() for name in _SCHEMA.names})
    if problem := _find_problem(index, shards=shards):
        raise ShardError(
            f"{path} and the manifest beside it do not belong together: {problem}; copy or build the data set again"
        )
    return index


def _read_table(data: bytes) -> pa.Table:
    """Reads an Arrow file from its start to its end, not by the places in its footer."""
    if not data.startswith(_MAGIC) or not data.endswith(_MAGIC):
        raise ValueError(f"it does not begin and end with {_MAGIC.decode()}, so it is cut off or no Arrow file")
    messages = iter(pa.ipc.MessageReader.open_stream(pa.BufferReader(pa.py_buffer(data).slice(8))))
    first = next(messages, None)
    if first is None:
        raise ValueError("it has no columns")
    schema = pa.ipc.read_schema(first)
    if not schema.equals(_SCHEMA):
        raise ValueError(f"its columns are {', '.join(f'{field.name} {field.type}' for field in schema)}"[:400])
    batches = []
    for message in messages:
        if message.type != "record batch":
            raise ValueError(f"it holds a message of type {message.type}")
        if _is_compressed(message.metadata.to_pybytes()):
            raise ValueError("it is compressed")
        batch = pa.ipc.read_record_batch(message, _SCHEMA)
        batch.validate(full=True)
        batches.append(batch)
    table = pa.Table.from_batches(batches, schema=_SCHEMA)
    if any(column.null_count for column in table.columns):
        raise ValueError("it has missing values")
    return table


def _is_compressed(message: bytes) -> bool:
    """Returns whether the header of a record batch has a `compression`; `pyarrow` tells only by unpacking."""

    def find(table: int, field: int) -> int:
        """Returns where a field of a FlatBuffers table lies, 0 where it has none."""
        fields = table - struct.unpack_from("<i", message, table)[0]
        if 4 + 2 * field >= struct.unpack_from("<H", message, fields)[0]:
            return 0
        offset: int = struct.unpack_from("<H", message, fields + 4 + 2 * field)[0]
        return table + offset if offset else 0

    header = find(struct.unpack_from("<I", message)[0], 2)  # version, type, header, ...
    batch = header + struct.unpack_from("<I", message, header)[0]
    return find(batch, 3) != 0  # length, nodes, buffers, compression, ...


def _find_problem(index: BlockIndex, *, shards: Sequence[ShardEntry]) -> str | None:
    """Returns in what way the blocks do not fill the shards one after another; the first thing that is found."""
    if len(index) and (np.any(np.diff(index.shard) < 0) or index.shard[0] < 0 or index.shard[-1] >= len(shards)):
        return f"shards are not in order, or not from 0 to {len(shards) - 1}"
    for name, least, most in (
        ("num_bytes", 1, MAX_BLOCK_BYTES),
        ("num_samples", 1, index.num_bytes),
        ("num_tokens", 1, index.num_bytes),
    ):
        values = getattr(index, name)
        if rows := np.flatnonzero((values < least) | (values > most)).tolist():
            return f"block {rows[0]} has {name} {values[rows[0]]}"
    bounds = np.searchsorted(index.shard, np.arange(len(shards) + 1))  # where each shard's blocks begin
    ends = np.concatenate([[0], np.cumsum(index.num_bytes)])
    if rows := np.flatnonzero(index.offset != ends[:-1] - ends[bounds[:-1]][index.shard]).tolist():
        return f"block {rows[0]} has offset {index.offset[rows[0]]}, which is not where the one before it ends"
    for name, found in (
        ("num_blocks", np.diff(bounds)),
        ("num_bytes", np.diff(ends[bounds]) + len(END_OF_ARCHIVE)),
        ("num_samples", np.diff(np.concatenate([[0], np.cumsum(index.num_samples)])[bounds])),
        ("num_tokens", np.diff(np.concatenate([[0], np.cumsum(index.num_tokens)])[bounds])),
    ):
        for shard, value in zip(shards, found.tolist(), strict=True):
            if getattr(shard, name) != value:
                return f"{shard.name} has {name} {value} by the index, {getattr(shard, name)} by the manifest"
    return None
