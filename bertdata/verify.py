"""Verifying a data set: all that a finished build promises, checked from its files alone.

Shards are read once each, on all cores; what is kept of them is small: counts, a hash per block, and the keys of the
documents that are held out.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bertdata.block_checks import BlockRules
from bertdata.byte_progress import ByteProgress
from bertdata.data_set import DataSet, open_data_set
from bertdata.errors import BertDataError, ShardError
from bertdata.files import file_sha256
from bertdata.index import INDEX
from bertdata.shard_checks import CheckTask, Problem, ShardFindings, check_shard
from bertdata.share_checks import iter_count_faults, iter_share_faults
from bertdata.statistics import STATISTICS, Statistics
from bertdata.workers import map_in_processes

_LOG = logging.getLogger(__name__)

__all__ = ["describe_whole", "iter_problems", "recount"]


def iter_problems(folder: Path, *, quick: bool = False, num_workers: int = 1) -> Iterator[Problem]:
    """Yields all that is wrong with a data set.

    Args:
        folder: Its folder.
        quick: Check that files are there, their sizes and their checksums only.
        num_workers: Processes to use.
    """
    try:
        data_set = open_data_set(folder)
        whole = None if quick else _Whole(data_set)
    except BertDataError as error:
        yield Problem(message=str(error))
        return
    yield from _file_problems(data_set)
    for number, findings in _iter_findings(data_set, rules=whole.rules if whole else None, num_workers=num_workers):
        yield from findings.problems
        if whole is not None:
            yield from whole.add(number, findings)
    yield from _equal_shards(data_set)
    if whole is not None:
        yield from whole.finish()


def describe_whole(folder: Path, *, quick: bool) -> str:
    """Returns what was found right, in a sentence."""
    manifest = open_data_set(folder).manifest
    num_bytes = sum(shard.num_bytes for shard in manifest.shards)
    size = f"{len(manifest.shards):,} shards of {num_bytes / 1e6:,.1f} MB"
    if quick:
        return f"{folder}: {size}, whose bytes are those that the manifest names; samples were not looked at"
    num_samples = manifest.num_samples("train") + manifest.num_samples("eval")
    return f"{folder}: {size}, {num_samples:,} samples; nothing is wrong"


def recount(data_set: DataSet, *, num_workers: int = 1) -> Statistics:
    """Counts the samples of a data set anew from its shards.

    Raises:
        ShardError: A shard is damaged; the first problem is told.
    """
    rules = _rules(data_set)
    total = _no_statistics(rules)
    for _, findings in _iter_findings(data_set, rules=rules, num_workers=num_workers):
        if findings.problems:
            raise ShardError(f"{data_set.folder}: {findings.problems[0]}; see bertdata verify")
        assert findings.statistics is not None
        total += findings.statistics
    return total


def _rules(data_set: DataSet) -> BlockRules:
    return BlockRules.of(data_set.manifest, data_set.load_vocabulary())


def _no_statistics(rules: BlockRules) -> Statistics:
    return Statistics.empty(max_seq_length=rules.options.pairs.max_seq_length, vocab_size=rules.vocab_size)


def _iter_findings(
    data_set: DataSet, *, rules: BlockRules | None, num_workers: int
) -> Iterator[tuple[int, ShardFindings]]:
    """Yields number and findings of each shard; those for evaluation first, so that their documents are known."""
    shards = data_set.manifest.shards
    order = sorted(range(len(shards)), key=lambda number: shards[number].split != "eval")
    tasks = [
        CheckTask(
            folder=data_set.folder, entry=shards[number], blocks=data_set.index.take(data_set.index.shard == number)
        )
        for number in order
    ]
    check = functools.partial(check_shard, rules=rules)
    with ByteProgress("verifying", total=sum(shard.num_bytes for shard in shards)) as progress:
        for number, findings in zip(order, map_in_processes(check, tasks, num_workers=num_workers), strict=True):
            progress.advance(shards[number].num_bytes)
            yield number, findings


def _file_problems(data_set: DataSet) -> Iterator[Problem]:
    """Yields files that are missing or others than the manifest says, and shards that it does not name."""
    folder, manifest = data_set.folder, data_set.manifest
    for name in {"tokenizer_config.json", INDEX, STATISTICS} - manifest.files.keys():
        yield Problem(message=f"manifest.json: the SHA-256 of {name} is missing; build the data set again")
    for name, sha256 in manifest.files.items():
        path = folder / name
        try:
            found = file_sha256(path)
        except OSError as error:
            yield Problem(message=f"{name} cannot be read ({error.strerror or error}); copy it again")
        else:
            if found != sha256:
                yield Problem(message=f"{name} has SHA-256 {found}, not {sha256}; it is damaged, or of another build")
    known = {shard.name for shard in manifest.shards}
    for path in sorted(path for split in ("train", "eval") for path in folder.glob(f"{split}-*.tar")):
        if path.name not in known:
            yield Problem(message=f"{path.name} is not in the manifest; it is of another build, remove it")


def _equal_shards(data_set: DataSet) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for shard in data_set.manifest.shards:
        other = first.setdefault(shard.sha256, shard.name)
        if other != shard.name and shard.num_samples:  # all empty shards are equal
            yield Problem(message=f"it is a copy of {other}: the same SHA-256", shard=shard.name)


@dataclass(frozen=True, slots=True)
class _Range:
    """The keys of the documents of a shard."""

    first: int
    last: int
    number: int


class _Whole:
    """What is known of all shards together."""

    def __init__(self, data_set: DataSet) -> None:
        self.rules = _rules(data_set)
        self._data_set = data_set
        self._statistics = _no_statistics(self.rules)
        excluded = self.rules.options.shards.excluded_documents
        self._excluded = np.array([int(key, 16) for key in excluded], dtype=np.uint64)
        self._labels = np.zeros(2, dtype=np.int64)
        self._num_forced: int | None = 0  # None where a block does not say
        self._num_documents = Counter[str]()
        self._is_whole = True
        self._eval_keys: npt.NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        self._ranges: list[_Range] = []
        self._blocks: dict[bytes, tuple[int, int]] = {}
        self._num_repeated = 0
        self._repeated_example: tuple[int, tuple[int, int]] | None = None

    def add(self, number: int, findings: ShardFindings) -> Iterator[Problem]:
        """Takes in what was found in a shard, and yields how it contradicts the others."""
        shard = self._data_set.manifest.shards[number]
        self._is_whole &= not findings.problems
        if findings.statistics is None:  # the shard is not there
            return
        self._statistics += findings.statistics
        if self._num_forced is not None:
            self._num_forced = None if findings.num_forced is None else self._num_forced + findings.num_forced
        keys = findings.document_keys
        kept = np.intersect1d(keys, self._excluded)
        if len(kept):
            message = f"{len(kept):,} of its documents should have been excluded, such as {kept[0]:016x}"
            yield Problem(message=message, shard=shard.name)
        # Where there is one document, there is no other to take a random next from; the published script takes its own.
        if len(keys) > 1 or self.rules.options.pairs.next_sentence == "google":
            labels = findings.statistics.segment_lengths.sum(axis=(0, 2, 3))
            self._labels += labels
            for message in iter_share_faults(
                findings.statistics, labels=labels, num_forced=findings.num_forced, rules=self.rules
            ):
                yield Problem(message=message, shard=shard.name)
        self._num_documents[shard.split] += len(keys)
        if shard.split == "eval":
            self._eval_keys = np.union1d(self._eval_keys, keys)
        else:
            held_out = np.intersect1d(keys, self._eval_keys, assume_unique=True)
            if len(held_out):
                message = f"{len(held_out):,} of its documents are for evaluation too, such as {held_out[0]:016x}"
                yield Problem(message=message, shard=shard.name)
        if len(keys):
            self._ranges.append(_Range(int(keys[0]), int(keys[-1]), number))
        yield from self._add_blocks(number, findings)
        self._num_repeated += findings.num_repeated
        if findings.num_repeated and self._repeated_example is None:
            self._repeated_example = number, findings.repeated_example

    def _add_blocks(self, number: int, findings: ShardFindings) -> Iterator[Problem]:
        shards = self._data_set.manifest.shards
        first = {block: self._blocks.setdefault(key, (number, block)) for block, key in findings.block_hashes.items()}
        copies = {block: other for block, other in first.items() if other != (number, block)}
        if copies and len(copies) == len(first) and len({shard for shard, _ in copies.values()} - {number}) == 1:
            other = next(iter(copies.values()))[0]
            yield Problem(message=f"all of its samples are those of {shards[other].name}", shard=shards[number].name)
        else:
            for block, (other, other_block) in copies.items():
                message = f"its samples are those of {shards[other].name}, block {other_block}"
                yield Problem(message=message, shard=shards[number].name, block=block)

    def finish(self) -> Iterator[Problem]:
        """Yields what is wrong with the data set as a whole."""
        yield from self._misplaced_documents()
        if not self._is_whole:
            _LOG.warning("counts and shares of the whole data set were not looked at, because shards are damaged")
            return
        manifest = self._data_set.manifest
        yield from self._repeated_samples()
        for split in ("train", "eval"):
            said, found = manifest.counts.get(f"{split}_documents", 0), self._num_documents[split]
            if said != found:
                yield Problem(message=f"the {split} shards have samples of {found:,} documents; {said:,} were kept")
        said = manifest.counts.get("forced", 0)
        if self._num_forced is not None and said != self._num_forced:
            message = f"manifest.json: the count of forced is {said:,}; the shards have {self._num_forced:,}"
            yield Problem(message=message)
        try:
            stored = self._data_set.load_statistics()
        except ShardError as error:
            yield Problem(message=str(error))
            return
        for message in (
            *iter_count_faults(manifest, self._statistics, stored),
            *iter_share_faults(
                self._statistics,
                labels=self._labels,
                num_forced=manifest.counts.get("forced", 0),
                rules=self.rules,
            ),
        ):
            yield Problem(message=message)

    def _repeated_samples(self) -> Iterator[Problem]:
        """Yields that there are other repeated samples than the build has made: passes may give the same one again."""
        said = self._data_set.manifest.counts.get("repeated_samples", 0)
        message = f"{self._num_repeated:,} samples are copies of others; the build made {said:,}"
        if self._num_repeated > said and self._repeated_example is not None:
            number, (block, sample) = self._repeated_example
            shard = self._data_set.manifest.shards[number].name
            yield Problem(message=f"{message}, and this is one of them", shard=shard, block=block, sample=sample)
        elif self._num_repeated != said:
            yield Problem(message=message)

    def _misplaced_documents(self) -> Iterator[Problem]:
        """Yields shards with documents of the key range of another: each has a range of its own."""
        if self.rules.options.shards.keep_duplicates:  # whose copies have keys that lie anywhere
            return
        shards = self._data_set.manifest.shards
        # Of a merged data set each source has ranges of its own.
        ranges = sorted(self._ranges, key=lambda own: (Path(shards[own.number].name).parent, own.first, own.last))
        for before, after in itertools.pairwise(ranges):
            names = shards[before.number].name, shards[after.number].name
            if after.first <= before.last and Path(names[0]).parent == Path(names[1]).parent:
                yield Problem(
                    message=f"it has documents from the key range of {names[0]}: "
                    "a sample or a block lies in the wrong shard",
                    shard=names[1],
                )
