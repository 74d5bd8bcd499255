"""The manifest: what a data set is made of. `manifest.json` comes last and makes the folder a data set.

shards/
├── train-00000-of-00002.tar ...    samples, see `bertdata.shards`
├── tokenizer.json                  the tokenizer, and tokenizer_config.json for transformers
├── index.arrow                     a row per block, see `bertdata.index`
├── statistics.json                 counts over all samples and documents, see `bertdata.statistics`
└── manifest.json                   options, tokenizer, versions, inputs, counts, shards with SHA-256
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bertdata.config import BuildOptions
from bertdata.errors import BertDataError, ShardError
from bertdata.files import read_plain_file, write_atomically
from bertdata.shards import FORMAT_VERSION, SHARD_NAME, token_dtype
from bertdata.typed_json import from_json
from bertdata.wordpiece import MAX_VOCAB_SIZE, ROLES

__all__ = [
    "DROPPED_DOCUMENTS",
    "MANIFEST",
    "MAX_MANIFEST_BYTES",
    "Manifest",
    "Origin",
    "ShardEntry",
    "TokenizerInfo",
    "encode_manifest",
    "parse_manifest",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
# Counts of documents that were read and not kept, by reason: documents = documents_kept + these.
DROPPED_DOCUMENTS = ("documents_without_tokens", "excluded_documents", "duplicates", "one_sentence_documents")
MAX_MANIFEST_BYTES = 1 << 25  # 100,000 shards

_FILE_NAME = re.compile(r"[a-z_]+\.[a-z]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"[^/\0\ud800-\udfff][^\0\ud800-\udfff]*")  # relative, and a path to the system


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ShardError(message)


def _check_sha256(name: str, value: str) -> None:
    _check(_SHA256.fullmatch(value) is not None, f"sha256 of {name} is {reprlib.repr(value)}; it must be 64 hex digits")


def _check_counts(name: str, values: dict[str, int]) -> None:
    for key, value in values.items():
        _check(0 <= value < 1 << 63, f"{name}: {reprlib.repr(key)} is {value}; it must be from 0 to 2**63 - 1")


def _check_options(values: dict[str, Any]) -> None:
    options = BuildOptions.from_json(values)
    _check(options.to_json() == values, "the options have fields that this release does not know")
    length = options.pairs.max_seq_length
    _check(options.max_seq_lengths == (length,), f"max_seq_lengths is not {length} alone")


def _check_inputs(inputs: list[dict[str, Any]]) -> None:
    for file in inputs:
        has_facts = type(file.get("name")) is str and type(file.get("bytes")) is int
        _check(has_facts, f"an input is {reprlib.repr(file)}; it must have a name and bytes")


def _split_of(name: str) -> str:
    """Returns the split of the shard of that name; in which folder it may lie, `_check_folders` says."""
    match = SHARD_NAME.fullmatch(PurePosixPath(name).name)
    if match is None:
        raise ShardError(f"a shard is named {reprlib.repr(name)}; train-00000-of-00001.tar is a name of a shard")
    return match[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """One shard of a data set.

    Attributes:
        name: File name within the folder; in a merged data set, the path from there with forward slashes.
        split: "train" or "eval".
        num_samples: Samples in the shard.
        num_blocks: Blocks in the shard.
        num_tokens: Tokens of its samples, specials included.
        num_bytes: Bytes of the file.
        sha256: SHA-256 of the file, hexadecimal.
    """

    name: str
    split: str
    num_samples: int
    num_blocks: int
    num_tokens: int
    num_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _check(self.split == _split_of(self.name), f"{self.name} is said to be of split {reprlib.repr(self.split)}")
        _check_counts(self.name, {name: getattr(self, name) for name in _SHARD_COUNTS})
        _check_sha256(self.name, self.sha256)


_SHARD_COUNTS = ("num_samples", "num_blocks", "num_tokens", "num_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerInfo:
    """The tokenizer that the ids belong to.

    Attributes:
        sha256: SHA-256 of `tokenizer.json`, hexadecimal.
        vocab_size: Number of ids, one more than the highest.
        token_dtype: dtype of the ids in the shards, "uint16" or "uint32".
        roles: Ids of the special tokens by role: pad, unk, cls, sep, mask.
        lowercase: Whether text is lower-cased; None where the tokenizer does not say.
        trained: Whether the vocabulary was trained by the build.
    """

    sha256: str
    vocab_size: int
    token_dtype: str
    roles: dict[str, int]
    lowercase: bool | None
    trained: bool

    def __post_init__(self) -> None:
        _check_sha256("tokenizer.json", self.sha256)
        size = self.vocab_size
        _check(1 <= size <= MAX_VOCAB_SIZE, f"vocab_size is {size}; it must be from 1 to {MAX_VOCAB_SIZE}")
        wanted = token_dtype(size).name
        _check(self.token_dtype == wanted, f"token_dtype is {reprlib.repr(self.token_dtype)}; {size} ids need {wanted}")
        roles_fit = self.roles.keys() == ROLES.keys() and all(0 <= token < size for token in self.roles.values())
        _check(roles_fit, f"roles are {reprlib.repr(self.roles)}; {', '.join(ROLES)} need an id below {size} each")


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """A build whose shards are part of a merged data set.

    Attributes:
        path: Its folder, from that of the merged data set on, with forward slashes.
        build: As in its manifest, like all that follows.
        fingerprint: Of its shards and tokenizer.
        options: Of the build.
        versions: Of libraries.
        inputs: Name and size in bytes of each input file.
    """

    path: str
    build: str
    fingerprint: str
    options: dict[str, Any]
    versions: dict[str, str]
    inputs: list[dict[str, Any]]

    def __post_init__(self) -> None:
        is_relative = _FOLDER.fullmatch(self.path) is not None
        _check(is_relative, f"a folder that was merged from is {reprlib.repr(self.path)}; it must be a relative path")
        _check_options(self.options)
        _check_inputs(self.inputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        format_version: Version of the shard format.
        build: Fingerprint of what the build was asked to do; the same command gives the same one.
        options: `BuildOptions.to_json()` of the build, for this data set's length; of a merged one, of the first.
        tokenizer: The tokenizer.
        versions: Versions of the libraries that decide bytes, by name.
        inputs: Name and size in bytes of each input file.
        counts: Counts of every stage, by name; in = out + dropped by reason.
        languages: Documents by language, as sentence rules saw it.
        shards: All shards, train before eval, in order.
        files: SHA-256 of the other files of the folder by name, hexadecimal.
        excluded_not_found: Those of the excluded documents' keys of which there was no document, sorted.
        merged_from: The builds whose shards a merged data set names; none for a build.
    """

    format_version: int
    build: str
    options: dict[str, Any]
    tokenizer: TokenizerInfo
    versions: dict[str, str]
    inputs: list[dict[str, Any]]
    counts: dict[str, int]
    languages: dict[str, int]
    shards: tuple[ShardEntry, ...]
    files: dict[str, str]
    excluded_not_found: tuple[str, ...] = ()
    merged_from: tuple[Origin, ...] = ()

    def __post_init__(self) -> None:
        _check_options(self.options)
        _check_inputs(self.inputs)
        _check_counts("counts", self.counts)
        _check_counts("languages", self.languages)
        names = [shard.name for shard in self.shards]
        _check(len(set(names)) == len(names), "a shard is named twice")
        for name, sha256 in self.files.items():
            _check(_FILE_NAME.fullmatch(name) is not None, f"files: {reprlib.repr(name)} is no name of a file")
            _check_sha256(name, sha256)
        _check_folders(self)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal hash of the shards' contents and the tokenizer: equal fingerprints, equal training data."""
        # Without folders, so that a merged data set can be moved with those that it names.
        parts = [self.tokenizer.sha256, *(f"{PurePosixPath(shard.name).name}:{shard.sha256}" for shard in self.shards)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def num_samples(self, split: str) -> int:
        """Returns the number of samples of the shards of `split`."""
        return sum(shard.num_samples for shard in self.shards if shard.split == split)


def _check_folders(manifest: Manifest) -> None:
    """Refuses shards that lie in other folders than those of the builds that a data set was merged from."""
    folders = {origin.path for origin in manifest.merged_from} or {"."}
    for shard in manifest.shards:
        folder = PurePosixPath(shard.name).parent
        if folder.is_absolute() or str(folder) not in folders:
            raise ShardError(f"shard {shard.name[:200]!r} is in none of the folders {', '.join(sorted(folders))}")


def encode_manifest(manifest: Manifest) -> bytes:
    """Returns the content of `manifest.json`."""
    return (json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n").encode()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json`, which commits the data set."""
    write_atomically(folder / MANIFEST, encode_manifest(manifest))


def read_manifest(path: Path) -> Manifest:
    """Reads `manifest.json`.

    Raises:
        FileNotFoundError: It is not there.
        ShardError: It is no manifest, or one of another format version.
    """
    try:
        data = read_plain_file(path, max_bytes=MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ShardError(f"{path} is no manifest of a data set ({error}); copy or build the data set again") from error
    return parse_manifest(data, where=str(path))


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Returns what the bytes of a `manifest.json` say.

    Raises:
        ShardError: They are no manifest, or one of another format version; `where` it is said to lie.
    """
    try:
        values = json.loads(data)
        version = values.get("format_version") if isinstance(values, dict) else None
        if version == FORMAT_VERSION:
            return from_json(Manifest, values, where=MANIFEST)
    except (ValueError, RecursionError, BertDataError) as error:
        raise ShardError(f"{where} is no manifest of a data set ({error}); copy or build the data set again") from error
    raise ShardError(
        f"{where} has format version {reprlib.repr(version)}; this release reads version {FORMAT_VERSION}. "
        "Build the data set again, or install the release that wrote it."
    )
