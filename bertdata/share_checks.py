"""What must hold of a data set as a whole: counts that add up, and shares that chance allows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bertdata.block_checks import BlockRules
from bertdata.manifest import DROPPED_DOCUMENTS, Manifest
from bertdata.statistics import Statistics

__all__ = ["iter_count_faults", "iter_share_faults"]

_DEVIATIONS = 6  # standard deviations that no share is off by chance: once in 500 million
_BALANCED_SLACK = 0.02  # labels of a document are balanced, but for what its end adds


def iter_count_faults(manifest: Manifest, counted: Statistics, stored: Statistics) -> Iterator[str]:
    """Yields where the manifest, the stored statistics and what was counted now contradict each other.

    Args:
        manifest: The data set's manifest.
        counted: Counted from the shards.
        stored: From `statistics.json`.
    """
    for name in counted.differing(stored):
        yield f"statistics.json: {name} are not those of the shards"
    counts = manifest.counts
    num_samples = int(counted.sample_lengths.sum())
    for name, found in (
        ("train_samples", manifest.num_samples("train")),
        ("eval_samples", manifest.num_samples("eval")),
        ("samples", num_samples),
        ("not_next", int(counted.segment_lengths[:, 1].sum())),
    ):
        if counts.get(name, 0) != found:
            yield f"manifest.json: the count of {name} is {counts.get(name, 0):,}; the shards have {found:,}"
    for whole, parts in (
        ("documents", ("documents_kept", *DROPPED_DOCUMENTS)),
        ("documents_kept", ("train_documents", "eval_documents")),
        ("pages", ("articles", "redirects", "other_namespaces", "other_models")),
    ):
        total = sum(counts.get(part, 0) for part in parts)
        if counts.get(whole, total) != total:
            yield f"manifest.json: {counts[whole]:,} {whole}, but {total:,} {', '.join(parts)} in all"
    for name in ("document_tokens", "document_sentences"):
        found = int(getattr(stored, name).sum())
        if found != counts.get("documents_kept", 0):
            yield f"statistics.json: {name} are of {found:,} documents, not of {counts.get('documents_kept', 0):,}"
    if sum(manifest.languages.values()) != counts.get("documents", 0):
        yield f"manifest.json: languages are of {sum(manifest.languages.values()):,} documents"
    if counts.get("forced", 0) > counts.get("not_next", 0):
        yield "manifest.json: more labels were forced to NotNext than there are NotNext"
    if counts.get("tokens_kept", 0) > counts.get("tokens", 0):
        yield "manifest.json: documents that were kept have more tokens than all that were read"
    if counts.get("tokens_shown", 0) > counts.get("tokens_kept", 0):
        yield "manifest.json: more tokens are shown in samples than there are in documents"


def iter_share_faults(
    statistics: Statistics, *, labels: npt.NDArray[np.int64], num_forced: int | None, rules: BlockRules
) -> Iterator[str]:
    """Yields which shares of labels and masks chance does not explain.

    Args:
        statistics: Counted from a shard, or from all.
        labels: [2]; samples by label, of the shards where both labels are possible.
        num_forced: Samples whose label was not drawn; None where that is not known.
        rules: What its samples have in common.
    """
    if num_forced is not None or rules.options.pairs.next_sentence != "google":
        yield from _label_faults(labels, rules, num_forced=num_forced or 0)
    yield from _mask_faults(statistics, rules)
    if not rules.options.masks.whole_word_mask:  # there, words that do not fit are passed over, at ends more often
        yield from _place_faults(statistics, rules)


def _label_faults(labels: npt.NDArray[np.int64], rules: BlockRules, *, num_forced: int) -> Iterator[str]:
    mode = rules.options.pairs.next_sentence
    num_samples, num_ones = int(labels.sum()), int(labels[1])
    if mode == "none" or not num_samples:
        return
    if mode == "google":  # labels that were not drawn, because their chunk had one sentence, are left out
        num_samples, num_ones = num_samples - num_forced, num_ones - num_forced
    allowed = _DEVIATIONS * 0.5 / math.sqrt(max(num_samples, 1)) + (_BALANCED_SLACK if mode == "balanced" else 0)
    share = num_ones / max(num_samples, 1)
    if abs(share - 0.5) > allowed:
        label = {"google": "freely drawn NotNext", "sop": "swapped"}.get(mode, "NotNext")
        yield f"the share of {label} is {share:.2%}; it should be 50 %, to within {allowed:.2%}"


def _mask_faults(statistics: Statistics, rules: BlockRules) -> Iterator[str]:
    total = int(statistics.shown.sum())
    if not total:
        return
    independent = total / rules.options.pairs.dupe_factor  # copies of a sample have the same masks
    for name, count, expected in zip(
        ("show [MASK]", "show another token", "show the token itself"), statistics.shown, (0.8, 0.1, 0.1), strict=True
    ):
        # A random token is the original one now and then.
        slack = 0 if expected == 0.8 else 0.1 / max(int(rules.is_ordinary.sum()), 1)
        allowed = _DEVIATIONS * math.sqrt(expected * (1 - expected) / independent) + slack
        if abs(count / total - expected) > allowed:
            yield (
                f"{count / total:.2%} of the masked positions {name}; it should be {expected:.0%}, "
                f"to within {allowed:.2%}"
            )


def _place_faults(statistics: Statistics, rules: BlockRules) -> Iterator[str]:
    expected = statistics.expected_places
    allowed = _DEVIATIONS * np.sqrt(rules.options.pairs.dupe_factor * np.maximum(expected, 1))
    off = np.abs(statistics.prediction_places - expected) / allowed
    worst = int(np.argmax(off))
    if off[worst] > 1:
        yield (
            f"masked positions are not uniform: {statistics.prediction_places[worst]:,} lie in twentieth {worst + 1} "
            f"of their samples, where {expected[worst]:,.0f} belong, to within {allowed[worst]:,.0f}"
        )
