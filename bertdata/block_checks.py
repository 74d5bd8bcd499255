"""What must hold of the samples of a block, whoever wrote it: layout, special tokens, labels, masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.config import BuildOptions
from bertdata.manifest import Manifest
from bertdata.masking import num_predictions
from bertdata.shards import FIELDS, FORCED, Block, members_of, position_dtype
from bertdata.wordpiece import Vocabulary

__all__ = ["BlockRules", "iter_faults"]

BoolArray = npt.NDArray[np.bool_]
Fault = tuple[str, BoolArray | None]

_TELLING_BITS = 44  # two sets that were drawn among 2**44 are not equal by chance
_BITS_SHOWN = 0.9  # of what stands at a predicted position: [MASK], another token or the token itself


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockRules:
    """What the samples of a data set have in common.

    Attributes:
        options: The build's options, for one length.
        dtypes: dtype of each member of a block.
        block_size: Samples of a block at most.
        vocab_size: Number of ids V.
        roles: Ids of the special tokens by role.
        is_ordinary: bool [V]; ids that may replace a token at random.
    """

    options: BuildOptions
    dtypes: dict[str, np.dtype[Any]]
    block_size: int
    vocab_size: int
    roles: dict[str, int]
    is_ordinary: BoolArray

    @classmethod
    def of(cls, manifest: Manifest, vocabulary: Vocabulary) -> BlockRules:
        """Returns the rules of a data set."""
        options = BuildOptions.from_json(manifest.options)
        all_options = [origin.options for origin in manifest.merged_from] or [manifest.options]
        dtypes = dict.fromkeys(FIELDS, position_dtype(options.pairs.max_seq_length))
        dtypes |= dict.fromkeys(("tokens", "mask_tokens"), np.dtype(manifest.tokenizer.token_dtype))
        dtypes |= {"token_offsets": np.dtype("u4"), "next_sentence_label": np.dtype("u1")}
        dtypes |= {"document_keys": np.dtype("u8"), FORCED: np.dtype("u1")}
        is_ordinary = np.zeros(manifest.tokenizer.vocab_size, dtype=bool)
        # The published script draws replacements from the whole vocabulary.
        is_ordinary[slice(None) if options.pairs.next_sentence == "google" else vocabulary.ordinary] = True
        return cls(
            options=options,
            dtypes=dtypes,
            block_size=max(options["shards"]["block_size"] for options in all_options),
            vocab_size=manifest.tokenizer.vocab_size,
            roles=manifest.tokenizer.roles,
            is_ordinary=is_ordinary,
        )


def iter_faults(block: Block, *, rules: BlockRules) -> Iterator[tuple[str, BoolArray | None]]:
    """Yields what is wrong with the samples of a block.

    Args:
        block: N samples.
        rules: What must hold.

    Yields:
        What is wrong, as a sentence about a sample; bool [N], which samples it is true of, or None for the whole block.
    """
    layout = list(_found(_layout_faults(block, rules)))
    yield from layout
    if layout:  # what follows would look for tokens in the wrong places
        return
    yield from _found(_token_faults(block, rules))
    yield from _found(_label_faults(block, rules))
    masks = list(_found(_position_faults(block, rules)))
    yield from masks
    if not masks:
        yield from _found(_mask_token_faults(block, rules))


def _found(faults: Iterator[Fault]) -> Iterator[Fault]:
    for message, samples in faults:
        if samples is None or samples.any():
            yield message, samples


def _layout_faults(block: Block, rules: BlockRules) -> Iterator[Fault]:
    for field in members_of(block):
        dtype, expected = getattr(block, field).dtype, rules.dtypes[field]
        if dtype != expected:
            yield f"{field} has dtype {dtype}, not {expected}", None
    num_sets, expected_sets = block.num_predictions.shape[1], rules.options.masks.num_mask_sets
    if num_sets != expected_sets:
        yield f"there are {num_sets} mask sets, not {expected_sets}", None
    pairs, lengths = rules.options.pairs, block.lengths
    if block.label_forced is not None and pairs.next_sentence != "google":
        yield f"there is {FORCED}, though no label of --next-sentence {pairs.next_sentence} is forced", None
    yield "token_offsets do not ascend", lengths <= 0
    yield f"it is longer than max_seq_length {pairs.max_seq_length}", lengths > pairs.max_seq_length
    segment_b = block.segment_b.astype(np.int64)
    if pairs.next_sentence == "none":
        yield "it has a second segment", (segment_b != lengths) & (lengths > 0)
        yield "it has no text", (lengths < 3) & (lengths > 0)
    else:
        outside = (segment_b < 3) | (segment_b > lengths - 2)
        yield "segment B does not begin where A can have ended and B can follow", outside & (lengths > 0)


def _token_faults(block: Block, rules: BlockRules) -> Iterator[Fault]:
    tokens, roles = block.tokens, rules.roles
    offsets = block.token_offsets.astype(np.int64)
    starts, ends = offsets[:-1], offsets[1:]
    yield f"a token is not below the vocabulary's size {rules.vocab_size}", _any(tokens >= rules.vocab_size, starts)
    has_no_sep = tokens[starts + block.segment_b - 1] != roles["sep"]
    is_open = (tokens[starts] != roles["cls"]) | has_no_sep | (tokens[ends - 1] != roles["sep"])
    yield "[CLS] or [SEP] is not where it belongs", is_open
    is_special = np.zeros(len(tokens), dtype=bool)
    for role in ("cls", "sep", "pad", "mask"):
        is_special |= tokens == roles[role]
    num_special = np.add.reduceat(is_special, starts, dtype=np.int64) if len(starts) else starts
    has_b = block.segment_b < block.lengths
    yield "a special token stands in the text", (num_special > 2 + has_b) & ~is_open


def _label_faults(block: Block, rules: BlockRules) -> Iterator[Fault]:
    labels, keys, mode = block.next_sentence_label, block.document_keys, rules.options.pairs.next_sentence
    is_same = keys[:, 0] == keys[:, 1]
    yield "next_sentence_label is neither 0 nor 1", labels > 1
    if block.label_forced is not None:
        yield "label_forced is neither 0 nor 1", block.label_forced > 1
        yield "it is labelled IsNext, and label_forced says that it had to be NotNext", block.label_forced > labels
    if mode in ("sop", "none"):
        yield "its segments are of two documents", ~is_same
    else:
        yield "it is labelled IsNext, and its segments are of two documents", (labels == 0) & ~is_same
    if mode == "balanced":  # the published script gives up after ten tries to find another document
        yield "it is labelled NotNext, and its segments are of one document", (labels == 1) & is_same
    if mode == "none":
        yield "it is labelled NotNext, and has one segment", labels == 1


def _position_faults(block: Block, rules: BlockRules) -> Iterator[Fault]:
    positions, per_sample = block.mask_positions, block.num_predictions.sum(axis=1, dtype=np.int64)
    lengths, segment_b = block.lengths, block.segment_b.astype(np.int64)
    last, middle = (np.repeat(ends.astype(np.int32), per_sample) for ends in (lengths - 1, segment_b - 1))
    yield "a masked position is outside the sample", _by_sample(positions > last, per_sample)
    is_special = (positions == 0) | (positions == last) | (positions == middle)
    yield "a masked position is that of a special token", _by_sample(is_special, per_sample)
    falls = np.zeros(len(positions), dtype=bool)
    falls[1:] = positions[1:] <= positions[:-1]
    starts = np.cumsum(block.num_predictions, dtype=np.int64)[:-1]  # of all sets but the first
    falls[starts[starts < len(falls)]] = False
    yield "masked positions do not ascend", _by_sample(falls, per_sample)

    masks = rules.options.masks
    expected = num_predictions(
        lengths, masked_lm_prob=masks.masked_lm_prob, max_predictions_per_seq=masks.max_predictions_per_seq
    )
    expected = np.minimum(expected, lengths - 2 - (segment_b < lengths))[:, None]
    found = block.num_predictions
    # Of whole words, one that does not fit any more is passed over.
    is_wrong = found > expected if masks.whole_word_mask else found != expected
    yield "the number of masked positions is not that of the rule", np.asarray(is_wrong.any(axis=1))


def _mask_token_faults(block: Block, rules: BlockRules) -> Iterator[Fault]:
    shown, per_sample = block.mask_tokens, block.num_predictions.sum(axis=1, dtype=np.int64)
    others = np.flatnonzero(shown != rules.roles["mask"])
    samples = np.searchsorted(np.cumsum(per_sample), others, side="right")
    tokens = shown[others]
    is_same = tokens == block.tokens[block.token_offsets[samples] + block.mask_positions[others]]
    is_known = tokens < rules.vocab_size
    is_allowed = is_same | (is_known & rules.is_ordinary[np.where(is_known, tokens, 0)])
    is_wrong = np.bincount(samples[~is_allowed], minlength=block.num_samples) > 0
    yield "a mask shows a token that may not replace another", is_wrong
    yield "two of its mask sets are the same", _has_equal_sets(block)


def _has_equal_sets(block: Block) -> BoolArray:
    """Returns which samples have two equal mask sets, long enough that this is no chance: bool [N]."""
    counts = block.num_predictions.astype(np.int64)
    is_filled = counts.ravel() > 0
    starts = (np.cumsum(counts) - counts.ravel())[is_filled]
    # A sum of squares of odd multiples tells sets apart, and costs less than a sum of hashes.
    values = block.mask_positions * np.uint64(0x9E3779B97F4A7C15) + block.mask_tokens * np.uint64(0xBF58476D1CE4E5B9)
    sums = np.zeros(counts.size, dtype=np.uint64)
    sums[is_filled] = np.add.reduceat(values * values, starts) if len(starts) else values
    rows = np.sort(sums.reshape(counts.shape), axis=1)
    candidates, drawn = block.lengths - 3, counts.min(axis=1, initial=int(block.lengths.max(initial=0)))
    drawn = np.minimum(drawn, candidates)
    bits = np.concatenate([[0], np.cumsum(np.log2(np.arange(1, block.lengths.max(initial=0) + 1)))])  # of factorials
    choices = bits[candidates] - bits[drawn] - bits[candidates - drawn]
    is_telling = choices + _BITS_SHOWN * drawn >= _TELLING_BITS
    return np.asarray((rows[:, 1:] == rows[:, :-1]).any(axis=1) & is_telling)


def _by_sample(is_fault: BoolArray, per_sample: npt.NDArray[np.int64]) -> BoolArray:
    """Returns which samples have a fault at some prediction: bool [N]."""
    samples = np.searchsorted(np.cumsum(per_sample), np.flatnonzero(is_fault), side="right")
    return np.bincount(samples, minlength=len(per_sample)) > 0


def _any(is_fault: BoolArray, starts: npt.NDArray[np.int64]) -> BoolArray:
    """Returns which of the samples that begin at `starts` have a fault at some token: bool [N]."""
    return np.logical_or.reduceat(is_fault, starts) if len(starts) else np.zeros(0, dtype=bool)
