"""What a build will make and take, measured on a sample: `bertdata build --dry-run`.

The stages themselves run over the sample, in a temporary folder. What they count and how long they take is multiplied
up to the whole input; the shards are planned from the multiplied counts by the planner itself. What a sample cannot
show is left out: copies of a document far from each other count as documents.
"""

from __future__ import annotations

import heapq
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertdata.config import BuildOptions
from bertdata.costs import TOKENS_PER_BYTE
from bertdata.errors import InputError
from bertdata.measuring import Measured, measure
from bertdata.planning import ShardTask, plan_tasks
from bertdata.portions import Portion, portion_bytes
from bertdata.sampling import SAMPLE_TEXT_BYTES, Place, sample_places
from bertdata.spill import BIN_BITS

__all__ = ["Estimate", "estimate_build"]

# Measured: until the first task begins, the end of a build after its last shard, what Beam takes in a worker, and what
# the launcher takes.
_START_SECONDS = 5.0
_END_SECONDS = 1.0
_BEAM_BYTES = 90 << 20
_LAUNCHER_BYTES = 115 << 20

_VOCABULARY_POWER = 0.8  # training takes less than twice as long for twice the text: most of its words are the same
_WORDS_SHARE = 0.2  # bytes of counted words per byte of text
_WARM_UP = 3  # the first third of the places fills the tokenizer's cache; the others show its usual speed


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a build will make and take.

    Attributes:
        num_files: Files of input.
        input_bytes: Their bytes as stored.
        sampled_bytes: Those of them that were read for this.
        num_portions: Tasks that read them.
        documents: Documents, copies included.
        sentences: Sentences of text.
        tokens: Tokens of text.
        train_pairs: Samples for training, of all lengths.
        eval_pairs: Samples for evaluation, of all lengths.
        train_shards: Shards for training.
        eval_shards: Shards for evaluation.
        shard_bytes: Bytes of all shards.
        peak_disk_bytes: Bytes that work folder and shards take together when the last shard is built.
        seconds: Time with so many workers.
        num_workers: Worker processes.
        worker_memory: Peak memory of a worker in bytes.
        launcher_memory: Peak memory of the launcher in bytes.
    """

    num_files: int
    input_bytes: int
    sampled_bytes: int
    num_portions: int
    documents: int
    sentences: int
    tokens: int
    train_pairs: int
    eval_pairs: int
    train_shards: int
    eval_shards: int
    shard_bytes: int
    peak_disk_bytes: int
    seconds: float
    num_workers: int
    worker_memory: int
    launcher_memory: int


def estimate_build(
    portions: Sequence[Portion],
    *,
    options: BuildOptions,
    num_workers: int,
    text_bytes: float = SAMPLE_TEXT_BYTES,
) -> Estimate:
    """Measures a sample of the input, and tells what the whole will take.

    Args:
        portions: The input.
        options: What to build.
        num_workers: Worker processes of the build.
        text_bytes: About how many bytes of text to read.

    Raises:
        InputError: No document came out of the sample, or more bad records than allowed.
    """
    with tempfile.TemporaryDirectory(prefix="bertdata-dry-run-") as name:
        (Path(name) / "input").mkdir()
        places = sample_places(portions, options=options.read, folder=Path(name) / "input", text_bytes=text_bytes)
        measured = measure(places, out=str(Path(name) / "out"), options=options)
    return _extrapolate(portions, places, measured, options=options, num_workers=num_workers)


def _rate(places: Sequence[Place], seconds: Sequence[float]) -> tuple[float, float]:
    """Returns the seconds of a byte of input, and those that a worker takes once for its first ones."""
    warm = range(len(places) // _WARM_UP if len(places) > 2 * _WARM_UP else 0, len(places))
    num_bytes = sum(places[number].stands_for for number in warm)
    per_byte = (
        sum(places[number].weight * (seconds[number] + places[number].unpack_seconds) for number in warm) / num_bytes
    )
    extra = sum(
        seconds[number] + places[number].unpack_seconds - per_byte * places[number].stored_bytes
        for number in range(warm.start)
    )
    return per_byte, max(0.0, extra)


def _makespan(costs: Iterable[float], num_workers: int) -> float:
    """Returns when the last of some tasks ends, each given in turn to the worker that is free first."""
    free = [0.0] * num_workers
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def _plan(totals: Counter[str], *, options: BuildOptions, token_bytes: int) -> list[ShardTask]:
    """Plans the shards of the extrapolated counts, spread evenly over the bins of keys as hashes do."""
    bins = 1 << BIN_BITS
    edges = np.arange(bins + 1, dtype=np.float64) / bins
    histogram = np.stack([np.diff(np.floor(edges * totals[name])) for name in ("documents", "tokens")], axis=1).astype(
        np.int64
    )
    return [
        task
        for length in options.max_seq_lengths
        for task in plan_tasks(histogram, options=options.for_length(length), token_bytes=token_bytes)
    ]


def _extrapolate(
    portions: Sequence[Portion],
    places: Sequence[Place],
    measured: Measured,
    *,
    options: BuildOptions,
    num_workers: int,
) -> Estimate:
    totals: Counter[str] = Counter()
    for name in ("documents", "sentences", "tokens"):
        totals[name] = round(
            sum(place.weight * counts[name] for place, counts in zip(places, measured.counts, strict=True))
        )
    if not totals["tokens"]:
        raise InputError(
            "no document came out of the sample of the input; check --input, --format and the other options"
        )
    tasks = _plan(totals, options=options, token_bytes=measured.token_bytes)
    share_of = {task: (task.last_bin - task.first_bin) / (1 << BIN_BITS) for task in tasks}
    pairs: Counter[str] = Counter()
    shard_bytes, shard_costs = 0.0, []
    for task in tasks:
        length = task.max_seq_length
        scale = share_of[task] * totals["tokens"] / measured.shard_tokens[length]
        pairs[task.split] += round(scale * measured.pairs[length])
        shard_bytes += scale * measured.pair_bytes[length]
        shard_costs.append(scale * measured.shard_seconds[length])
    sizes = [portion_bytes(portion) for portion in portions]
    word_rate, word_extra = _rate(places, [seconds for seconds, _ in measured.seconds])
    token_rate, token_extra = _rate(places, [seconds for _, seconds in measured.seconds])
    input_bytes, sampled_bytes = sum(sizes), sum(place.stored_bytes for place in places)
    text_scale = totals["tokens"] / max(1, sum(counts["tokens"] for counts in measured.counts))
    seconds = _START_SECONDS + _END_SECONDS + measured.vocabulary_seconds
    if options.tokenizer.path is None:
        most = options.tokenizer.sample_bytes / _text_bytes(measured)
        seconds += measured.vocabulary_seconds * (max(1.0, min(text_scale, most)) ** _VOCABULARY_POWER - 1)
        seconds += word_extra + _makespan((size * word_rate for size in sizes), num_workers)
    seconds += token_extra + _makespan((size * token_rate for size in sizes), num_workers)
    seconds += _makespan(shard_costs, num_workers)
    return Estimate(
        num_files=len({split.path for portion in portions for split in portion}),
        input_bytes=input_bytes,
        sampled_bytes=sampled_bytes,
        num_portions=len(portions),
        documents=totals["documents"],
        sentences=totals["sentences"],
        tokens=totals["tokens"],
        train_pairs=pairs["train"],
        eval_pairs=pairs["eval"],
        train_shards=sum(task.split == "train" for task in tasks),
        eval_shards=sum(task.split == "eval" for task in tasks),
        shard_bytes=round(shard_bytes),
        peak_disk_bytes=round(shard_bytes + _work_bytes(totals, measured, options=options)),
        seconds=seconds,
        num_workers=num_workers,
        worker_memory=_worker_memory(tasks, share_of=share_of, totals=totals, measured=measured) + _BEAM_BYTES,
        launcher_memory=_LAUNCHER_BYTES,
    )


def _text_bytes(measured: Measured) -> float:
    """Returns about how many bytes of text the sample has."""
    return sum(counts["tokens"] for counts in measured.counts) / TOKENS_PER_BYTE


def _work_bytes(totals: Counter[str], measured: Measured, *, options: BuildOptions) -> float:
    """Returns the bytes of the work folder: runs, and the words that a vocabulary is trained on."""
    runs = measured.run_bytes * totals["tokens"] / sum(counts["tokens"] for counts in measured.counts)
    if options.tokenizer.path is not None:
        return runs
    return runs + _WORDS_SHARE * min(totals["tokens"] / TOKENS_PER_BYTE, 4 * options.tokenizer.sample_bytes)


def _worker_memory(
    tasks: Sequence[ShardTask], *, share_of: dict[ShardTask, float], totals: Counter[str], measured: Measured
) -> int:
    """Returns the peak memory of a worker without Beam: that of tokenizing, or of the largest shard."""
    before, tokenized, built = measured.memory
    if built <= tokenized:
        return tokenized
    largest = 0.0
    for task in tasks:
        length = task.max_seq_length
        own = measured.shard_tokens[length] / measured.num_shards[length]
        largest = max(largest, share_of[task] * totals["tokens"] / own)
    return max(tokenized, round(before + (built - before) * max(1.0, largest)))
