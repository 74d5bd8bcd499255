"""Planning: which range of keys becomes which shard, from exact counts of documents and tokens.

Keys are uniform, so a range of keys is a uniform sample of the corpus. The first ranges are for evaluation, the
others for training; all are cut at key bins (the first 16 bits of a key), where the documents counted so far reach
equal shares:

    bins       0 1 2 | 3 4 5 6 7 8 | 9 ...
               eval  | train 0     | train 1 ...

Nothing here looks at files, splits or sizes on disk, so the plan is the same however the input is stored.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.config import BuildOptions
from bertdata.errors import ConfigError
from bertdata.shards import position_dtype, shard_name

__all__ = ["ShardTask", "estimate_bytes", "plan_tasks"]

MIN_DOCUMENTS_PER_SHARD = 64
MIN_EVAL_DOCUMENTS = 100
MAX_EVAL_SHARE = 10  # at most one document in ten


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask:
    """One shard to build.

    Attributes:
        max_seq_length: The data set that it belongs to.
        split: "train" or "eval".
        number: Number of the shard within its split.
        num_shards: Shards of its split.
        first_bin: First key bin of its documents.
        last_bin: The bin after the last.
        place: Its place among all shards of its data set in the order of their bins.
    """

    max_seq_length: int
    split: str
    number: int
    num_shards: int
    first_bin: int
    last_bin: int
    place: int

    @property
    def name(self) -> str:
        """File name of the shard."""
        return shard_name(self.split, self.number, self.num_shards)


def estimate_bytes(num_tokens: int, *, options: BuildOptions, token_bytes: int) -> float:
    """Returns about how many bytes the samples of `num_tokens` tokens of text take."""
    masks, pairs = options.masks, options.pairs
    position_bytes = position_dtype(pairs.max_seq_length).itemsize
    per_token = token_bytes + masks.num_mask_sets * masks.masked_lm_prob * (position_bytes + token_bytes)
    per_sample = 4 + 2 * position_bytes + 1 + 16 + masks.num_mask_sets * position_bytes
    samples = num_tokens / (0.9 * pairs.max_seq_length)
    return pairs.dupe_factor * (num_tokens * per_token + samples * per_sample)


def _num_shards(num_documents: int, num_tokens: int, *, options: BuildOptions, token_bytes: int) -> int:
    most = max(1, num_documents // MIN_DOCUMENTS_PER_SHARD)
    estimate = estimate_bytes(num_tokens, options=options, token_bytes=token_bytes)
    return min(max(1, round(estimate / options.shards.shard_size)), most)


def _cut(documents_before: npt.NDArray[np.int64], *, first: int, num_shards: int) -> list[int]:
    """Returns the bins at which the documents from bin `first` on are cut into equal shares, both ends included."""
    start, total = int(documents_before[first]), int(documents_before[-1])
    wanted = [start + (total - start) * number // num_shards for number in range(1, num_shards)]
    inner = np.searchsorted(documents_before, wanted).tolist() if wanted else []
    bins = [first, *inner, len(documents_before) - 1]
    # Copies of one document lie in one bin, and may fill several shares: no shard is left without a document.
    kept = [bins[0]]
    for bin_ in bins[1:-1]:
        if documents_before[bin_] > documents_before[kept[-1]] and documents_before[bin_] < total:
            kept.append(bin_)
    return [*kept, bins[-1]]


def _eval_end(documents_before: npt.NDArray[np.int64], *, eval_fraction: float) -> int:
    total = int(documents_before[-1])
    wanted = min(max(math.ceil(eval_fraction * total), MIN_EVAL_DOCUMENTS), total // MAX_EVAL_SHARE)
    if not eval_fraction or not wanted:
        return 0
    end = int(np.searchsorted(documents_before, wanted))
    # A bin may hold many copies of a document; never hold out more than a tenth because of it.
    return end if documents_before[end] <= max(total // MAX_EVAL_SHARE, wanted) + 1 else end - 1


def plan_tasks(histogram: npt.NDArray[Any], *, options: BuildOptions, token_bytes: int) -> list[ShardTask]:
    """Plans the shards of one data set.

    Args:
        histogram: int64 [65,536, 2]; documents and tokens per key bin.
        options: The build's options, for one length.
        token_bytes: Bytes of a token id.

    Returns:
        The shards, train before eval, in order.

    Raises:
        ConfigError: More shards are asked for than there are documents.
    """
    documents_before = np.concatenate([[0], np.cumsum(histogram[:, 0])])
    tokens_before = np.concatenate([[0], np.cumsum(histogram[:, 1])])
    boundary = _eval_end(documents_before, eval_fraction=options.shards.eval_fraction)
    num_eval, num_eval_tokens = int(documents_before[boundary]), int(tokens_before[boundary])
    num_train = int(documents_before[-1]) - num_eval

    num_shards = options.shards.num_shards
    if num_shards is None:
        num_train_tokens = int(tokens_before[-1]) - num_eval_tokens
        num_shards = _num_shards(num_train, num_train_tokens, options=options, token_bytes=token_bytes)
    elif num_shards > num_train:
        raise ConfigError(f"--num-shards is {num_shards}, but there are only {num_train} documents to train on")
    cuts = {"train": _cut(documents_before, first=boundary, num_shards=num_shards)}
    if num_eval:
        num_eval_shards = _num_shards(num_eval, num_eval_tokens, options=options, token_bytes=token_bytes)
        cuts["eval"] = _cut(documents_before[: boundary + 1], first=0, num_shards=num_eval_shards)
    first_place = {"eval": 0, "train": len(cuts.get("eval", [0])) - 1}
    return [
        ShardTask(
            max_seq_length=options.pairs.max_seq_length,
            split=split,
            number=number,
            num_shards=len(bins) - 1,
            first_bin=first_bin,
            last_bin=last_bin,
            place=first_place[split] + number,
        )
        for split, bins in cuts.items()
        for number, (first_bin, last_bin) in enumerate(itertools.pairwise(bins))
    ]
