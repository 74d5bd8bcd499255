"""Are two samples of pairs of one distribution? What can be seen of them is compared, statistic by statistic.

A unit is a document in one pass. One instance of each unit is looked at, and counts of each unit, so that the
observations of a statistic are independent.
"""

from dataclasses import dataclass
from random import Random

import numpy as np
from scipy import stats

from bertdata.seeds import hash64, unit
from tests.bertdata.google_pairs import GooglePairs
from tests.bertdata.pair_corpora import documents_of, pairs_of

Columns = dict[str, np.ndarray]
COLUMNS = ("unit", "document", "b_document", "label", "a_start", "a_stop", "b_start", "b_stop")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Lengths of the sentences of each document, and how pairs are made of them."""

    lengths: list[list[int]]
    max_seq_length: int
    short_seq_prob: float = 0.1
    passes: int = 20


def built_instances(corpus: Corpus, mode: str) -> Columns:
    """The instances that `build_pairs` gives, those of a unit in the order of the document."""
    documents = documents_of(corpus.lengths)
    parts = []
    for number in range(corpus.passes):
        pairs = pairs_of(
            documents,
            mode,
            seed=number,
            max_seq_length=corpus.max_seq_length,
            short_seq_prob=corpus.short_seq_prob,
        )
        row, b_row = pairs.documents.T
        spans = (pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop)
        parts.append((number * len(documents) + row, row, b_row, pairs.next_sentence_label.astype(np.int64), *spans))
    columns = dict(zip(COLUMNS, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    if mode == "sop":
        columns = in_order(columns)
    order = np.lexsort((columns["a_start"], columns["unit"]))
    return {name: column[order] for name, column in columns.items()}


def oracle_instances(corpus: Corpus, oracle: type[GooglePairs], *, seed: int, share: float = 1.0) -> Columns:
    """The instances that an oracle gives, in a share of the passes."""
    tokens = iter(range(10**9))
    documents = [[[next(tokens) for _ in range(length)] for length in document] for document in corpus.lengths]
    pairs = oracle(
        documents,
        max_seq_length=corpus.max_seq_length,
        short_seq_prob=corpus.short_seq_prob,
        rng=Random(seed),
    )
    rows = []
    for number in range(round(corpus.passes * share)):
        for row in range(len(documents)):
            for it in pairs.instances(row):
                spans = (it.a[0], it.a[-1] + 1, it.b[0], it.b[-1] + 1)
                rows.append((number * len(documents) + row, row, it.b_document, it.label, *spans))
    columns = dict(zip(COLUMNS, np.array(rows).T, strict=True))
    return in_order(columns) if oracle.swaps else columns


def in_order(columns: Columns) -> Columns:
    """Swaps the segments of sentence order back where the label says that they are swapped."""
    swapped = columns["label"] == 1
    names = ("a_start", "a_stop", "b_start", "b_stop")
    others = zip(names, names[2:] + names[:2], strict=True)
    return columns | {name: np.where(swapped, columns[other], columns[name]) for name, other in others}


def observations(corpus: Corpus, instances: Columns, *, seed: int) -> Columns:
    """Integers that can be seen of one instance of each unit, and of each unit."""
    documents = documents_of(corpus.lengths)
    offsets = documents.token_offsets
    sentence_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    seen = instances
    first_a, last_a = sentence_of[seen["a_start"]], sentence_of[seen["a_stop"] - 1]
    first_b, last_b = sentence_of[seen["b_start"]], sentence_of[seen["b_stop"] - 1]
    is_last = np.append(seen["unit"][1:] != seen["unit"][:-1], True)
    # Sentences from the end of A to the beginning of the next instance: 1 where all unused ones are put back.
    gap = np.where(is_last, -1, np.append(first_a[1:], 0) - last_a)
    length_a, length_b = seen["a_stop"] - seen["a_start"], seen["b_stop"] - seen["b_start"]
    left_of_document = offsets[documents.sentence_offsets[seen["document"] + 1]] - seen["a_stop"]
    each = {
        "label": seen["label"],
        "length_a": length_a,
        "length_b": length_b,
        "length_by_label": 1000 * seen["label"] + length_a + length_b,
        "difference_by_label": 1000 * seen["label"] + length_a - length_b,
        "sentences_a": last_a - first_a,
        "sentences_b": last_b - first_b,
        "sentences_a_of_chunk": np.where(seen["label"] == 0, 100 * (last_b - first_a) + last_a - first_a, -1),
        "missing_front_a": seen["a_start"] - offsets[first_a],
        "missing_back_a": offsets[last_a + 1] - seen["a_stop"],
        "missing_front_b": seen["b_start"] - offsets[first_b],
        "missing_back_b": offsets[last_b + 1] - seen["b_stop"],
        "missing_fronts": 100 * (seen["a_start"] - offsets[first_a]) + seen["b_start"] - offsets[first_b],
        "missing_of_a": 100 * (seen["a_start"] - offsets[first_a]) + offsets[last_a + 1] - seen["a_stop"],
        "shorter_than_rest": np.where(seen["label"] == 1, np.clip(left_of_document - length_b, -20, 20), -99),
        "gap_by_label": 1000 * seen["label"] + gap,
        "is_same_document": 2 * seen["label"] + (seen["document"] == seen["b_document"]),
        "start_b": np.where(seen["label"] == 1, first_b - documents.sentence_offsets[seen["b_document"]], -1),
        "left_b": np.where(seen["label"] == 1, documents.sentence_offsets[seen["b_document"] + 1] - first_b, -1),
    }
    if len(documents) < 10:
        each["documents"] = seen["document"] * 10 + seen["b_document"] + 100 * seen["label"]
    starts = np.flatnonzero(np.append(True, ~is_last[:-1] ^ True))
    counts = np.diff(np.append(starts, len(is_last)))
    picked = starts + (unit(hash64(seed, np.arange(len(starts)))) * counts).astype(np.int64)
    values = {name: value[picked] for name, value in each.items()}
    values["first_sentences_a"] = each["sentences_a"][starts]
    values["first_length"] = (length_a + length_b)[starts]
    values["num_instances"] = counts
    values["num_random_by_num"] = 100 * counts + np.add.reduceat(seen["label"], starts)
    number = np.arange(len(is_last)) - np.repeat(starts, counts)
    left = np.repeat(counts, counts) - 1 - number
    for name, place in (("first_labels", number), ("last_labels", left)):
        digits = np.where(place < 4, (1 + seen["label"]) * 3 ** np.minimum(place, 4), 0)
        values[name] = np.add.reduceat(digits, starts)
    return values


def smallest_p(ours: Columns, theirs: Columns) -> float:
    """Smallest p value of a chi-square test over all statistics, times their number."""
    values = []
    for name in ours:
        both = np.concatenate([ours[name], theirs[name]])
        _, index = np.unique(both, return_inverse=True)
        table = np.stack([np.bincount(part, minlength=index.max() + 1) for part in np.split(index, [len(ours[name])])])
        rare = table.sum(axis=0) < 20
        table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
        table = table[:, table.sum(axis=0) > 0]
        if table.shape[1] > 1:
            values.append(stats.chi2_contingency(table).pvalue)
    return min(values) * len(values)
