"""How fast a build is, stage by stage, against peers on the same text in the same run: `python -m tests.benchmarks.build`.

Every figure is MB of UTF-8 text per CPU second on one core, the median of several runs in turn. The machine decides
the figures; the ratios are what can be compared. Peers see the first few MB only, since they take long.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import sentencex
from tokenizers import Tokenizer

import bertdata.blocks
import bertdata.build
import bertdata.shards
import bertdata.tokenizing
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ShardOptions, TokenizerOptions
from bertdata.encoder import Encoder
from bertdata.launch import open_build
from bertdata.planning import ShardTask
from bertdata.sentences import split_sentences
from bertdata.tokenizing import BATCH_CHARS
from bertdata.wordpiece import Vocabulary
from bertdata.work import Work, shard_record
from tests.benchmarks import recipe
from tests.benchmarks.stages import WITHIN_SPLIT
from tests.benchmarks.tables import head, report
from tests.benchmarks.texts import LANGUAGES, Corpus, load_corpus, write_documents
from tests.benchmarks.timing import StageTimes, median_seconds

NUM_MASK_SETS = 10
LENGTHS = (128, 512)
STAGES = (
    ("reading", bertdata.build, "tokenize_portion"),
    *WITHIN_SPLIT,
    ("runs (read, sort)", bertdata.build, "_load_documents"),
    ("documents made ready", bertdata.build, "prepare_documents"),
    ("pairs", bertdata.build, "build_pairs"),
    ("masks", bertdata.blocks, "with_mask_sets"),
    ("blocks", bertdata.build, "make_block"),
    ("shard bytes", bertdata.shards.ShardWriter, "add"),
    ("all else", bertdata.build, "build_shard"),
)


def _batches(corpus: Corpus) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for document in corpus.documents:
        batch += split_sentences(document, language=corpus.language)
        size += len(document)
        if size >= BATCH_CHARS:
            yield batch
            batch, size = [], 0
    yield batch


def _measure_tokens(corpora: list[Corpus], *, num_runs: int) -> None:
    head("Tokens, cold cache")
    for corpus in corpora:
        batches = list(_batches(corpus))
        peer = [
            text for document in corpus.peer_documents for text in split_sentences(document, language=corpus.language)
        ]
        vocabulary = Vocabulary.of(corpus.tokenizer)

        def encode(batches: list[list[str]] = batches, tokenizer: Tokenizer = corpus.tokenizer) -> None:
            encoder = Encoder(tokenizer, Vocabulary.of(tokenizer))
            for batch in batches:
                encoder.encode(batch)

        ways: dict[str, Callable[[], Any]] = {"ours": encode}
        for name in ("encode_batch", "encode_batch_fast"):
            method = getattr(corpus.tokenizer, name)
            ways[name] = lambda method=method, peer=peer: [
                encoding.ids for encoding in method(peer, add_special_tokens=False)
            ]
        seconds = median_seconds(ways, num_runs=num_runs)
        rates = {f"tokenizers {name}": corpus.peer_megabytes / seconds[name] for name in list(ways)[1:]}
        distinct = Encoder(corpus.tokenizer, vocabulary, cache_words=1 << 30)
        for batch in batches:
            distinct.encode(batch)
        what = f"{corpus.name}, {corpus.megabytes:.0f} MB, {distinct.num_cached_words:,} words"
        report(what, corpus.megabytes / seconds["ours"], rates)


def _measure_sentences(corpora: list[Corpus], *, num_runs: int) -> None:
    head("Sentences")
    for corpus in corpora:
        texts = corpus.peer_documents

        def ours(texts: list[str] = texts, language: str = corpus.language) -> None:
            for text in texts:
                split_sentences(text, language=language)

        def bare(texts: list[str] = texts, language: str = corpus.language) -> None:
            for text in texts:
                for paragraph in text.split("\n"):
                    sentencex.segment(language, paragraph)

        seconds = median_seconds({"ours": ours, "sentencex alone": bare}, num_runs=num_runs)
        rate = {name: corpus.peer_megabytes / taken for name, taken in seconds.items()}
        report(corpus.name, rate.pop("ours"), rate)


@dataclass(kw_only=True)
class _Build:
    """What one build took, in CPU seconds, and how large its mask sets are, both by length."""

    tokenizing: float
    shards: dict[int, float]
    bytes_per_set: dict[int, float]
    peak_bytes: int


def _options(vocab: Path) -> BuildOptions:
    return BuildOptions(
        tokenizer=TokenizerOptions(path=str(vocab)),
        pairs=PairOptions(dupe_factor=1),
        masks=MaskOptions(num_mask_sets=NUM_MASK_SETS),
        shards=ShardOptions(eval_fraction=0),
        max_seq_lengths=LENGTHS,
    )


def _run_build(corpus: Corpus, folder: Path, *, measure_memory: bool = False) -> _Build:
    """Runs the stages of a build from a text file to shards, with nothing cached."""
    bertdata.tokenizing.make_encoder.cache_clear()
    vocab, text = folder / "tokenizer.json", folder / "text.jsonl"
    corpus.tokenizer.save(str(vocab))
    write_documents(corpus.documents, text)
    shards, samples, num_bytes = (dict.fromkeys(LENGTHS, 0.0) for _ in range(3))
    peak_bytes = 0
    with open_build([str(text)], out=folder / "out", options=_options(vocab), overwrite=True) as work:
        assert work is not None
        bertdata.build.train_tokenizer(work)
        start = time.process_time()
        for number in range(len(work.portions)):
            bertdata.build.tokenize_portion(work, number)
        tokenizing = time.process_time() - start
        tasks = bertdata.build.plan_shards(work)
        if measure_memory:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peak_bytes = pool.apply(_peak_bytes, (work.out, tasks[0]))
            work.folder.remove([shard_record(tasks[0])])
        for task in tasks:
            start = time.process_time()
            bertdata.build.build_shard(work, task)
            length = task.max_seq_length
            shards[length] += time.process_time() - start
            entry = work.read(f"shards/{length}/{task.name}.json")["entry"]
            samples[length] += entry["num_samples"]
            num_bytes[length] += entry["num_bytes"]
        bertdata.build.write_data_sets(work)
    bytes_per_set = {length: num_bytes[length] / samples[length] / NUM_MASK_SETS for length in LENGTHS}
    return _Build(tokenizing=tokenizing, shards=shards, bytes_per_set=bytes_per_set, peak_bytes=peak_bytes)


def _peak_bytes(out: str, task: ShardTask) -> int:
    """Builds one shard in this process, which has done nothing else, and returns its peak memory."""
    bertdata.build.build_shard(Work.load(out), task)
    # Not getrusage, whose figure a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def _measure_recipe(corpus: Corpus, folder: Path, *, num_runs: int) -> dict[int, dict[str, float]]:
    """Returns the MB/s of the baseline by length: pairs and masks alone, and the whole way."""
    vocabulary = Vocabulary.of(corpus.tokenizer)
    tokenized = recipe.tokenize(corpus.peer_documents, corpus.tokenizer, language=corpus.language)

    def build(length: int) -> None:
        rows = recipe.build_rows(
            tokenized,
            roles=vocabulary.roles,
            vocab_size=vocabulary.size,
            max_seq_length=length,
            num_mask_sets=NUM_MASK_SETS,
        )
        recipe.write_rows(rows, folder / "recipe.parquet")

    ways: dict[str, Callable[[], Any]] = {str(length): functools.partial(build, length) for length in LENGTHS}
    ways["tokens"] = lambda: recipe.tokenize(corpus.peer_documents, corpus.tokenizer, language=corpus.language)
    seconds = median_seconds(ways, num_runs=num_runs)
    return {
        length: {
            "pairs": corpus.peer_megabytes / seconds[str(length)],
            "whole": corpus.peer_megabytes / (seconds[str(length)] + seconds["tokens"]),
        }
        for length in LENGTHS
    }


def _measure_builds(corpora: list[Corpus], folder: Path, *, num_runs: int) -> None:
    head(f"Builds, {NUM_MASK_SETS} mask sets, one pass; the peer is the common recipe")
    profiles = []
    for corpus in corpora:
        peers = _measure_recipe(corpus, folder, num_runs=num_runs)
        builds = [_run_build(corpus, folder, measure_memory=number == 0) for number in range(num_runs)]
        tokenizing = statistics.median(build.tokenizing for build in builds)
        for length in LENGTHS:
            shards = statistics.median(build.shards[length] for build in builds)
            name, size = f"{corpus.name}, L = {length}", corpus.megabytes
            report(f"{name}, tokens to shards", size / shards, {"pairs, masks, Parquet": peers[length]["pairs"]})
            report(f"{name}, text to shards", size / (tokenizing + shards), {"the whole": peers[length]["whole"]})
        times = StageTimes()
        with times.watch(STAGES):
            _run_build(corpus, folder)
        profiles.append((corpus, builds[0], times))
    for corpus, build, times in profiles:
        total = sum(times.seconds.values())
        click.echo(f"\n{corpus.name}: L = {LENGTHS[0]} and {LENGTHS[1]} from one tokenizing, CPU seconds by stage")
        for stage, seconds in times.seconds.items():
            click.echo(f"{stage:<34} {seconds:>9.2f} s {seconds / total:>7.1%}")
        for length, size in build.bytes_per_set.items():
            click.echo(f"{f'bytes per sample and mask set, {length}':<34} {size:>9.1f}")
        click.echo(f"{'peak memory of building a shard':<34} {build.peak_bytes / 2**20:>9.0f} MiB")


@click.command(help=__doc__)
@click.option("--english", type=click.Path(path_type=Path), help="Plain text to use; default: the novels, or made up.")
@click.option("--korean", type=click.Path(path_type=Path), help="Plain text to use; default: made up.")
@click.option("--chinese", type=click.Path(path_type=Path), help="Plain text to use; default: made up.")
@click.option("--megabytes", default=60.0, show_default=True, help="Size of each text, MB.")
@click.option("--peer-megabytes", default=2.0, show_default=True, help="Size of the peers' part of it, MB.")
@click.option("--runs", default=3, show_default=True, help="Runs of each measurement.")
@click.option("--only", type=click.Choice(list(LANGUAGES)), multiple=True, help="A language to measure; default: all.")
def main(megabytes: float, peer_megabytes: float, runs: int, only: tuple[str, ...], **paths: Path | None) -> None:
    """Measures everything and prints the tables."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpora = [
            load_corpus(
                language, path=paths[language], megabytes=megabytes, peer_megabytes=peer_megabytes, folder=folder
            )
            for language in only or LANGUAGES
        ]
        _measure_tokens(corpora, num_runs=runs)
        _measure_sentences(corpora, num_runs=runs)
        _measure_builds(corpora, folder, num_runs=runs)


if __name__ == "__main__":
    main()
