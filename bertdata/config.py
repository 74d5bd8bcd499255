"""What a build was asked to do: small frozen option sets, one per stage, that check themselves.

`BuildOptions` holds them all and goes through JSON into the manifest. Every option that changes the bytes of a shard is
here; what only changes how fast they are made (workers, runner) is not.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bertdata.errors import ConfigError
from bertdata.typed_json import from_json

__all__ = [
    "DEFAULT_MIRROR",
    "FORMATS",
    "LATEST",
    "MIB",
    "BuildOptions",
    "MaskOptions",
    "PairOptions",
    "ReadOptions",
    "ShardOptions",
    "TokenizerOptions",
    "is_hook",
]

NextSentence = Literal["balanced", "google", "sop", "none"]
DocumentPer = Literal["blank-line", "file", "line"]
FORMATS = ("auto", "mediawiki", "jsonl", "parquet", "wikiextractor", "text")
_LANGUAGE = re.compile(r"[a-zA-Z]{2,3}([-_][a-zA-Z0-9]+)*")
_DOCUMENT_KEY = re.compile(r"[0-9a-f]{16}")
_HOOK = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

MIB = 1 << 20

DEFAULT_MIRROR = "https://dumps.wikimedia.org"
LATEST = "latest"  # the newest dump that is complete


def is_hook(name: str) -> bool:
    """Returns whether MODULE:FUNCTION is meant, a function of the user's own, not a format of ours."""
    return ":" in name


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _check_at_least(name: str, value: int, least: int) -> None:
    _check(value >= least, f"{name} is {value}; it must be at least {least}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, f"{name} is {value!r}; it must be one of {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How input files become documents.

    Attributes:
        format: Format of every input; "auto" to detect it from each file's content; MODULE:FUNCTION for a reader of
            the user's own (see `bertdata.hooks`).
        document_per: Plain text only: what separates documents.
        sentence_per_line: Plain text only: each line is one sentence, so no sentence splitting is done.
        text_field: JSONL, Parquet, own reader: the field that holds the text (a string, or a list of sentences).
        language: BCP 47 code for sentence rules, or "auto": the dump's, the record's, else by script.
        filter: MODULE:FUNCTION that changes or drops documents (see `bertdata.hooks`); None for none.
        min_document_chars: Documents with fewer characters of text are dropped and counted.
        max_document_bytes: Documents with more bytes of UTF-8 text are rejected and counted.
        max_rejects: Bad records allowed before the build ends with an error.
        skip_bad_splits: Leave out the rest of a split from where its file is damaged, and count it.
    """

    format: str = "auto"
    document_per: DocumentPer = "blank-line"
    sentence_per_line: bool = False
    text_field: str = "text"
    language: str = "auto"
    filter: str | None = None
    min_document_chars: int = 1
    max_document_bytes: int = 64 * MIB
    max_rejects: int = 0
    skip_bad_splits: bool = False

    def __post_init__(self) -> None:
        _check(
            self.format in FORMATS or _HOOK.fullmatch(self.format) is not None,
            f"--format is {self.format!r}; it must be one of {', '.join(FORMATS)}, or MODULE:FUNCTION",
        )
        _check(
            self.filter is None or _HOOK.fullmatch(self.filter) is not None,
            f"--filter is {self.filter!r}; it must be MODULE:FUNCTION",
        )
        _check_choice("--document-per", self.document_per, get_args(DocumentPer))
        _check(
            self.language == "auto" or _LANGUAGE.fullmatch(self.language) is not None,
            f"--language is {self.language!r}; it must be a language code such as en or zh-hant, or auto",
        )
        _check(self.text_field != "", "--text-field is empty; it must be the name of a field")
        _check_at_least("--min-document-chars", self.min_document_chars, 1)
        _check_at_least("--max-document-bytes", self.max_document_bytes, 1)
        _check_at_least("--max-rejects", self.max_rejects, 0)

    @property
    def hooks(self) -> dict[str, str]:
        """The functions of the user's own, MODULE:FUNCTION by the option that names each."""
        named = {"--format": self.format, "--filter": self.filter}
        return {option: name for option, name in named.items() if name is not None and is_hook(name)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerOptions:
    """Which tokenizer to use, or how to train one.

    Attributes:
        path: A `tokenizer.json`, a `vocab.txt` or a folder that holds one; None to train a WordPiece vocabulary.
        vocab_size: Entries of a trained vocabulary at most (30,522 is that of the published English BERT).
        lowercase: True or False to force the case rule; None to choose by language or by the given tokenizer.
        strip_accents: True or False to force it; None follows the case rule.
        sample_bytes: Bytes of UTF-8 text a vocabulary is trained on at most.
    """

    path: str | None = None
    vocab_size: int = 30522
    lowercase: bool | None = None
    strip_accents: bool | None = None
    sample_bytes: int = 128 * MIB

    def __post_init__(self) -> None:
        _check(self.vocab_size >= 16, f"--vocab-size is {self.vocab_size}; it must be at least 16")
        _check_at_least("the vocabulary sample", self.sample_bytes, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairOptions:
    """How documents become samples of one or two segments.

    Attributes:
        max_seq_length: Tokens of a sample at most, [CLS] and [SEP] included.
        short_seq_prob: Share of samples with a shorter target length (0.1 in BERT).
        next_sentence: Which pairs are built: balanced, google, sop or none (see `bertdata.pairs`).
        dupe_factor: Passes over the documents, each with its own draws.
    """

    max_seq_length: int = 128
    short_seq_prob: float = 0.1
    next_sentence: NextSentence = "balanced"
    dupe_factor: int = 2

    def __post_init__(self) -> None:
        _check(
            8 <= self.max_seq_length <= 65535,
            f"--max-seq-length is {self.max_seq_length}; it must be between 8 and 65,535",
        )
        _check(0 <= self.short_seq_prob <= 1, f"--short-seq-prob is {self.short_seq_prob}; it must be between 0 and 1")
        _check_choice("--next-sentence", self.next_sentence, get_args(NextSentence))
        _check(1 <= self.dupe_factor <= 65535, f"--dupe-factor is {self.dupe_factor}; it must be between 1 and 65,535")


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskOptions:
    """How the masked positions of a sample are drawn.

    Attributes:
        num_mask_sets: Mask sets K stored per sample; 0 stores none and leaves the drawing to the loader.
        masked_lm_prob: Share of a sample's positions to predict (0.15 in BERT).
        max_predictions_per_seq: Predictions per mask set at most; None for no cap.
        whole_word_mask: Mask all pieces of a word together.
    """

    num_mask_sets: int = 5
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int | None = None
    whole_word_mask: bool = False

    def __post_init__(self) -> None:
        _check(0 <= self.num_mask_sets <= 255, f"--num-mask-sets is {self.num_mask_sets}; it must be between 0 and 255")
        _check(
            0 < self.masked_lm_prob <= 1,
            f"--masked-lm-prob is {self.masked_lm_prob}; it must be above 0 and at most 1",
        )
        _check(
            self.max_predictions_per_seq is None or 1 <= self.max_predictions_per_seq <= 65535,
            f"--max-predictions-per-seq is {self.max_predictions_per_seq}; it must be between 1 and 65,535",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOptions:
    """How samples are packed into files.

    Attributes:
        shard_size: Bytes that a shard should have, about; decides the number of shards.
        num_shards: Number of training shards, instead of `shard_size`; None to go by size.
        block_size: Samples per block at most.
        eval_fraction: Share of documents held out for evaluation (at least 100 documents, at most 10 %); 0 for none.
        keep_duplicates: Keep documents whose text occurs more than once.
        excluded_documents: First 64 bits, as 16 hexadecimal digits, of the keys of documents that are left out with all
            their copies; sorted, each once. Shards are planned and a vocabulary is trained as if they were there, so
            that leaving one out changes no shard but its own.
    """

    shard_size: int = 64 * MIB
    num_shards: int | None = None
    block_size: int = 1024
    eval_fraction: float = 0.01
    keep_duplicates: bool = False
    excluded_documents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # JSON knows lists only.
        object.__setattr__(self, "excluded_documents", tuple(sorted(set(self.excluded_documents))))
        for key in self.excluded_documents:
            _check(_DOCUMENT_KEY.fullmatch(key) is not None, f"document key {key!r} is not 16 digits of 0-9 and a-f")
        _check_at_least("--shard-size", self.shard_size, 1)
        _check(
            self.num_shards is None or 1 <= self.num_shards <= 99999,
            f"--num-shards is {self.num_shards}; it must be between 1 and 99,999",
        )
        _check(1 <= self.block_size <= 65536, f"--block-size is {self.block_size}; it must be between 1 and 65,536")
        _check(0 <= self.eval_fraction < 1, f"--eval-fraction is {self.eval_fraction}; it must be from 0 to below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """Everything that decides the bytes of a build.

    Attributes:
        read: How input files become documents.
        tokenizer: Which tokenizer is used, or how one is trained.
        pairs: How documents become samples.
        masks: How masked positions are drawn.
        shards: How samples are packed into files.
        max_seq_lengths: One data set is written per length; more than one go to sub-folders named after them.
        seed: Number from which all draws of the build are derived.
    """

    read: ReadOptions = field(default_factory=ReadOptions)
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    pairs: PairOptions = field(default_factory=PairOptions)
    masks: MaskOptions = field(default_factory=MaskOptions)
    shards: ShardOptions = field(default_factory=ShardOptions)
    max_seq_lengths: tuple[int, ...] = (128,)
    seed: int = 0

    def __post_init__(self) -> None:
        _check(0 <= self.seed < 1 << 64, f"--seed is {self.seed}; it must be between 0 and 2**64 - 1")
        _check(len(self.max_seq_lengths) >= 1, "--max-seq-length is empty; give one length, or several with commas")
        _check(
            len(set(self.max_seq_lengths)) == len(self.max_seq_lengths),
            f"--max-seq-length names a length twice: {','.join(map(str, self.max_seq_lengths))}",
        )
        for max_seq_length in self.max_seq_lengths:
            dataclasses.replace(self.pairs, max_seq_length=max_seq_length)

    def for_length(self, max_seq_length: int) -> BuildOptions:
        """Returns the options of the one data set whose samples have at most `max_seq_length` tokens."""
        pairs = dataclasses.replace(self.pairs, max_seq_length=max_seq_length)
        return dataclasses.replace(self, pairs=pairs, max_seq_lengths=(max_seq_length,))

    def excluding(self, keys: Iterable[str]) -> BuildOptions:
        """Returns the options of the same build with other documents left out, see `ShardOptions`."""
        return dataclasses.replace(self, shards=dataclasses.replace(self.shards, excluded_documents=tuple(keys)))

    def to_json(self) -> dict[str, Any]:
        """Returns the options as nested dictionaries of JSON values."""
        values = dataclasses.asdict(self) | {"max_seq_lengths": list(self.max_seq_lengths)}
        values["shards"]["excluded_documents"] = list(self.shards.excluded_documents)
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> BuildOptions:
        """Returns the options that `to_json` wrote.

        Raises:
            ValueError: A value is missing or of another type.
            ConfigError: A value is not allowed.
        """
        return from_json(cls, values, where="options")
