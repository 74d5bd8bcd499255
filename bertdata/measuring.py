"""The stages of a build, run over a sample of its input and measured: what they count, make and take."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shards:
    """What building the shards took and gave, by length; see `Measured`."""

    pairs: Counter[int]
    pair_bytes: Counter[int]
    seconds: dict[int, float]
    number: Counter[int]


def measure(places: Sequence[Place], *, out: str, options: BuildOptions) -> Measured:
    """Runs all stages over the places of a sample.

    Args:
        places: The sample.
        out: A folder for what the stages write.
        options: What is built.

    Raises:
        InputError: No document came out of the sample, or more bad records than allowed.
    """
    work = Work(
        out=out,
        fingerprint="",
        base_fingerprint="",
        options=_options_for(places, options=options),
        inputs=(),
        portions=tuple(place.portion for place in places),
    )
    numbers = range(len(places))
    before = peak_memory()
    words = [_seconds_of(build.count_words, work, number) for number in numbers]
    vocabulary_seconds = _seconds_of(build.train_tokenizer, work)
    tokenizing = [_seconds_of(build.tokenize_portion, work, number) for number in numbers]
    counts = [Counter[str](work.read(portion_record(number))["counts"]) for number in numbers]
    tokenized = peak_memory()
    shards = _build_shards(work)
    num_tokens = sum(record["tokens"] for record in counts)
    vocabulary = Vocabulary.of(parse_tokenizer(work.folder.read("tokenizer.json"), where="tokenizer.json"))
    runs = work.runs_folder
    return Measured(
        counts=counts,
        seconds=list(zip(words, tokenizing, strict=True)),
        vocabulary_seconds=vocabulary_seconds,
        pairs=shards.pairs,
        pair_bytes=shards.pair_bytes,
        shard_seconds=shards.seconds,
        shard_tokens=Counter(dict.fromkeys(options.max_seq_lengths, num_tokens)),
        num_shards=shards.number,
        memory=(before, tokenized, peak_memory()),
        token_bytes=vocabulary.dtype.itemsize,
        run_bytes=sum(runs.size(name) or 0 for name in runs.names() if name.endswith(".run")),
    )


def _options_for(places: Sequence[Place], *, options: BuildOptions) -> BuildOptions:
    """Returns the options of a build of the sample: its part of the shards, and nothing held out."""
    share = min(1.0, sum(place.stored_bytes for place in places) / sum(place.stands_for for place in places))
    num_shards = options.shards.num_shards
    if num_shards is not None:
        num_shards = max(1, round(num_shards * share))
    return dataclasses.replace(
        options, shards=dataclasses.replace(options.shards, eval_fraction=0.0, num_shards=num_shards)
    )


def _seconds_of(stage: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    stage(*arguments)
    return time.perf_counter() - started


def _build_shards(work: Work) -> _Shards:
    shards = _Shards(
        pairs=Counter(),
        pair_bytes=Counter(),
        seconds=dict.fromkeys(work.options.max_seq_lengths, 0.0),
        number=Counter(),
    )
    for task in build.plan_shards(work):
        length = task.max_seq_length
        shards.seconds[length] += _seconds_of(build.build_shard, work, task)
        record = work.read(shard_record(task))
        shards.pairs[length] += record["counts"]["samples"]
        shards.pair_bytes[length] += record["entry"]["num_bytes"]
        shards.number[length] += 1
    return shards
