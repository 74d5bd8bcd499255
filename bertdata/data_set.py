"""A finished data set: opened from its folder, with its blocks, vocabulary and statistics at hand."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertdata.cache_options import CacheOptions
from bertdata.errors import OutputError, ShardError
from bertdata.files import read_plain_file, write_atomically
from bertdata.index import INDEX, BlockIndex, load_index
from bertdata.manifest import MANIFEST, Manifest, ShardEntry, read_manifest
from bertdata.shard_files import LocalShards, ShardFiles
from bertdata.shard_reading import read_block
from bertdata.shards import Block, position_dtype
from bertdata.statistics import Statistics, load_statistics
from bertdata.uris import is_uri
from bertdata.wordpiece import MAX_TOKENIZER_BYTES, Vocabulary, load_tokenizer, tokenizer_files

__all__ = ["DataSet", "check_shards", "open_data_set"]

_LOG = logging.getLogger(__name__)

_MAX_COPIES_DISCARDED = 2  # of a shard, for one read


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A finished data set.

    Attributes:
        folder: Local folder with the manifest, the index, the tokenizer and the statistics.
        location: What the data set is called in messages: the folder, or the URI that it is read from.
        manifest: What it is made of.
        index: Where its blocks lie.
        shard_files: What its shards are read through.
    """

    folder: Path
    location: str
    manifest: Manifest
    index: BlockIndex
    shard_files: ShardFiles

    def blocks(self, split: str) -> BlockIndex:
        """Returns the index rows of the blocks of `split`, "train" or "eval"."""
        wanted = np.array([shard.split == split for shard in self.manifest.shards], dtype=bool)
        return self.index.take(wanted[self.index.shard] if len(self.index) else np.zeros(0, dtype=bool))

    def only(self, shard: int) -> DataSet:
        """Returns the part that is one shard, for a process that needs no other.

        Args:
            shard: Number of the shard in `Manifest.shards`.
        """
        index = self.index.take(self.index.shard == shard)
        index = dataclasses.replace(index, shard=np.zeros_like(index.shard))
        manifest = dataclasses.replace(self.manifest, shards=(self.manifest.shards[shard],))
        return dataclasses.replace(self, manifest=manifest, index=index)

    def load_statistics(self) -> Statistics:
        """Reads the statistics that the build counted.

        Raises:
            ShardError: They are missing, or not those of such a data set.
        """
        return load_statistics(
            self.folder,
            max_seq_length=self.manifest.options["pairs"]["max_seq_length"],
            vocab_size=self.manifest.tokenizer.vocab_size,
        )

    def copy_tokenizer(self, out: Path, *, overwrite: bool = False) -> None:
        """Writes the files of the tokenizer to another folder.

        Args:
            out: The folder, which is there.
            overwrite: Replace those of another tokenizer.

        Raises:
            OutputError: The folder holds those of another tokenizer, and they are not to be overwritten.
        """
        files = {out / path.name: path.read_bytes() for path in tokenizer_files(self.folder)}
        for path, data in files.items():
            if path.exists() and path.read_bytes() != data and not overwrite:
                raise OutputError(f"{path} is not the one of {self.location}; give another --out")
        for path, data in files.items():
            write_atomically(path, data)

    def load_vocabulary(self) -> Vocabulary:
        """Reads the vocabulary of the tokenizer.

        Raises:
            ShardError: It is not the one that the manifest describes.
        """
        path, said = self.folder / "tokenizer.json", self.manifest.tokenizer
        vocabulary = Vocabulary.of(load_tokenizer(path))
        if (vocabulary.size, vocabulary.roles) != (said.vocab_size, said.roles):
            raise ShardError(
                f"{path} has {vocabulary.size} ids and the roles {vocabulary.roles}, but the manifest says "
                f"{said.vocab_size} and {said.roles}; copy or build the data set again"
            )
        return vocabulary

    def read(self, blocks: BlockIndex, row: int) -> Block:
        """Reads the block in row `row` of `blocks`, checked; see `bertdata.shard_reading.read_block`.

        Args:
            blocks: From `blocks`, or `index`.
            row: Which of them.

        Raises:
            ShardError: The block is damaged, also after its shard was fetched again where it is a copy; or it is not
                one of this data set.
        """
        shard = self.manifest.shards[int(blocks.shard[row])]
        location, name = f"{self.location}/{shard.name}", f"{row} of its split"
        block = self._read_block(shard, blocks, row, location=location, name=name)
        if problem := self._find_problem(block, num_samples=blocks.num_samples[row], num_tokens=blocks.num_tokens[row]):
            raise ShardError(f"{location}, block {name}: {problem}; build the data set again")
        return block

    def _read_block(self, shard: ShardEntry, blocks: BlockIndex, row: int, *, location: str, name: str) -> Block:
        """Reads a block, from another copy of its shard where one is damaged."""
        for may_try_again in (*[True] * _MAX_COPIES_DISCARDED, False):
            with self.shard_files.open(shard) as path:
                try:
                    return read_block(
                        path,
                        offset=int(blocks.offset[row]),
                        num_bytes=int(blocks.num_bytes[row]),
                        crc32=int(blocks.crc32[row]),
                        name=name,
                        location=location,
                    )
                except ShardError as error:
                    if not may_try_again or not self.shard_files.discard(shard):
                        raise
                    _LOG.warning("%s; fetching the shard again", error)
        raise AssertionError("the last try returns or raises")

    def _find_problem(self, block: Block, *, num_samples: int, num_tokens: int) -> str | None:
        """Returns in what way a block is not one of this data set."""
        tokenizer, options = self.manifest.tokenizer, self.manifest.options
        length, num_sets = options["pairs"]["max_seq_length"], options["masks"]["num_mask_sets"]
        has_b = options["pairs"]["next_sentence"] != "none"
        size, dtype = tokenizer.vocab_size, position_dtype(length)
        checks = {
            f"it has not the {num_samples} samples of the index": block.num_samples == num_samples,
            f"it has not the {num_tokens} tokens of the index": len(block.tokens) == num_tokens,
            f"it has not {num_sets} mask sets": block.num_predictions.shape[1] == num_sets,
            f"its tokens are not {tokenizer.token_dtype}": block.tokens.dtype == tokenizer.token_dtype,
            f"its positions are not {dtype}": block.segment_b.dtype == dtype,
            f"it has a sample of more than {length} tokens": block.lengths.max() <= length,
            "it has a sample of two segments": has_b or (block.segment_b == block.lengths).all(),
            f"it has a token beyond the {size} ids": max(block.tokens.max(), block.mask_tokens.max(initial=0)) < size,
        }
        return next((problem for problem, is_right in checks.items() if not is_right), None)


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
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError as error:
            raise ShardError(f"{path} is missing; {hint}") from error
        except OSError as error:
            raise ShardError(f"{path} cannot be read ({error.strerror}); {hint}") from error
        if num_bytes != shard.num_bytes:
            raise ShardError(f"{path} has {num_bytes:,} bytes, not {shard.num_bytes:,}; {hint}")


def _hint(folder: Path) -> str:
    """Returns what to do with a folder that is no data set."""
    lengths = sorted(child.name for child in folder.glob("*/") if (child / MANIFEST).exists())
    if lengths:
        return f"it holds the data sets {', '.join(lengths)}: name one of them"
    if (folder / "run.json").exists():
        return "it is the folder of a run of bert-train; name the folder of its shards"
    return "name a folder that bertdata build wrote, or if the build has not ended, run it again"


def open_data_set(folder: Path | str, *, cache: CacheOptions | None = None) -> DataSet:
    """Opens a finished data set.

    Args:
        folder: Folder that `bertdata build` wrote; or the URI of a copy of it, s3://, gs://, https:// or http://, whose
            shards are fetched when they are needed.
        cache: Where the shards of a URI are kept; None for `CacheOptions()`.

    Raises:
        ShardError: There is no manifest (the build has not finished, or this is another folder), the format version is
            another one, a file is damaged, manifest and index do not fit each other, or the shards of a merged data
            set are not there.
        DownloadError: The server at a URI refuses it, or fails for good.
        OutputError: The cache is too small for a shard, or cannot be written to.
    """
    if is_uri(folder):
        # Only what lies elsewhere needs all that fetches it.
        from bertdata.remote_data_set import fetch_data_set

        location, manifest, shard_cache = fetch_data_set(str(folder), cache or CacheOptions())
        return _open(shard_cache.folder, location=location, manifest=manifest, shard_files=shard_cache)
    folder = Path(folder)
    if not folder.is_dir():
        raise ShardError(f"{folder} is no folder; name the folder of a data set that bertdata build wrote")
    try:
        manifest = read_manifest(folder / MANIFEST)
    except FileNotFoundError as error:
        raise ShardError(f"{folder} has no {MANIFEST}, so it is not a finished data set; {_hint(folder)}") from error
    if manifest.merged_from:
        check_shards(folder, manifest)
    return _open(folder, location=str(folder), manifest=manifest, shard_files=LocalShards(folder))


def _open(folder: Path, *, location: str, manifest: Manifest, shard_files: ShardFiles) -> DataSet:
    path = folder / "tokenizer.json"
    try:
        found = hashlib.sha256(read_plain_file(path, max_bytes=MAX_TOKENIZER_BYTES)).hexdigest()
    except OSError as error:
        raise ShardError(f"{path} cannot be read ({error}); copy the folder again") from error
    if found != manifest.tokenizer.sha256:
        raise ShardError(f"{path} is not the tokenizer that the shards were built with; copy the folder again")
    index = load_index(folder / INDEX, shards=manifest.shards)
    return DataSet(folder=folder, location=location, manifest=manifest, index=index, shard_files=shard_files)
