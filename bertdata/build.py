"""The build: stages over a work folder, each a plain function of a small record.

The input is worked on in portions: a split of a large file, or several small files; see `bertdata.portions`.

    count_words       a portion        -> the words in it              (where a vocabulary is trained)
    train_tokenizer   all portions     -> the tokenizer
    tokenize_portion  a portion        -> sorted runs of token ids
    plan_shards       all portions     -> the shards, from exact counts
    build_shard       a range of keys  -> a shard
    write_data_sets   all shards       -> the data sets

`build_serially` runs them one after the other; `pipelines.build` runs the same functions on Apache Beam. A stage that
finds its record in the work folder has been done and is not done again.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertdata.blocks import make_block
from bertdata.commit import write_data_set
from bertdata.counting import count_block, count_documents, count_shown_tokens
from bertdata.documents import Reject
from bertdata.errors import ConfigError, InputError
from bertdata.manifest import ShardEntry
from bertdata.masking import sample_keys
from bertdata.meter import count
from bertdata.pairs import build_pairs
from bertdata.planning import ShardTask, plan_tasks
from bertdata.prepare import find_excluded, prepare_documents
from bertdata.ranges import add_up_bins, read_ranges, write_ranges
from bertdata.rejects import check_damage, check_rejects, keep_rejects, write_rejects
from bertdata.run_reading import read_runs
from bertdata.runs import Run
from bertdata.shards import block_name, open_shard
from bertdata.spill import Documents
from bertdata.statistics import Statistics
from bertdata.tokenizing import load_encoder, tokenize_portion
from bertdata.vocabulary import train_wordpiece
from bertdata.vocabulary_sample import count_words_of_portion, read_vocabulary_sample
from bertdata.wordpiece import Vocabulary, encode_tokenizer, load_tokenizer
from bertdata.work import PLAN, Work, portion_record, shard_record, shard_statistics

__all__ = [
    "build_serially",
    "build_shard",
    "count_words",
    "plan_shards",
    "tokenize_portion",
    "train_tokenizer",
    "write_data_sets",
]

WORDLESS_LANGUAGES = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})


def count_words(work: Work, number: int) -> int:
    """Counts the words of one portion where a vocabulary is to be trained; returns the portion's number."""
    if work.options.tokenizer.path is None:
        count_words_of_portion(
            work.folder,
            number,
            work.portions[number],
            options=work.options.read,
            sample_bytes=work.options.tokenizer.sample_bytes,
            keep_rejects_in=work.out_folder,
        )
    return number


def train_tokenizer(work: Work) -> None:
    """Writes the tokenizer of the build: the given one, or one trained on the words of all portions."""
    if work.has("tokenizer.json"):
        return
    options = work.options.tokenizer
    if options.path is not None:
        tokenizer = load_tokenizer(options.path, lowercase=options.lowercase, strip_accents=options.strip_accents)
    else:
        sample = read_vocabulary_sample(work.folder, num_portions=len(work.portions), sample_bytes=options.sample_bytes)
        tokenizer = train_wordpiece(sample, options=options)
    if not Vocabulary.of(tokenizer).marks_all_words and work.options.masks.whole_word_mask:
        raise ConfigError(
            "--whole-word-mask needs a tokenizer whose pieces tell where every word begins; those of "
            f"{options.path} do not"
        )
    for name, data in encode_tokenizer(tokenizer).items():
        work.folder.write(name, data)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Totals:
    """What all portions have counted.

    Attributes:
        counts: Counts.
        languages: Documents by language.
        rejects: The first 20 bad records, and the first that ends a build if it is not among them.
        runs: All runs.
    """

    counts: Counter[str]
    languages: Counter[str]
    rejects: list[Reject]
    runs: list[Run]

    @classmethod
    def of(cls, work: Work) -> _Totals:
        """Adds up the records of all portions, one at a time."""
        totals = cls(counts=Counter(), languages=Counter(), rejects=[], runs=[])
        for number in range(len(work.portions)):
            record = work.read(portion_record(number))
            totals.counts.update(record["counts"])
            totals.languages.update(record["languages"])
            totals.runs.extend(Run(*run) for run in record["runs"])
            keep_rejects(totals.rejects, (Reject(**reject) for reject in record["rejects"]))
        return totals


def _check_words_are_known(languages: Counter[str]) -> None:
    unknown = sum(count for language, count in languages.items() if language.split("-")[0] in WORDLESS_LANGUAGES)
    if 20 * unknown > languages.total():
        raise ConfigError(
            f"--whole-word-mask: {unknown:,} of {languages.total():,} documents are in languages without spaces "
            f"({', '.join(sorted(WORDLESS_LANGUAGES))}), where the tokenizer does not know words; leave it out"
        )


def plan_shards(work: Work) -> list[ShardTask]:
    """Plans the shards of all data sets from the exact counts of all portions, once; the plan is kept.

    Raises:
        InputError: No document came out of the input, or more bad records than allowed.
    """
    totals = _Totals.of(work)
    if totals.rejects:
        write_rejects(work.out_folder, totals.rejects)
    check_rejects(totals.counts, totals.rejects, max_rejects=work.options.read.max_rejects, keep_in=None)
    check_damage(totals.counts, totals.rejects, skip_bad_splits=work.options.read.skip_bad_splits)
    if work.options.masks.whole_word_mask:
        _check_words_are_known(totals.languages)
    if work.has(PLAN):
        return work.planned_shards()
    if not totals.runs:
        found = ", ".join(f"{count:,} {name}" for name, count in sorted(totals.counts.items()) if count)
        raise InputError(
            f"no document came out of the input ({found or 'the files are empty'}); "
            "check --input, --format and --min-document-chars"
        )
    histogram = add_up_bins(work.runs_folder, totals.runs)
    token_bytes = load_encoder(work)[1].dtype.itemsize
    tasks = [
        task
        for length in work.options.max_seq_lengths
        for task in plan_tasks(histogram, options=work.options.for_length(length), token_bytes=token_bytes)
    ]
    write_ranges(work.folder, work.runs_folder, totals.runs, tasks=tasks)
    # Last of all: a plan that is there is whole.
    plan = {"tasks": [dataclasses.asdict(task) for task in tasks]}
    work.write(PLAN, plan | {"counts": totals.counts, "languages": totals.languages})
    return tasks


def _load_documents(work: Work, task: ShardTask, *, dtype: np.dtype[Any]) -> Documents:
    parts = read_ranges(work.folder, task)
    return read_runs(work.runs_folder, parts, first_bin=task.first_bin, last_bin=task.last_bin, dtype=dtype)


def build_shard(work: Work, task: ShardTask) -> str:
    """Builds one shard out of all runs; returns its file name."""
    name = shard_record(task)
    folder = work.data_set_folder(task.max_seq_length)
    is_done = work.has(name) and work.has(shard_statistics(task))
    if is_done and folder.size(task.name) == work.read(name)["entry"]["num_bytes"]:
        return task.name
    options = work.options.for_length(task.max_seq_length)
    _, vocabulary = load_encoder(work)
    counts: Counter[str] = Counter()
    documents = _load_documents(work, task, dtype=vocabulary.dtype)
    excluded = find_excluded(documents, excluded=options.shards.excluded_documents)
    documents = prepare_documents(documents, counts, options=options, vocabulary=vocabulary)
    pairs = build_pairs(documents, options=options.pairs, seed=options.seed)
    count(planned_pairs=len(pairs))
    labels = pairs.next_sentence_label
    counts.update(samples=len(pairs), not_next=int(labels.sum()), forced=int(pairs.is_forced.sum()))
    counts.update(tokens_kept=len(documents.tokens), tokens_shown=count_shown_tokens(pairs))
    empty = Statistics.empty(max_seq_length=task.max_seq_length, vocab_size=vocabulary.size)
    statistics = count_documents(documents, empty=empty)
    hashes = [np.zeros(0, dtype=np.uint64)]
    with open_shard(folder, task.name) as writer:
        for number, start in enumerate(range(0, len(pairs), options.shards.block_size)):
            rows = np.arange(start, min(start + options.shards.block_size, len(pairs)))
            block = make_block(documents, pairs.take(rows), options=options, vocabulary=vocabulary)
            writer.add(block, name=block_name(task.split, task.number, number))
            count(pairs=len(rows))
            hashes.append(sample_keys(block, key=0))
            statistics += count_block(
                block,
                empty=empty,
                mask_token=vocabulary.roles["mask"],
                has_labels=options.pairs.next_sentence != "none",
            )
    counts["repeated_samples"] = len(pairs) - len(np.unique(np.concatenate(hashes)))
    work.folder.write(shard_statistics(task), statistics.to_npz())
    entry = ShardEntry(
        name=task.name,
        split=task.split,
        num_samples=len(pairs),
        num_blocks=len(writer.entries),
        num_tokens=sum(block.num_tokens for block in writer.entries),
        num_bytes=writer.num_bytes,
        sha256=writer.sha256,
    )
    blocks = [dataclasses.asdict(block) for block in writer.entries]
    work.write(name, {"entry": dataclasses.asdict(entry), "blocks": blocks, "counts": counts, "excluded": excluded})
    count(shards=1, shard_bytes=entry.num_bytes)
    return task.name


def write_data_sets(work: Work) -> None:
    """Writes tokenizer, index, statistics and, last of all, the manifest of each data set."""
    plan, tasks = work.read(PLAN), work.planned_shards()
    counts, languages = Counter(plan["counts"]), Counter(plan["languages"])
    _, vocabulary = load_encoder(work)
    for length in work.options.max_seq_lengths:
        own = [task for task in tasks if task.max_seq_length == length]
        write_data_set(work, own, counts=counts, languages=languages, vocabulary=vocabulary)


def build_serially(work: Work) -> None:
    """Runs all stages in this process, one after the other: the oracle of every other way to run them."""
    numbers = range(len(work.portions))
    for number in numbers:
        count_words(work, number)
    train_tokenizer(work)
    for number in numbers:
        tokenize_portion(work, number)
    for task in plan_shards(work):
        build_shard(work, task)
    write_data_sets(work)
