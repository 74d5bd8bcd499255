"""Where documents lie: which samples are made of a document, found by the keys that blocks store.

No index of keys is kept; one member of each block is read, a few per cent of a shard's bytes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bertdata.config import BuildOptions
from bertdata.data_set import DataSet
from bertdata.documents import Document
from bertdata.errors import InputError, ShardError
from bertdata.files import read_plain_file
from bertdata.lines import join_lines
from bertdata.sentences import sentences_of
from bertdata.shard_reading import read_field
from bertdata.spill import document_key, parse_key

__all__ = ["Place", "describe_document", "find_document", "iter_document_keys"]

_MAX_TEXT_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A sample that has text of a document.

    Attributes:
        row: Row of the sample's block in `DataSet.index`.
        shard: Name of its shard.
        block: Number of its block in the shard.
        sample: Its number in the block.
        role: "A" where segment A is of the document (B may be too), "B" where only segment B is.
    """

    row: int
    shard: str
    block: int
    sample: int
    role: str


def iter_document_keys(data_set: DataSet) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    """Yields the documents of the samples of each block.

    Only these keys are read, so the blocks are not checked by their CRC-32.

    Yields:
        Row of the block in `data_set.index`; first 64 bits of the keys of A's and B's documents, uint64 [N, 2].

    Raises:
        ShardError: A shard is missing, truncated, or holds something else.
    """
    index = data_set.index
    for row in range(len(index)):
        path = data_set.folder / data_set.manifest.shards[int(index.shard[row])].name
        offset = int(index.offset[row])
        keys = read_field(path, offset=offset, num_bytes=int(index.num_bytes[row]), field="document_keys")
        if keys.shape != (index.num_samples[row], 2) or keys.dtype != np.uint64:
            raise ShardError(
                f"{path}, block at byte {offset}: document_keys has dtype {keys.dtype} and shape {keys.shape}, not "
                f"uint64 and {(int(index.num_samples[row]), 2)}; the shard is damaged, copy it again"
            )
        yield row, keys


def find_document(data_set: DataSet, key64: int) -> list[Place]:
    """Finds the samples that have text of a document.

    Args:
        data_set: Where to look.
        key64: First 64 bits of the document's key (see `bertdata.spill.document_key`).

    Returns:
        One place for each such sample, in the order in which they lie.

    Raises:
        ShardError: A shard is missing, truncated, or holds something else.
    """
    return _find_documents(data_set, [key64])[key64]


def _find_documents(data_set: DataSet, keys64: Sequence[int]) -> dict[int, list[Place]]:
    """Returns the places of several documents by key, from reading all keys once."""
    index, shards = data_set.index, data_set.manifest.shards
    first_rows = np.searchsorted(index.shard, np.arange(len(shards)))
    places: dict[int, list[Place]] = {key: [] for key in keys64}
    wanted = np.array(keys64, dtype=np.uint64)
    for row, keys in tqdm(
        iter_document_keys(data_set), total=len(index), desc="looking", unit="block", disable=not sys.stderr.isatty()
    ):
        is_own = np.isin(keys, wanted)
        number = int(index.shard[row])
        for sample in np.flatnonzero(is_own.any(axis=1)).tolist():
            for key in {int(key) for key in keys[sample][is_own[sample]]}:
                places[key].append(
                    Place(
                        row=row,
                        shard=shards[number].name,
                        block=row - int(first_rows[number]),
                        sample=sample,
                        role="A" if keys[sample, 0] == key else "B",
                    )
                )
    return places


def describe_document(data_set: DataSet, key_or_file: str) -> tuple[str, bool]:
    """Tells where a document went.

    Args:
        data_set: Where to look.
        key_or_file: The document's key, of which the first 16 hexadecimal digits count; or a file of its plain text,
            as it was in the input, or as reading made it.

    Returns:
        What was found, as text; whether any sample has text of it.

    Raises:
        InputError: It is neither a key nor a readable file of UTF-8 text.
    """
    key64 = parse_key(key_or_file)
    keys = [int(key64, 16)] if key64 is not None else _keys_of_file(data_set, Path(key_or_file))
    for key, places in _find_documents(data_set, keys).items():
        if places:
            return _describe_places(key, places), True
    named = ", ".join(f"{key:016x}" for key in keys)
    if excluded := {f"{key:016x}" for key in keys} & {*data_set.manifest.options["shards"]["excluded_documents"]}:
        return f"document {', '.join(excluded)} is in no sample of {data_set.folder}: the build excludes it", False
    return (
        f"no sample of {data_set.folder} has text of document {named}: it was not in the input, was dropped "
        "(bertdata inspect --document tells why), or its text is another",
        False,
    )


def _describe_places(key: int, places: list[Place]) -> str:
    roles = Counter(place.role for place in places)
    lines = [
        f"document {key:016x}: {len(places):,} samples, {roles['A']:,} with A of it and {roles['B']:,} with B only"
    ]
    blocks: dict[str, Counter[int]] = {}
    for place in places:
        blocks.setdefault(place.shard, Counter())[place.block] += 1
    for shard, counts in blocks.items():
        named = ", ".join(f"{block} ({count:,})" for block, count in counts.items())
        lines.append(f"  {shard}: blocks (samples) {named}")
    return "\n".join(lines)


def _keys_of_file(data_set: DataSet, path: Path) -> list[int]:
    """Returns the keys that the text of a file may have: by the languages of the data set, its lines joined or not."""
    try:
        text = read_plain_file(path, max_bytes=_MAX_TEXT_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no key of 16 or 32 hexadecimal digits, and no file of text ({error})") from error
    option = BuildOptions.from_json(data_set.manifest.options).read.language
    keys: dict[int, None] = {}
    for form in (join_lines(text), text.strip()):
        as_given = tuple(" ".join(line.split()) for line in form.split("\n") if line.strip())  # a sentence per line
        for language in (None, *data_set.manifest.languages):
            for sentences in (None, as_given):
                document = Document(id=str(path), text=form, language=language, sentences=sentences)
                key = document_key(sentences_of(document, option=option)[1])
                keys[int.from_bytes(key[:8], "big")] = None
    return list(keys)
