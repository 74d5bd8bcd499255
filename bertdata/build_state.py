"""How far a build is, from its work folder: the records of what is done, and the files of the processes that run.

Records are listed again and again, but each is read once; the processes' files are read every time, and tell what has
been done of the portions and shards at hand. With a runner elsewhere there are none, and progress goes by records.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertdata.meter import Running, read_running
from bertdata.portions import portion_bytes
from bertdata.work import PLAN, Work, portion_record, shard_record

__all__ = ["BuildState", "Snapshot"]

_LISTING_SHARE = 0.03  # of the time may go into listing records; an object store takes long
_MANY_TOKENS = 3_000_000  # of a portion at hand: what it has read and not tokenized yet is little against that
_PAIRED = 0.3  # share of a shard's time after which its pairs are drawn; then they are masked, block by block


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """How far a build is.

    Attributes:
        stage: starting, one of `bertdata.costs.STAGES`, planning shards, or finishing.
        shares: What part of each of `STAGES` is done, from 0 to 1; the vocabulary's is 0 or 1.
        read_bytes: Of the input as stored, in the present reading of it.
        input_bytes: All of these.
        documents: Read so far.
        tokens: Of text, tokenized so far.
        tokenized_bytes: Bytes of input, as stored, that these are of.
        pairs: Of the shards so far.
        portions: Done, of the present reading.
        num_portions: All of them.
        shards: Done.
        num_shards: All of them; None before they are planned.
    """

    stage: str
    shares: dict[str, float]
    read_bytes: int
    input_bytes: int
    documents: int
    tokens: int
    tokenized_bytes: int
    pairs: int
    portions: int
    num_portions: int
    shards: int
    num_shards: int | None


class BuildState:
    """Reads how far a build is.

    Args:
        work: The build.
        clock: Seconds, for tests.

    Attributes:
        worker_memory: The most memory that a worker has had so far, in bytes; 0 where it is not known.
        workers: Ids of the processes that have run tasks.
    """

    def __init__(self, work: Work, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.worker_memory = 0
        self.workers: set[str] = set()
        self._work = work
        self._clock = clock
        self._bytes = [portion_bytes(portion) for portion in work.portions]
        self._words: set[int] = set()
        self._word_documents: dict[str, int] = {}  # read for their words, as far as seen: those records are large
        self._portions: dict[int, tuple[int, int]] = {}  # documents and tokens of those tokenized
        self._tasks: list[tuple[tuple[str, str], str]] | None = None  # what each task is called, and its record
        self._shards: dict[str, int] = {}  # pairs of those built
        self._running: dict[str, Counter[str]] = {}  # what is done of tasks without a record
        self._list_at = 0.0
        self._has_tokenizer = False

    def update(self, *, fresh: bool = False) -> Snapshot:
        """Reads what has changed, and returns how far the build is; `fresh` lists records however long that takes."""
        running = self._read_running()
        if fresh or self._clock() >= self._list_at:
            started = self._clock()
            self._read_records()
            self._running = {what: counts for what, counts in self._running.items() if what in running}
            self._list_at = self._clock() + (self._clock() - started) / _LISTING_SHARE
        self._running.update(running)
        self._running = {what: counts for what, counts in self._running.items() if not self._has_record(what)}
        return self._snapshot()

    def _has_record(self, what: str) -> bool:
        """Returns whether the task of a worker is done by its record, though the worker has not ended it yet."""
        stage, _, rest = what.partition(" ")
        if stage in ("tokenize_portion", "count_words"):
            number = rest.split()[0] if rest else ""
            return number.isdigit() and int(number) in (self._words if stage == "count_words" else self._portions)
        records = [record for names, record in (self._tasks or []) if rest in names]
        return bool(records) and all(record in self._shards for record in records)

    def _read_running(self) -> dict[str, Counter[str]]:
        folder = self._work.folder.local / "running"
        found: dict[str, Running] = {path.name: read_running(path) for path in folder.glob("*")}
        self.workers.update(found)
        self.worker_memory = max([self.worker_memory, *(running.memory for running in found.values())])
        tasks = {running.what: Counter(running.counts) for running in found.values() if running.what}
        for what, counts in tasks.items():
            if what.startswith("count_words "):
                self._word_documents[what] = counts["documents"]
        return tasks

    def _names(self, folder: str, suffix: str) -> list[str]:
        names = self._work.folder.names(folder)
        return [Path(name).name.removesuffix(suffix) for name in names if name.endswith(suffix)]

    def _read_records(self) -> None:
        work, num_portions = self._work, len(self._bytes)
        self._has_tokenizer = self._has_tokenizer or work.has("tokenizer.json")
        if not self._has_tokenizer:
            self._words = set(map(int, self._names("words", ".json")))
        elif len(self._portions) < num_portions:
            for number in set(map(int, self._names("splits", ".json"))).difference(self._portions):
                counts = work.read(portion_record(number))["counts"]
                self._portions[number] = counts.get("documents", 0), counts.get("tokens", 0)
        if len(self._portions) < num_portions:
            return
        if self._tasks is None and work.has(PLAN):
            self._tasks = [((str(task), task.name), shard_record(task)) for task in work.planned_shards()]
        if self._tasks is not None and len(self._shards) < len(self._tasks):
            for length in work.options.max_seq_lengths:
                names = [f"shards/{length}/{name}.json" for name in self._names(f"shards/{length}", ".json")]
                for name in set(names).difference(self._shards):
                    self._shards[name] = work.read(name)["counts"]["samples"]

    def _stage(self) -> str:
        if not self._has_tokenizer:
            if self._work.options.tokenizer.path is not None:
                return "starting"
            return "reading words" if len(self._words) < len(self._bytes) else "vocabulary"
        if len(self._portions) < len(self._bytes):
            return "tokenizing"
        if self._tasks is None:
            return "planning shards"
        return "building shards" if len(self._shards) < len(self._tasks) else "finishing"

    def _read_in(self, stage: str) -> Counter[str]:
        """Returns what has been read in a reading of the input: bytes, documents, tokens, portions."""
        name, done = ("count_words", self._words) if stage == "reading words" else ("tokenize_portion", self._portions)
        total = Counter(read_bytes=sum(self._bytes[number] for number in done), portions=len(done))
        if done is self._words:
            total["documents"] = sum(self._word_documents.values())
        else:
            for documents, tokens in self._portions.values():
                total.update(documents=documents, tokens=tokens)
            total["tokenized_bytes"] = total["read_bytes"]
        for what, counts in self._running.items():
            if what.startswith(f"{name} "):
                total["read_bytes"] += counts["read_bytes"]
                total["documents"] += counts["documents"] if done is self._portions else 0
                if counts["tokens"] >= _MANY_TOKENS:
                    total.update(tokens=counts["tokens"], tokenized_bytes=counts["read_bytes"])
        return total

    def _snapshot(self) -> Snapshot:
        stage, input_bytes = self._stage(), sum(self._bytes)
        read = self._read_in("reading words" if stage in ("reading words", "vocabulary") else "tokenizing")
        at_hand = [counts for what, counts in self._running.items() if what.startswith("build_shard ")]
        parts = sum(
            _PAIRED + (1 - _PAIRED) * counts["pairs"] / counts["planned_pairs"]
            for counts in at_hand
            if counts["planned_pairs"]
        )
        num_shards = len(self._tasks) if self._tasks is not None else None
        share_read = min(1.0, read["read_bytes"] / max(1, input_bytes))
        return Snapshot(
            stage=stage,
            shares={
                "reading words": share_read if stage == "reading words" else 1.0,
                "vocabulary": float(self._has_tokenizer),
                "tokenizing": share_read if self._has_tokenizer else 0.0,
                "building shards": min(1.0, (len(self._shards) + parts) / num_shards) if num_shards else 0.0,
            },
            read_bytes=min(read["read_bytes"], input_bytes),
            input_bytes=input_bytes,
            documents=read["documents"],
            tokens=read["tokens"],
            tokenized_bytes=read["tokenized_bytes"],
            pairs=sum(self._shards.values()) + sum(counts["pairs"] for counts in at_hand),
            portions=read["portions"],
            num_portions=len(self._bytes),
            shards=len(self._shards),
            num_shards=num_shards,
        )
