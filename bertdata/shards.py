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
    ├── train-00000-00000.label_forced.npy           only of `--next-sentence google`
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

The label of a prediction is the sample's own token at that position. Google's algorithm calls a pair NotNext without a
draw where its chunk had one sentence only; `label_forced` is 1 there. No other algorithm does, and their blocks have no
such member. Tar headers carry no time and no owner, so the
same samples give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bertdata.errors import ShardError
from bertdata.members import RECORD, encode_member
from bertdata.storage import Folder

__all__ = [
    "END_OF_ARCHIVE",
    "FIELDS",
    "FORCED",
    "FORMAT_VERSION",
    "MAX_BLOCK_BYTES",
    "SHARD_NAME",
    "Block",
    "BlockEntry",
    "ShardWriter",
    "block_name",
    "encode_block",
    "members_of",
    "open_shard",
    "position_dtype",
    "shard_name",
    "token_dtype",
]

FORMAT_VERSION = 1

MAX_BLOCK_BYTES = 1 << 30
"""Bytes of a block at most. The blocks of usual options have a few MB."""

END_OF_ARCHIVE = bytes(2 * RECORD)

SHARD_NAME = re.compile(r"(train|eval)-[0-9]{5}-of-[0-9]{5}\.tar")
"""What `shard_name` gives; the group is the split."""


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
        label_forced: uint8 [N]; 1 where the label was not drawn. None where no label is forced, as of all builds but
            `google`, and where earlier releases did not say.
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    token_offsets: npt.NDArray[np.uint32]
    segment_b: npt.NDArray[np.unsignedinteger[Any]]
    next_sentence_label: npt.NDArray[np.uint8]
    document_keys: npt.NDArray[np.uint64]
    num_predictions: npt.NDArray[np.unsignedinteger[Any]]
    mask_positions: npt.NDArray[np.unsignedinteger[Any]]
    mask_tokens: npt.NDArray[np.unsignedinteger[Any]]
    label_forced: npt.NDArray[np.uint8] | None = None

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return len(self.segment_b)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sample, specials included: int64 [N]."""
        offsets = self.token_offsets.astype(np.int64)
        return offsets[1:] - offsets[:-1]


FIELDS = tuple(field.name for field in dataclasses.fields(Block) if field.default is dataclasses.MISSING)
"""Members that every block has."""

FORCED = "label_forced"
"""The member that only some blocks have, after the others."""


def members_of(block: Block) -> tuple[str, ...]:
    """Returns the names of the members of a block, in their order."""
    return FIELDS if block.label_forced is None else (*FIELDS, FORCED)


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
    """Returns the bytes of a block: its tar members, each header, data and padding.

    Args:
        block: The samples.
        name: Stem of the members' names, from `block_name`.

    Raises:
        ShardError: An array is not of unsigned integers, or the block is too large.
    """
    data = b"".join(encode_member(f"{name}.{field}.npy", getattr(block, field)) for field in members_of(block))
    if len(data) > MAX_BLOCK_BYTES:
        raise ShardError(
            f"block {name} has {len(data):,} bytes; it may have {MAX_BLOCK_BYTES:,}. Give a smaller --block-size"
        )
    return data


@contextmanager
def open_shard(folder: Folder, name: str) -> Iterator[ShardWriter]:
    """Opens a shard for writing; the file appears only when all is written, and after an exception nothing is left."""
    with folder.create(name) as file:
        writer = ShardWriter(file)
        yield writer
        writer.end()


class ShardWriter:
    """Appends blocks to a shard, see `open_shard`.

    Attributes:
        entries: Where each block lies.
        num_bytes: Bytes written so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.entries: list[BlockEntry] = []
        self.num_bytes = 0
        self._file = file
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far, hexadecimal."""
        return self._sha256.hexdigest()

    def add(self, block: Block, *, name: str) -> None:
        """Appends one block under the stem `name`."""
        data = encode_block(block, name=name)
        entry = BlockEntry(
            offset=self.num_bytes,
            num_bytes=len(data),
            num_samples=block.num_samples,
            num_tokens=len(block.tokens),
            crc32=zlib.crc32(data),
        )
        self._write(data)
        self.entries.append(entry)

    def end(self) -> None:
        """Writes the end of the archive."""
        self._write(END_OF_ARCHIVE)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.num_bytes += len(data)
