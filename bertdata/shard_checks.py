"""What must hold of one shard: its bytes, its tar structure, its blocks, and no sample more often than it may be."""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from bertdata.block_checks import BlockRules, iter_faults
from bertdata.counting import count_block
from bertdata.errors import ShardError
from bertdata.files import open_plain_file
from bertdata.index import BlockIndex
from bertdata.manifest import ShardEntry
from bertdata.masking import sample_keys
from bertdata.shard_reading import parse_block
from bertdata.shards import END_OF_ARCHIVE, Block, block_name, encode_block
from bertdata.statistics import Statistics

__all__ = ["CheckTask", "Problem", "ShardFindings", "check_shard"]

UInt64Array = npt.NDArray[np.uint64]

_TELLING_SAMPLES = 16  # a block of so many samples is not there twice by chance


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that is wrong with a data set.

    Attributes:
        message: What is wrong, in a sentence.
        shard: Name of the shard; None where it is not about one.
        block: Number of the block in the shard; None where it is not about one.
        sample: Number of the sample in the block; None where it is not about one.
        num_samples: Samples of the block that it is true of.
    """

    message: str
    shard: str | None = None
    block: int | None = None
    sample: int | None = None
    num_samples: int = 0

    def __str__(self) -> str:
        parts = [self.shard] if self.shard is not None else []
        parts += [f"block {self.block}"] if self.block is not None else []
        parts += [f"sample {self.sample}"] if self.sample is not None else []
        others = f" (and {self.num_samples - 1:,} other samples of the block)" if self.num_samples > 1 else ""
        return f"{', '.join(parts)}: {self.message}{others}" if parts else self.message


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckTask:
    """A shard to check.

    Attributes:
        folder: The data set's folder.
        entry: What the manifest says of the shard.
        blocks: What the index says of its blocks.
    """

    folder: Path
    entry: ShardEntry
    blocks: BlockIndex


@dataclass(kw_only=True, slots=True)
class ShardFindings:
    """What was found in a shard.

    Attributes:
        problems: What is wrong.
        statistics: Counts of its samples; None where only checksums were looked at.
        num_forced: Samples whose label was not drawn; None where a block does not say.
        document_keys: uint64 [D], ascending; first 64 bits of the keys of its documents.
        block_hashes: Hash of the samples of each block that has more than a few, by number of the block.
        num_repeated: Samples that are copies of others in it.
        repeated_example: Block and number of the sample of which there are most.
    """

    problems: list[Problem] = field(default_factory=list)
    statistics: Statistics | None = None
    num_forced: int | None = 0
    document_keys: UInt64Array = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    block_hashes: dict[int, bytes] = field(default_factory=dict)
    num_repeated: int = 0
    repeated_example: tuple[int, int] = (0, 0)


def check_shard(task: CheckTask, *, rules: BlockRules | None) -> ShardFindings:
    """Reads a shard once, from front to end, and checks all of it.

    Args:
        task: The shard.
        rules: What must hold of its samples; None to check sizes and checksums only.
    """
    findings = ShardFindings()
    path = task.folder / task.entry.name
    try:
        with open_plain_file(path) as (descriptor, _), os.fdopen(descriptor, "rb", closefd=False) as file:
            _check_file(file, task, findings, rules=rules)
    except OSError as error:
        findings.problems.append(_problem(task, f"it cannot be read ({error.strerror or error}); copy it again"))
    return findings


def _problem(task: CheckTask, message: str, *, block: int | None = None) -> Problem:
    return Problem(message=message, shard=task.entry.name, block=block)


def _check_file(file: BinaryIO, task: CheckTask, findings: ShardFindings, *, rules: BlockRules | None) -> None:
    entry, problems = task.entry, findings.problems
    size = file.seek(0, 2)
    file.seek(0)
    if size != entry.num_bytes:
        problems.append(_problem(task, f"it has {size:,} bytes, not {entry.num_bytes:,}; copy it again"))
    samples = _Samples(task, findings, rules=rules) if rules is not None else None
    digest = hashlib.sha256()
    for number in range(len(task.blocks)):  # they fill the shard from its first byte on, see `load_index`
        num_bytes = int(task.blocks.num_bytes[number])
        data = file.read(min(num_bytes, size))
        digest.update(data)
        if len(data) != num_bytes:
            problems.append(_problem(task, f"it is cut off at byte {size:,} of the shard", block=number))
            break
        found, said = zlib.crc32(data), int(task.blocks.crc32[number])
        if found != said:
            problems.append(_problem(task, f"CRC-32 is {found:08x}, not {said:08x}; it is damaged", block=number))
        elif samples is not None:
            samples.check_block(data, number=number)
    else:
        rest = file.read(len(END_OF_ARCHIVE) + 1)
        digest.update(rest)
        if rest != END_OF_ARCHIVE:
            problems.append(
                _problem(task, f"after its last block it must have {len(END_OF_ARCHIVE):,} zero bytes and no more")
            )
    while data := file.read(1 << 20):
        digest.update(data)
    if digest.hexdigest() != entry.sha256:
        problems.append(_problem(task, f"SHA-256 is {digest.hexdigest()}, not {entry.sha256}"))
    if samples is not None:
        samples.finish()


class _Samples:
    """The samples of a shard, checked block by block."""

    def __init__(self, task: CheckTask, findings: ShardFindings, *, rules: BlockRules) -> None:
        self._task = task
        self._findings = findings
        self._rules = rules
        self._empty = Statistics.empty(max_seq_length=rules.options.pairs.max_seq_length, vocab_size=rules.vocab_size)
        self._statistics = self._empty
        self._keys: list[UInt64Array] = []
        self._places: list[npt.NDArray[np.int64]] = []  # [N, 2] of the keys: block, number in the block
        self._documents: list[UInt64Array] = []

    def check_block(self, data: bytes, *, number: int) -> None:
        """Checks the bytes of one block, and counts what is in it."""
        task, problems = self._task, self._findings.problems
        name = block_name(*_shard_of(task.entry.name), number)
        try:
            block = parse_block(data, where=name)
        except ShardError as error:
            problems.append(_problem(task, str(error), block=number))
            return
        if encode_block(block, name=name) != data:
            message = f"its tar members are not those of block {name}: their names, headers or padding are others"
            problems.append(_problem(task, message, block=number))
        said = (int(task.blocks.num_samples[number]), int(task.blocks.num_tokens[number]))
        if said != (block.num_samples, len(block.tokens)):
            message = f"it has {block.num_samples:,} samples of {len(block.tokens):,} tokens, the index {said}"
            problems.append(_problem(task, message, block=number))
        most = self._rules.block_size
        if block.num_samples > most:
            message = f"it has {block.num_samples:,} samples; at most {most:,} were asked for"
            problems.append(_problem(task, message, block=number))
        is_sound = True
        for message, samples in iter_faults(block, rules=self._rules):
            is_sound = False
            first = int(np.argmax(samples)) if samples is not None else None
            count = int(samples.sum()) if samples is not None else 0
            problems.append(
                Problem(message=message, shard=task.entry.name, block=number, sample=first, num_samples=count)
            )
        if is_sound:
            self._count(block, number=number)

    def _count(self, block: Block, *, number: int) -> None:
        self._statistics += count_block(
            block,
            empty=self._empty,
            mask_token=self._rules.roles["mask"],
            has_labels=self._rules.options.pairs.next_sentence != "none",
        )
        if block.label_forced is None:
            self._findings.num_forced = None
        elif self._findings.num_forced is not None:
            self._findings.num_forced += int(block.label_forced.sum())
        keys = sample_keys(block, key=0)
        self._keys.append(keys)
        self._places.append(np.stack([np.full(len(keys), number), np.arange(len(keys))], axis=1))
        self._documents.append(np.unique(block.document_keys))
        if len(keys) >= _TELLING_SAMPLES:
            self._findings.block_hashes[number] = hashlib.blake2b(keys.tobytes(), digest_size=16).digest()

    def finish(self) -> None:
        """Looks at all samples of the shard together."""
        findings = self._findings
        findings.statistics = self._statistics
        if not self._keys:
            return
        findings.document_keys = np.unique(np.concatenate(self._documents))
        keys, places = np.concatenate(self._keys), np.concatenate(self._places)
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)
        findings.num_repeated = len(keys) - len(first)
        block, sample = places[first[np.argmax(counts)]].tolist()
        findings.repeated_example = (block, sample)


def _shard_of(name: str) -> tuple[str, int]:
    """Returns split and number of a shard by its name."""
    split, number, *_ = Path(name).name.split("-")
    return split, int(number)
