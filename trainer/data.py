"""The data of a run: one data set or several with weights, opened, checked against each other, and ready to be read."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertdata.cache_options import CacheOptions
from bertdata.config import BuildOptions
from bertdata.data_set import DataSet, open_data_set
from bertdata.errors import TrainingError
from bertdata.manifest import TokenizerInfo
from bertdata.masking import num_predictions
from trainer.cutting import Cutting
from trainer.plan import Plan
from trainer.reader import BlockReader
from trainer.state import DataState

__all__ = ["TrainingData", "open_training_data", "parse_shards"]

_log = logging.getLogger(__name__)

_WEIGHTED = re.compile(r"(?P<place>.+):(?P<weight>\d+(\.\d*)?|\.\d+)")
_BARE_SERVER = re.compile(r"[a-z0-9+]+://[^/]*")


def parse_shards(text: str) -> tuple[str, float | None]:
    """Returns the folder or URI, and the weight if there is one, of `PLACE` or `PLACE:WEIGHT`.

    >>> parse_shards("wiki:0.7"), parse_shards("s3://bucket/wiki"), parse_shards("http://localhost:8000")
    (('wiki', 0.7), ('s3://bucket/wiki', None), ('http://localhost:8000', None))
    """
    found = _WEIGHTED.fullmatch(text)
    # What stands behind the colon may also be a port, or belong to the folder's name.
    if found is None or Path(text).exists() or _BARE_SERVER.fullmatch(found["place"]):
        return text, None
    return found["place"], float(found["weight"])


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingData:
    """Data sets that a run is trained on together.

    Attributes:
        data_sets: One or more, of the same tokenizer.
        weights: Share of each in the samples, of any sum; None for as many as each has.

    Raises:
        TrainingError: The data sets cannot be used together, or a weight is not above 0.
    """

    data_sets: tuple[DataSet, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for weight in self.weights or ():
            if not 0 < weight < float("inf"):
                raise TrainingError(f"the weight {weight:g} of --shards is not above 0; leave the data set out")
        for other in self.data_sets[1:]:
            _check_fit(self.data_sets[0], other)

    @property
    def options(self) -> list[BuildOptions]:
        """What each data set was built with."""
        return [BuildOptions.from_json(data_set.manifest.options) for data_set in self.data_sets]

    @property
    def tokenizer(self) -> TokenizerInfo:
        """Their tokenizer."""
        return self.data_sets[0].manifest.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Tokens of a sample at most."""
        return max(options.pairs.max_seq_length for options in self.options)

    @property
    def has_next_sentence(self) -> bool:
        """Whether samples have a label for the next sentence."""
        return self.options[0].pairs.next_sentence != "none"

    def __str__(self) -> str:
        """Returns where they lie, and their weights."""
        shares = [f" (weight {weight:g})" for weight in self.weights or ()] or [""] * len(self.data_sets)
        return ", ".join(data_set.location + share for data_set, share in zip(self.data_sets, shares, strict=True))

    def num_samples(self, split: str) -> int:
        """Returns the samples of a split, "train" or "eval"."""
        return sum(data_set.manifest.num_samples(split) for data_set in self.data_sets)

    def num_tokens(self, split: str) -> int:
        """Returns the tokens of a split, specials included."""
        return sum(int(data_set.blocks(split).num_tokens.sum()) for data_set in self.data_sets)

    def open_split(self, split: str, *, skip_bad_blocks: bool = False) -> BlockReader:
        """Returns what reads a split, "train" or "eval"."""
        return BlockReader(self.data_sets, split=split, skip_bad_blocks=skip_bad_blocks)

    def initial_state(
        self, *, seed: int, batch_size: int, window_blocks: int | None = None, shuffle_shards: int | None = None
    ) -> DataState:
        """Returns the state of a run that begins."""
        return DataState(
            data_sets=tuple(data_set.manifest.fingerprint[:16] for data_set in self.data_sets),
            weights=self.weights and tuple(round(weight / sum(self.weights), 12) for weight in self.weights),
            seed=seed,
            batch_size=batch_size,
            window_blocks=window_blocks,
            shuffle_shards=shuffle_shards,
        )

    def make_plan(self, state: DataState) -> Plan:
        """Returns the order of samples that a state stands for.

        Raises:
            TrainingError: There are fewer samples than lanes.
        """
        for data_set in self.data_sets:
            _warn_of_small_cache(data_set, shuffle_shards=state.shuffle_shards)
        return Plan(
            self.open_split("train").tables,
            weights=self.weights,
            seed=state.seed,
            batch_size=state.batch_size,
            window_blocks=state.window_blocks,
            shuffle_shards=state.shuffle_shards,
        )

    def make_cutting(
        self,
        *,
        micro_batch_size: int | None = None,
        max_padding: float | None = None,
        is_dealt: bool = False,
        pad_to_multiple: int | None = None,
    ) -> Cutting:
        """Returns how shares become micro-batches, see `trainer.cutting.Cutting`."""
        return Cutting(
            micro_batch_size=micro_batch_size,
            max_padding=max_padding,
            is_dealt=is_dealt,
            pad_to_multiple=pad_to_multiple,
            max_seq_length=self.max_seq_length,
            max_predictions=max(_max_predictions(options) for options in self.options),
            masked_lm_prob=max(options.masks.masked_lm_prob for options in self.options),
            pad_token_id=self.tokenizer.roles["pad"],
        )


def open_training_data(shards: Sequence[str], *, cache: CacheOptions | None = None) -> TrainingData:
    """Opens data sets.

    Args:
        shards: For each its folder or URI, and a colon and its weight behind that for all or for none of them.
        cache: Where the shards of URIs are kept.

    Raises:
        ShardError: One is not there or damaged.
        DownloadError: A server refuses it, or fails for good.
        OutputError: The cache is too small for a shard, or cannot be written to.
        TrainingError: They cannot be used together.
    """
    parsed = [parse_shards(text) for text in shards]
    weights = [weight for _, weight in parsed if weight is not None]
    if weights and len(weights) < len(parsed):
        raise TrainingError(
            f"--shards gives weights to {len(weights)} of {len(parsed)} data sets; give one to each, or to none, and "
            "each counts by its size"
        )
    data_sets = tuple(open_data_set(place, cache=cache) for place, _ in parsed)
    return TrainingData(data_sets=data_sets, weights=tuple(weights) or None)


def _warn_of_small_cache(data_set: DataSet, *, shuffle_shards: int | None) -> None:
    max_bytes = data_set.shard_files.max_bytes
    if max_bytes is None:
        return
    sizes = sorted(shard.num_bytes for shard in data_set.manifest.shards if shard.split == "train")
    # While lanes go from one group of shards to the next, they are in both.
    needed = sum(sizes if shuffle_shards is None else sizes[-2 * shuffle_shards :])
    if needed > max_bytes:
        _log.warning(
            "%s: samples are drawn from %.1f GB of shards at a time, and the cache may hold %.1f GB: shards will be "
            "fetched again and again. Give --cache-size %dMB, or --shuffle-shards %d",
            *(data_set.location, needed / 1e9, max_bytes / 1e9),
            *(math.ceil(needed / 1e6), max(1, max_bytes // (2 * sizes[-1]))),
        )


def _max_predictions(options: BuildOptions) -> int:
    masks = options.masks
    return int(
        num_predictions(
            np.array([options.pairs.max_seq_length]),
            masked_lm_prob=masks.masked_lm_prob,
            max_predictions_per_seq=masks.max_predictions_per_seq,
        )[0]
    )


def _check_fit(first: DataSet, other: DataSet) -> None:
    if other.manifest.tokenizer.sha256 != first.manifest.tokenizer.sha256:
        raise TrainingError(
            f"{first.location} and {other.location} have different tokenizers; build one of them again with "
            "--tokenizer and the folder of the other"
        )
    kinds = [data_set.manifest.options["pairs"]["next_sentence"] for data_set in (first, other)]
    if len({kind if kind in ("none", "sop") else "random" for kind in kinds}) > 1:
        raise TrainingError(
            f"{first.location} was built with --next-sentence {kinds[0]}, {other.location} with {kinds[1]}: their "
            "labels mean different things; build them with the same"
        )
