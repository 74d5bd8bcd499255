"""The stages of a build, run over a sample of its input and measured: what they count, make and take."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertdata import build
from bertdata.config import BuildOptions
from bertdata.meter import peak_memory
from bertdata.sampling import Place
from bertdata.wordpiece import Vocabulary, parse_tokenizer
from bertdata.work import Work, portion_record, shard_record

__all__ = ["Measured", "measure"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What the stages took over the sample.

    Attributes:
        counts: What was counted at each place.
        seconds: How long each place took to be read for its words, and to be tokenized.
        vocabulary_seconds: Time of its training.
        pairs: By length, samples made.
        pair_bytes: By length, bytes of their shards.
        shard_seconds: By length, time of building these.
        shard_tokens: By length, tokens of text in them.
        num_shards: By length, how many they were.
        memory: Peak memory: before, after tokenizing, after building shards.
        token_bytes: Bytes of a token id.
        run_bytes: Bytes of the tokenized documents in the work folder.
    """

    counts: list[Counter[str]]
    seconds: list[tuple[float, float]]
    vocabulary_seconds: float
    pairs: Counter[int]
    pair_bytes: Counter[int]
    shard_seconds: dict[int, float]
    shard_tokens: Counter[int]
    num_shards: Counter[int]
    memory: tuple[int, int, int]
    token_bytes: int
    run_bytes: int


def measure(places: Sequence[Place], *, out: str, options: BuildOptions) -> Measured:
    """Runs all stages over the places of a sample.

    Args:
        places: The sample.
        out: A folder for what the stages write.
        options: What is built.

    Raises:
        InputError: No document came out of the sample, or more bad records than allowed.
    """
    share = min(1.0, sum(place.stored_bytes for place in places) / sum(place.stands_for for place in places))
    num_shards = options.shards.num_shards
    shards = dataclasses.replace(
        options.shards, eval_fraction=0.0, num_shards=num_shards and max(1, round(num_shards * share))
    )
    work = Work(
        out=out,
        fingerprint="",
        base_fingerprint="",
        options=dataclasses.replace(options, shards=shards),
        inputs=(),
        portions=tuple(place.portion for place in places),
    )
    clock = time.perf_counter
    before = peak_memory()
    marks = [clock()]
    for number in range(len(places)):
        build.count_words(work, number)
        marks.append(clock())
    words = np.diff(marks).tolist()
    started = clock()
    build.train_tokenizer(work)
    trained = clock()
    marks = [clock()]
    for number in range(len(places)):
        build.tokenize_portion(work, number)
        marks.append(clock())
    records = [Counter[str](work.read(portion_record(number))["counts"]) for number in range(len(places))]
    tokenized = peak_memory()
    tasks = build.plan_shards(work)
    pairs, sizes, tokens, number_of = Counter[int](), Counter[int](), Counter[int](), Counter[int]()
    seconds = dict.fromkeys(options.max_seq_lengths, 0.0)
    for task in tasks:
        begun = clock()
        build.build_shard(work, task)
        seconds[task.max_seq_length] += clock() - begun
        record = work.read(shard_record(task))
        pairs[task.max_seq_length] += record["counts"]["samples"]
        sizes[task.max_seq_length] += record["entry"]["num_bytes"]
        number_of[task.max_seq_length] += 1
    for length in options.max_seq_lengths:
        tokens[length] = sum(record["tokens"] for record in records)
    vocabulary = Vocabulary.of(parse_tokenizer(work.folder.read("tokenizer.json"), where="tokenizer.json"))
    runs = work.folder.child("runs")
    return Measured(
        counts=records,
        seconds=list(zip(words, np.diff(marks).tolist(), strict=True)),
        vocabulary_seconds=trained - started,
        pairs=pairs,
        pair_bytes=sizes,
        shard_seconds=seconds,
        shard_tokens=tokens,
        num_shards=number_of,
        memory=(before, tokenized, peak_memory()),
        token_bytes=vocabulary.dtype.itemsize,
        run_bytes=sum(runs.size(name) or 0 for name in runs.names() if name.endswith(".run")),
    )
