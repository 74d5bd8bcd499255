"""What a build is expected to take before anything of it is known: seconds by stage, and bytes on the disk.

From the input's bytes by format and compression alone, with factors measured on English text on one core. They are good
for how the stages compare with each other, which is what the remaining time is told from while a build runs, and for
whether a disk is far too small. `bertdata build --dry-run` measures instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bertdata.config import BuildOptions
from bertdata.planning import estimate_bytes
from bertdata.shards import token_dtype
from bertdata.splits import Split

__all__ = ["PARALLEL", "STAGES", "TOKENS_PER_BYTE", "DiskNeed", "InputCosts", "expected_disk", "expected_seconds"]

STAGES = ("reading words", "vocabulary", "tokenizing", "building shards")
PARALLEL = frozenset({"reading words", "tokenizing", "building shards"})  # the vocabulary is one process's work

# Bytes of text per byte of a file before compression: at least, usually. A dump has markup, small pages and talk; a
# record may have other fields than its text, and Parquet is compressed within.
_TEXT_SHARES = {
    "mediawiki": (0.1, 0.4),
    "jsonl": (0.1, 0.95),
    "parquet": (0.2, 2.0),
    "wikiextractor": (0.6, 0.95),
    "text": (0.8, 1.0),
}
_CUSTOM_SHARES = (0.0, 1.0)  # a reader of the user's own may do anything
_EXPANSIONS = {"none": (1.0, 1.0), "bz2": (2.0, 4.0), "gz": (1.5, 2.8), "zst": (1.5, 2.7)}

_READ_SECONDS = {"mediawiki": 0.085, "jsonl": 0.033, "parquet": 0.03, "wikiextractor": 0.03, "text": 0.03}  # per MB
_DECOMPRESS_SECONDS = {"none": 0.0, "bz2": 0.11, "gz": 0.01, "zst": 0.005}  # per MB that comes out
TOKENS_PER_BYTE = 0.24  # of text, usually
_LEAST_TOKENS_PER_BYTE = 0.15
_SENTENCE_BYTES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class InputCosts:
    """What the input is expected to hold, and to cost.

    Attributes:
        input_bytes: Bytes as stored.
        least_text_bytes: Bytes of plain text at least.
        text_bytes: Bytes of plain text, about.
        reading_seconds: How long one core reads it, about.
    """

    input_bytes: int
    least_text_bytes: float
    text_bytes: float
    reading_seconds: float

    @property
    def tokens(self) -> float:
        """Tokens of text, about."""
        return self.text_bytes * TOKENS_PER_BYTE

    @classmethod
    def of(cls, splits: Iterable[Split]) -> InputCosts:
        """Returns what the input is expected to hold."""
        stored: Counter[tuple[str, str]] = Counter()
        for split in splits:
            stored[split.format, split.compression] += split.num_bytes
        least = usual = seconds = 0.0
        for (file_format, compression), num_bytes in stored.items():
            shares, expansions = _TEXT_SHARES.get(file_format, _CUSTOM_SHARES), _EXPANSIONS[compression]
            least += num_bytes * shares[0] * expansions[0]
            usual += num_bytes * shares[1] * expansions[1]
            per_mb = _READ_SECONDS.get(file_format, 0.03) + _DECOMPRESS_SECONDS[compression]
            seconds += num_bytes * expansions[1] / 1e6 * per_mb
        return cls(input_bytes=stored.total(), least_text_bytes=least, text_bytes=usual, reading_seconds=seconds)


def expected_seconds(costs: InputCosts, *, options: BuildOptions, text_scale: float = 1.0) -> dict[str, float]:
    """Returns about how long each of `STAGES` takes on one core; 0 for those that the build does not have.

    Args:
        costs: What the input is expected to hold.
        options: What is built.
        text_scale: How many times as much text there is as expected.
    """
    text_mb = text_scale * costs.text_bytes / 1e6
    pairs, masks = options.pairs, options.masks
    per_length = 0.02 + pairs.dupe_factor * (0.058 + 0.003 * masks.num_mask_sets)
    trains = options.tokenizer.path is None
    sample_mb = min(text_mb, options.tokenizer.sample_bytes / 1e6)
    return {
        "reading words": costs.reading_seconds + 0.11 * text_mb if trains else 0.0,
        "vocabulary": 1 + 0.2 * sample_mb if trains else 0.0,
        "tokenizing": costs.reading_seconds + 0.14 * text_mb,
        "building shards": len(options.max_seq_lengths) * per_length * text_mb,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskNeed:
    """Bytes that a build takes on the disk of its output, when the last shard is built.

    Attributes:
        least: It takes more than this, unless most of the input is dropped, as copies or for other reasons.
        usual: About so many.
    """

    least: int
    usual: int


def expected_disk(costs: InputCosts, *, options: BuildOptions) -> DiskNeed:
    """Returns what a build needs of the disk: the tokens of all documents in the work folder, and the shards."""
    least, usual = (
        _disk_bytes(int(text_bytes * tokens_per_byte), sentences=text_bytes / _SENTENCE_BYTES, options=options)
        for text_bytes, tokens_per_byte in (
            (costs.least_text_bytes, _LEAST_TOKENS_PER_BYTE),
            (costs.text_bytes, TOKENS_PER_BYTE),
        )
    )
    return DiskNeed(least=least, usual=usual)


def _disk_bytes(num_tokens: int, *, sentences: float, options: BuildOptions) -> int:
    """Returns about how many bytes runs and shards of so many tokens of text take."""
    token_bytes = token_dtype(options.tokenizer.vocab_size).itemsize
    shards = sum(
        estimate_bytes(num_tokens, options=options.for_length(length), token_bytes=token_bytes)
        for length in options.max_seq_lengths
    )
    return int(num_tokens * token_bytes + 4 * sentences + shards)
