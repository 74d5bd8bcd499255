"""Runs: a split's tokenized documents on disk, sorted by key, so that a shard can read its key range out of each.

A document's key is a 128-bit hash of its sentences. Keys are uniform, so a contiguous range of keys is a uniform
sample of the corpus, whatever the input's order. A run is one file:

    keys              uint64 [D, 2]     sorted; high and low half of the key
    num_sentences     uint32 [D]
    num_tokens        uint32 [S]        of each sentence
    tokens            uint16 or 32 [T]
    fences            int64 [F, 2]      sentences and tokens before document 0, 64, 128, ...
    footer            JSON: counts, dtype and where each array starts; its length in the last 8 bytes

A range is found by binary search over the keys and read with one positioned read per array.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.errors import OutputError
from bertdata.storage import Folder

__all__ = [
    "Documents",
    "RunWriter",
    "concatenate_documents",
    "document_key",
    "gather_spans",
    "key_bins",
    "offsets_of",
    "read_run",
]

RUN_BYTES = 256 << 20
BIN_BITS = 16
FENCE = 64
_ARRAYS = ("keys", "num_sentences", "num_tokens", "tokens", "fences")


def document_key(sentences: Sequence[str]) -> bytes:
    """Returns the 16-byte key of a document: BLAKE2b of its sentences, joined by newlines."""
    return hashlib.blake2b("\n".join(sentences).encode(), digest_size=16).digest()


def key_bins(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Returns the bin of each key: its first 16 bits. Shards are planned as ranges of bins."""
    return (keys[:, 0] >> np.uint64(64 - BIN_BITS)).astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Documents:
    """D documents with S sentences and T tokens in all, end to end.

    Attributes:
        keys: uint64 [D, 2]; high and low half of each document's key.
        sentence_offsets: int64 [D + 1]; where each document starts among the sentences.
        token_offsets: int64 [S + 1]; where each sentence starts among the tokens.
        tokens: uint16 or uint32 [T].
    """

    keys: npt.NDArray[np.uint64]
    sentence_offsets: npt.NDArray[np.int64]
    token_offsets: npt.NDArray[np.int64]
    tokens: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Documents:
        """Returns the documents in the given rows, in that order."""
        sentences, sentence_offsets = gather_spans(self.sentence_offsets[rows], self.sentence_offsets[rows + 1])
        starts, stops = self.token_offsets[sentences], self.token_offsets[sentences + 1]
        tokens, token_offsets = gather_spans(starts, stops)
        return Documents(
            keys=self.keys[rows],
            sentence_offsets=sentence_offsets,
            token_offsets=token_offsets,
            tokens=self.tokens[tokens],
        )


def gather_spans(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the indices of N spans end to end, and where each span starts among them.

    Args:
        starts: int64 [N].
        stops: int64 [N].

    Returns:
        indices, int64 [sum of lengths]; offsets, int64 [N + 1].
    """
    lengths = stops - starts
    offsets = offsets_of(lengths)
    indices: npt.NDArray[np.int64] = np.repeat(starts - offsets[:-1], lengths)
    indices += np.arange(len(indices))  # in place: a third of the time goes into making arrays
    return indices, offsets


def offsets_of(lengths: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Returns where each of N things starts, and the end of the last: int64 [N + 1]."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def concatenate_documents(parts: Sequence[Documents]) -> Documents:
    """Returns the documents of all parts in order of their keys; equal keys stay in the order of the parts."""
    whole = Documents(
        keys=np.concatenate([part.keys for part in parts]),
        sentence_offsets=offsets_of(np.concatenate([np.diff(part.sentence_offsets) for part in parts])),
        token_offsets=offsets_of(np.concatenate([np.diff(part.token_offsets) for part in parts])),
        tokens=np.concatenate([part.tokens for part in parts]),
    )
    return whole.take(np.lexsort((whole.keys[:, 1], whole.keys[:, 0])))


class RunWriter:
    """Collects the documents of one split and writes them as sorted runs.

    Args:
        folder: Where runs go.
        stem: Start of the runs' names, another one for each split.
        dtype: dtype of the token ids.
        run_bytes: Bytes of token ids after which a run is written.
    """

    def __init__(self, folder: Folder, *, stem: str, dtype: np.dtype[Any], run_bytes: int = RUN_BYTES) -> None:
        self.names: list[str] = []
        self._folder = folder
        self._stem = stem
        self._dtype = dtype
        self._run_bytes = run_bytes
        self._histogram = np.zeros((1 << BIN_BITS, 3), dtype=np.int64)
        self._clear()

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._num_sentences: list[int] = []
        self._num_tokens: list[npt.NDArray[np.int64]] = []
        self._tokens: list[npt.NDArray[Any]] = []
        self._bytes = 0

    def add(self, key: bytes, *, tokens: npt.NDArray[Any], num_tokens: npt.NDArray[np.int64]) -> None:
        """Adds one document.

        Args:
            key: From `document_key`.
            tokens: Ids of all its sentences, end to end.
            num_tokens: int64; how many tokens each sentence has.
        """
        self._keys.append(key)
        self._num_sentences.append(len(num_tokens))
        self._num_tokens.append(num_tokens)
        self._tokens.append(tokens)
        self._bytes += tokens.nbytes + 4 * len(num_tokens) + 24
        if self._bytes >= self._run_bytes:
            self._flush()

    def close(self) -> npt.NDArray[np.int64]:
        """Writes what is left and returns documents, sentences and tokens by key bin: int64 [65,536, 3]."""
        self._flush()
        return self._histogram

    def _flush(self) -> None:
        if not self._keys:
            return
        keys = np.frombuffer(b"".join(self._keys), dtype=">u8").reshape(-1, 2).astype(np.uint64)
        part = Documents(
            keys=keys,
            sentence_offsets=offsets_of(np.array(self._num_sentences)),
            token_offsets=offsets_of(np.concatenate(self._num_tokens)),
            tokens=np.concatenate(self._tokens).astype(self._dtype, copy=False),
        )
        documents = concatenate_documents([part])
        name = f"{self._stem}-{len(self.names):04d}.run"
        _write_run(self._folder, name, documents)
        self.names.append(name)
        bins = key_bins(documents.keys)
        tokens_before = documents.token_offsets[documents.sentence_offsets]
        np.add.at(self._histogram[:, 0], bins, 1)
        np.add.at(self._histogram[:, 1], bins, np.diff(documents.sentence_offsets))
        np.add.at(self._histogram[:, 2], bins, np.diff(tokens_before))
        self._clear()


def _write_run(folder: Folder, run: str, documents: Documents) -> None:
    fence_sentences = documents.sentence_offsets[:-1:FENCE]
    arrays = {
        "keys": documents.keys,
        "num_sentences": np.diff(documents.sentence_offsets).astype(np.uint32),
        "num_tokens": np.diff(documents.token_offsets).astype(np.uint32),
        "tokens": documents.tokens,
        "fences": np.stack([fence_sentences, documents.token_offsets[fence_sentences]], axis=1),
    }
    with folder.create(run) as file:
        starts = {}
        for name in _ARRAYS:
            starts[name] = file.tell()
            file.write(np.ascontiguousarray(arrays[name]).data)
        footer = {
            "num_documents": len(documents),
            "num_sentences": len(documents.token_offsets) - 1,
            "num_tokens": len(documents.tokens),
            "dtype": documents.tokens.dtype.str,
            "starts": starts,
        }
        data = json.dumps(footer).encode()
        file.write(data + len(data).to_bytes(8, "little"))


def read_run(folder: Folder, name: str, *, first_bin: int, last_bin: int) -> Documents:
    """Reads the documents of a run whose key bin is at least `first_bin` and below `last_bin`.

    Raises:
        OutputError: The run is missing or damaged.
    """
    try:
        return _read_range(folder, name, first_bin=first_bin, last_bin=last_bin)
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(
            f"the intermediate file {folder.location}/{name} cannot be read ({error}); run the same command with "
            "--overwrite"
        ) from error


def _read_range(folder: Folder, run: str, *, first_bin: int, last_bin: int) -> Documents:
    size = folder.size(run)
    if size is None:
        raise FileNotFoundError("it is missing")

    def read_bytes(start: int, stop: int) -> bytes:
        return folder.read_ranges(run, [(start, stop)])[0]

    length = int.from_bytes(read_bytes(max(size - 8, 0), size), "little")
    if not 0 < length < size:
        raise ValueError("it is cut off")
    footer = json.loads(read_bytes(size - 8 - length, size - 8))

    def read(name: str, dtype: str, start: int, stop: int) -> npt.NDArray[Any]:
        item, first = np.dtype(dtype).itemsize, footer["starts"][name]
        return np.frombuffer(read_bytes(first + start * item, first + stop * item), dtype=dtype)

    num_documents = footer["num_documents"]

    def find(first: int) -> int:
        low, high = 0, num_documents
        while low < high:
            middle = (low + high) // 2
            if int(read("keys", "<u8", 2 * middle, 2 * middle + 1)[0]) >> (64 - BIN_BITS) < first:
                low = middle + 1
            else:
                high = middle
        return low

    start, stop = find(first_bin), find(last_bin)
    fence = start // FENCE
    sentences_before, tokens_before = 0, 0
    if start < num_documents:
        sentences_before, tokens_before = read("fences", "<i8", 2 * fence, 2 * fence + 2).tolist()
    num_sentences = read("num_sentences", "<u4", fence * FENCE, stop) if stop > start else np.zeros(0, dtype="<u4")
    skipped = int(num_sentences[: start - fence * FENCE].sum()) if stop > start else 0
    num_sentences = num_sentences[start - fence * FENCE :]
    total = int(num_sentences.sum())
    num_tokens = read("num_tokens", "<u4", sentences_before, sentences_before + skipped + total)
    tokens_before += int(num_tokens[:skipped].sum())
    num_tokens = num_tokens[skipped:]
    return Documents(
        keys=read("keys", "<u8", 2 * start, 2 * stop).reshape(-1, 2),
        sentence_offsets=offsets_of(num_sentences),
        token_offsets=offsets_of(num_tokens),
        tokens=read("tokens", footer["dtype"], tokens_before, tokens_before + int(num_tokens.sum())),
    )
