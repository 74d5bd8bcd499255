"""The numbers of a report: one mapping from name to number, made of a manifest and statistics and nothing else.

A name says what the number can be counted from again:

    input.*     only with the input: what became of pages, documents, sentences and tokens
    shards.*    the shards alone: samples, labels, masks, vocabulary
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.data_set import DataSet
from bertdata.diagnostics import MIN_SAMPLES, guess_labels_by_length
from bertdata.manifest import DROPPED_DOCUMENTS, Manifest
from bertdata.masking import num_predictions
from bertdata.statistics import Statistics, bucket_edges, length_cell
from bertdata.wordpiece import Vocabulary

__all__ = ["INPUT", "RARE", "Number", "Numbers", "report_numbers"]

INPUT = "input."
Number = int | float | list[Any]
Numbers = dict[str, Number]
IntArray = npt.NDArray[np.int64]

_TOP_TOKENS = 30
_UNUSED_SHOWN = 100
RARE = 10  # an entry that occurs less often is rare
_NUM_RANKS = 120
_PAGES_DROPPED = ("redirects", "other_namespaces", "other_models")
_SHOWN = ("mask", "other", "same")
_THEORY = (0.8, 0.1, 0.1)


def report_numbers(data_set: DataSet, statistics: Statistics) -> Numbers:
    """Returns every number that a report shows, by name.

    Args:
        data_set: The data set; its folder is only asked for the tokenizer.
        statistics: Its statistics.
    """
    manifest = data_set.manifest
    vocabulary = data_set.load_vocabulary()
    return {
        **_reading_numbers(manifest),
        **_text_numbers(manifest, statistics),
        **_sample_numbers(manifest, statistics),
        **_label_numbers(manifest, statistics),
        **_mask_numbers(manifest, statistics),
        **_vocabulary_numbers(statistics, vocabulary),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _reading_numbers(manifest: Manifest) -> Numbers:
    """Returns what became of pages, records and documents. Each stage is the one before less what was dropped."""
    counts = Counter(manifest.counts)
    numbers: Numbers = {
        "input.pages": counts["pages"],
        "input.articles": counts["articles"],
        "input.read": counts["pages"] + counts["records"] - counts["articles"],
        "input.bytes": sum(file["bytes"] for file in manifest.inputs),
        "input.bytes_by_file": [file["bytes"] for file in manifest.inputs],
        "input.files": len(manifest.inputs),
        "input.damaged_splits": counts["damaged_splits"],
    }
    numbers |= {f"input.pages_dropped.{name}": counts[name] for name in _PAGES_DROPPED}
    numbers["input.records"] = counts["records"]
    reasons = ["empty", "too_short", *(name for name in counts if name.startswith(("filtered_", "rejected_")))]
    numbers |= {f"input.records_dropped.{name}": counts[name] for name in sorted(reasons)}
    numbers["input.documents"] = counts["documents"]
    numbers |= {f"input.documents_dropped.{name}": counts[name] for name in DROPPED_DOCUMENTS}
    numbers |= {f"input.{name}": counts[name] for name in ("documents_kept", "train_documents", "eval_documents")}
    numbers |= {f"input.languages.{language}": count for language, count in manifest.languages.items()}
    return numbers | {f"input.counts.{name}": count for name, count in manifest.counts.items()}


def _text_numbers(manifest: Manifest, statistics: Statistics) -> Numbers:
    """Returns what became of sentences and tokens, and how long documents and sentences are."""
    counts = Counter(manifest.counts)
    without_letters, without_tokens = counts["sentences_without_letters"], counts["sentences_without_tokens"]
    sentences_kept = int(statistics.sentence_tokens.sum())
    in_single = counts["one_sentence_documents"]
    tokens_kept, tokens_shown = counts["tokens_kept"], counts["tokens_shown"]
    edges = bucket_edges()
    return {
        "input.sentences_found": counts["sentences"] + without_letters + without_tokens,
        "input.sentences_dropped.without_letters": without_letters,
        "input.sentences_dropped.without_tokens": without_tokens,
        "input.sentences": counts["sentences"],
        "input.sentences_dropped.in_one_sentence_documents": in_single,
        "input.sentences_dropped.in_other_documents": (
            counts["sentences"] - in_single + counts["sentence_cuts"] - sentences_kept
        ),
        "input.sentence_cuts": counts["sentence_cuts"],
        "input.sentences_kept": sentences_kept,
        "input.tokens": counts["tokens"],
        "input.unknown_tokens": counts["unknown_tokens"],
        "input.unknown_share": _share(counts["unknown_tokens"], counts["tokens"]),
        "input.tokens_dropped": counts["tokens"] - tokens_kept,
        "input.tokens_kept": tokens_kept,
        "input.tokens_never_shown": tokens_kept - tokens_shown,
        "input.never_shown_share": _share(tokens_kept - tokens_shown, tokens_kept),
        "input.tokens_shown": tokens_shown,
        "input.shown_share": _share(tokens_shown, tokens_kept),
        **_length_numbers("input.document_tokens", statistics.document_tokens, edges, total=tokens_kept),
        **_length_numbers("input.document_sentences", statistics.document_sentences, edges, total=sentences_kept),
        **_length_numbers("input.sentence_tokens", statistics.sentence_tokens, edges, total=tokens_kept),
    }


def _length_numbers(name: str, counts: IntArray, edges: IntArray, *, total: int) -> Numbers:
    """Returns a histogram and what is told of it; a quantile is the least length of the bucket that it lies in.

    Args:
        name: What the names begin with.
        counts: int64 [B]; things by bucket.
        edges: int64 [B + 1]; where buckets begin and end.
        total: Sum of all lengths.
    """
    reached = np.cumsum(counts)
    number = int(reached[-1])
    quantiles = {"percentile_10": 0.1, "median": 0.5, "percentile_90": 0.9, "longest": 1.0}
    return {
        f"{name}.histogram": counts.tolist(),
        f"{name}.number": number,
        f"{name}.mean": _share(total, number),
        **{
            f"{name}.{quantile}": int(edges[np.searchsorted(reached, share * number)]) if number else 0
            for quantile, share in quantiles.items()
        },
    }


def _sample_numbers(manifest: Manifest, statistics: Statistics) -> Numbers:
    max_seq_length = manifest.options["pairs"]["max_seq_length"]
    lengths = statistics.sample_lengths
    tokens = sum(shard.num_tokens for shard in manifest.shards)
    samples = manifest.counts.get("samples", 0)
    return {
        "shards.samples": samples,
        "shards.train_samples": manifest.num_samples("train"),
        "shards.eval_samples": manifest.num_samples("eval"),
        "shards.train_shards": sum(shard.split == "train" for shard in manifest.shards),
        "shards.eval_shards": sum(shard.split == "eval" for shard in manifest.shards),
        "shards.bytes": sum(shard.num_bytes for shard in manifest.shards),
        "shards.tokens": tokens,
        "shards.samples_by_shard": [shard.num_samples for shard in manifest.shards],
        "shards.tokens_by_shard": [shard.num_tokens for shard in manifest.shards],
        "shards.blocks_by_shard": [shard.num_blocks for shard in manifest.shards],
        "shards.bytes_by_shard": [shard.num_bytes for shard in manifest.shards],
        "shards.full_share": _share(int(lengths[-1]), samples),
        "shards.padding_share": 1 - _share(tokens, samples * max_seq_length) if samples else 0.0,
        **_length_numbers("shards.sample_lengths", lengths, np.arange(len(lengths) + 1), total=tokens),
    }


def _label_numbers(manifest: Manifest, statistics: Statistics) -> Numbers:
    """Returns how labels are balanced, and what lengths tell of them; nothing where samples have no label."""
    if manifest.options["pairs"]["next_sentence"] == "none":
        return {}
    counts = Counter(manifest.counts)
    samples, label_1 = counts["samples"], counts["not_next"]
    by_label = statistics.segment_lengths.sum(axis=0)
    numbers: Numbers = {
        "shards.label_0": samples - label_1,
        "shards.label_1": label_1,
        "shards.label_0_share": _share(samples - label_1, samples),
        "shards.label_1_share": _share(label_1, samples),
        "input.forced": counts["forced"],
        "input.forced_share": _share(counts["forced"], samples),
        "input.label_1_free": label_1 - counts["forced"],
        "input.label_1_free_share": _share(label_1 - counts["forced"], samples),
        "shards.length_cell": length_cell(manifest.options["pairs"]["max_seq_length"]),
        "shards.a_lengths": by_label.sum(axis=2).tolist(),
        "shards.pair_lengths": by_label.sum(axis=1).tolist(),
    }
    if by_label.sum() >= MIN_SAMPLES:
        numbers["shards.label_guess"] = guess_labels_by_length(statistics.segment_lengths)
    return numbers


def _mask_numbers(manifest: Manifest, statistics: Statistics) -> Numbers:
    """Returns what is predicted and shown, and what theory says; nothing where no mask sets are stored."""
    masks = manifest.options["masks"]
    num_sets, probability = masks["num_mask_sets"], masks["masked_lm_prob"]
    if not num_sets:
        return {}
    lengths = np.arange(len(statistics.sample_lengths))
    specials = 2 if manifest.options["pairs"]["next_sentence"] == "none" else 3
    by_rule = num_predictions(
        lengths, masked_lm_prob=probability, max_predictions_per_seq=masks["max_predictions_per_seq"]
    )
    by_rule = np.minimum(by_rule, np.maximum(lengths - specials, 0))
    positions = num_sets * sum(shard.num_tokens for shard in manifest.shards)
    predictions = int(statistics.shown.sum())
    numbers: Numbers = {
        "shards.predictions": predictions,
        "shards.predictions_by_rule": num_sets * int(by_rule @ statistics.sample_lengths),
        "shards.predicted_share": _share(predictions, positions),
        "shards.predicted_share_in_theory": probability,
        "shards.predictions_per_set": _share(predictions, num_sets * manifest.counts.get("samples", 0)),
        "shards.prediction_places": statistics.prediction_places.tolist(),
        "shards.expected_places": statistics.expected_places.tolist(),
        "shards.place_deviation": _largest_deviation(statistics.prediction_places, statistics.expected_places),
    }
    for name, count, theory in zip(_SHOWN, statistics.shown.tolist(), _THEORY, strict=True):
        numbers |= {
            f"shards.shown_{name}": count,
            f"shards.shown_{name}_share": _share(count, predictions),
            f"shards.shown_{name}_share_in_theory": theory,
            f"shards.shown_{name}_of_tokens": _share(count, positions),
            f"shards.shown_{name}_of_tokens_in_theory": probability * theory,
        }
    return numbers


def _largest_deviation(found: IntArray, expected: npt.NDArray[np.float64]) -> float:
    """Returns the largest relative difference of what was found from what was expected."""
    is_possible = expected > 0
    return float(np.abs(found[is_possible] / expected[is_possible] - 1).max(initial=0))


def _vocabulary_numbers(statistics: Statistics, vocabulary: Vocabulary) -> Numbers:
    """Returns how the entries of the vocabulary are used by the samples; [CLS] and [SEP] are left out."""
    counts = statistics.token_counts.copy()
    counts[[token for role, token in vocabulary.roles.items() if role != "unk"]] = 0
    ordinary = counts[vocabulary.ordinary]
    order = np.lexsort((np.arange(len(counts)), -counts))
    falling = counts[order]
    used = int((counts > 0).sum())
    ranks = np.unique(np.geomspace(1, used, _NUM_RANKS).astype(np.int64)) if used else np.zeros(0, dtype=np.int64)
    numbers: Numbers = {
        "shards.text_tokens": int(counts.sum()),
        "shards.ids": vocabulary.size,
        "shards.entries": len(ordinary),
        "shards.unused_entries": int((ordinary == 0).sum()),
        "shards.unused_share": _share(int((ordinary == 0).sum()), len(ordinary)),
        "shards.rare_entries": int(((ordinary > 0) & (ordinary < RARE)).sum()),
        "shards.entries_of_half": int(np.searchsorted(np.cumsum(falling[:used]), counts.sum() / 2) + 1) if used else 0,
        "shards.top_tokens": order[: min(_TOP_TOKENS, used)].tolist(),
        "shards.top_token_counts": falling[: min(_TOP_TOKENS, used)].tolist(),
        "shards.unused_tokens": vocabulary.ordinary[ordinary == 0][:_UNUSED_SHOWN].tolist(),
        "shards.ranks": ranks.tolist(),
        "shards.rank_counts": falling[ranks - 1].tolist(),
    }
    if vocabulary.starts_word is not None:
        words = int(counts[vocabulary.starts_word].sum())
        numbers |= {"shards.words": words, "shards.pieces_per_word": _share(int(counts.sum()), words)}
    return numbers
