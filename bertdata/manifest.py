"""The manifest and the index: what a data set is made of. `manifest.json` comes last and makes the folder a data set.

shards/
├── train-00000-of-00002.tar ...    samples, see `bertdata.shards`
├── tokenizer.json                  the tokenizer, and tokenizer_config.json for transformers
├── index.arrow                     a row per block: shard, offset, bytes, samples, tokens, CRC-32
├── statistics.json                 counts over all samples and documents, see `bertdata.statistics`
└── manifest.json                   options, tokenizer, versions, inputs, counts, shards with SHA-256
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bertdata.errors import OutputError, ShardError
from bertdata.files import file_sha256, write_atomically
from bertdata.shards import FORMAT_VERSION, Block, BlockEntry, read_block
from bertdata.statistics import Statistics, load_statistics
from bertdata.wordpiece import tokenizer_files

__all__ = [
    "BlockIndex",
    "DataSet",
    "Manifest",
    "Origin",
    "ShardEntry",
    "TokenizerInfo",
    "check_shards",
    "open_data_set",
    "write_index",
    "write_manifest",
]

MANIFEST = "manifest.json"
INDEX = "index.arrow"
# Counts of documents that were read and not kept, by reason: documents = documents_kept + these.
DROPPED_DOCUMENTS = ("documents_without_tokens", "excluded_documents", "duplicates", "one_sentence_documents")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockIndex:
    """Where each of N blocks lies. One row per block, in shard order.

    Attributes:
        shard: int32 [N]; index into `Manifest.shards`.
        offset: int64 [N]; first byte of the block in its shard.
        num_bytes: int64 [N].
        num_samples: int64 [N].
        num_tokens: int64 [N].
        crc32: uint32 [N]; of the block's bytes.
    """

    shard: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    num_bytes: npt.NDArray[np.int64]
    num_samples: npt.NDArray[np.int64]
    num_tokens: npt.NDArray[np.int64]
    crc32: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.shard)

    def take(self, rows: npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]) -> BlockIndex:
        """Returns the chosen rows."""
        return BlockIndex(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A finished data set: its folder, manifest and block index."""

    folder: Path
    manifest: Manifest
    index: BlockIndex

    def blocks(self, split: str) -> BlockIndex:
        """Returns the index rows of the blocks of `split`, "train" or "eval"."""
        wanted = np.array([shard.split == split for shard in self.manifest.shards], dtype=bool)
        return self.index.take(wanted[self.index.shard] if len(self.index) else np.zeros(0, dtype=bool))

    def load_statistics(self) -> Statistics:
        """Reads the statistics that the build counted."""
        return load_statistics(
            self.folder,
            max_seq_length=self.manifest.options["pairs"]["max_seq_length"],
            vocab_size=self.manifest.tokenizer.vocab_size,
        )

    def copy_tokenizer(self, out: Path, *, overwrite: bool = False) -> None:
        """Writes the files of the tokenizer to another folder.

        Raises:
            OutputError: The folder holds those of another tokenizer, and they are not to be overwritten.
        """
        files = {out / path.name: path.read_bytes() for path in tokenizer_files(self.folder)}
        for path, data in files.items():
            if path.exists() and path.read_bytes() != data and not overwrite:
                raise OutputError(f"{path} is not the one of {self.folder}; give another --out")
        for path, data in files.items():
            write_atomically(path, data)

    def read(self, blocks: BlockIndex, row: int) -> Block:
        """Reads the block in row `row` of `blocks`, checked; see `bertdata.shards.read_block`."""
        shard = self.manifest.shards[int(blocks.shard[row])]
        return read_block(
            self.folder / shard.name,
            offset=int(blocks.offset[row]),
            num_bytes=int(blocks.num_bytes[row]),
            crc32=int(blocks.crc32[row]),
            name=f"{row} of its split",
        )


def _check_folders(manifest: Manifest) -> None:
    """Refuses shards that lie in other folders than those of the builds that a data set was merged from."""
    folders = {origin.path for origin in manifest.merged_from} or {"."}
    for shard in manifest.shards:
        folder = PurePosixPath(shard.name).parent
        if folder.is_absolute() or str(folder) not in folders:
            raise ShardError(f"shard {shard.name!r} is in none of the folders {', '.join(sorted(folders))}")


def write_index(folder: Path, blocks: Sequence[Sequence[BlockEntry]]) -> None:
    """Writes `index.arrow`.

    Args:
        folder: The data set's folder.
        blocks: The blocks of each shard, in the order of `Manifest.shards`.
    """
    rows = [(number, block) for number, entries in enumerate(blocks) for block in entries]
    table = pa.table(
        {
            "shard": pa.array([number for number, _ in rows], pa.int32()),
            "offset": pa.array([block.offset for _, block in rows], pa.int64()),
            "num_bytes": pa.array([block.num_bytes for _, block in rows], pa.int64()),
            "num_samples": pa.array([block.num_samples for _, block in rows], pa.int64()),
            "num_tokens": pa.array([block.num_tokens for _, block in rows], pa.int64()),
            "crc32": pa.array([block.crc32 for _, block in rows], pa.uint32()),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_atomically(folder / INDEX, sink.getvalue().to_pybytes())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json`, which commits the data set."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False)
    write_atomically(folder / MANIFEST, (text + "\n").encode())


def _parse_manifest(values: Mapping[str, Any], *, path: Path) -> Manifest:
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path} has format version {version}; this release reads version {FORMAT_VERSION}. "
            "Build the data set again, or install the release that wrote it."
        )
    try:
        return Manifest(
            format_version=version,
            build=values["build"],
            options=values["options"],
            tokenizer=TokenizerInfo(**values["tokenizer"]),
            versions=values["versions"],
            inputs=values["inputs"],
            counts=values["counts"],
            languages=values["languages"],
            shards=tuple(ShardEntry(**shard) for shard in values["shards"]),
            files=values["files"],
            excluded_not_found=tuple(values.get("excluded_not_found", ())),
            merged_from=tuple(Origin(**origin) for origin in values.get("merged_from", ())),
        )
    except (KeyError, TypeError) as error:
        raise ShardError(f"{path} is no manifest of a data set ({error!r}); build the data set again") from error


def _load_index(path: Path) -> BlockIndex:
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        columns = {field.name: table[field.name].to_numpy() for field in dataclasses.fields(BlockIndex)}
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ShardError(f"{path} cannot be read as a block index ({error}); build the data set again") from error
    return BlockIndex(**columns)


def check_shards(folder: Path, manifest: Manifest) -> None:
    """Checks that each shard is there and has the size that the manifest says.

    Raises:
        ShardError: One is missing or of another size.
    """
    hint = "copy the data set again"
    if manifest.merged_from:
        folders = ", ".join(origin.path for origin in manifest.merged_from)
        hint = f"this data set is merged from {folders}, which must stay there, seen from it, and as they were"
    for shard in manifest.shards:
        path = folder / shard.name
        if not path.is_file():
            raise ShardError(f"{path} is missing; {hint}")
        if path.stat().st_size != shard.num_bytes:
            raise ShardError(f"{path} has {path.stat().st_size:,} bytes, not {shard.num_bytes:,}; {hint}")


def open_data_set(folder: Path | str) -> DataSet:
    """Opens a finished data set.

    Args:
        folder: Folder that `bertdata build` wrote.

    Raises:
        ShardError: There is no manifest (the build has not finished, or this is another folder), the format version is
            another one, manifest and index do not fit each other, or a merged data set's shards are not there.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        values = dict(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        lengths = sorted(child.name for child in folder.glob("*/") if (child / MANIFEST).exists())
        hint = (
            f"it holds the data sets {', '.join(lengths)}: name one of them" if lengths else "run bertdata build again"
        )
        raise ShardError(f"{folder} has no {MANIFEST}, so it is not a finished data set; {hint}") from error
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} cannot be read ({error}); build the data set again") from error
    manifest = _parse_manifest(values, path=path)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists() or file_sha256(tokenizer) != manifest.tokenizer.sha256:
        raise ShardError(f"{tokenizer} is not the tokenizer that the shards were built with; copy the folder again")
    if manifest.merged_from:
        check_shards(folder, manifest)
    index = _load_index(folder / INDEX)
    samples = np.bincount(index.shard, weights=index.num_samples, minlength=len(manifest.shards)).astype(np.int64)
    if samples.tolist() != [shard.num_samples for shard in manifest.shards]:
        raise ShardError(f"{folder}: {INDEX} and {MANIFEST} do not belong together; build the data set again")
    return DataSet(folder=folder, manifest=manifest, index=index)
