"""Runs: files of a portion's tokenized documents, sorted by key, of which a shard reads one contiguous part each.

Keys are uniform, so a contiguous range of keys is a uniform sample of the corpus, whatever the input's order. A run is
nothing but documents, one after the other, in the order of their keys:

    num_bytes         uint32           of the document, this number and padding included
    crc32             uint32           of all that follows
    key               16 bytes
    num_sentences     uint32
    num_tokens        uint32
    lengths           uint32 [S]       tokens of each sentence
    tokens            uint16 or 32 [T]
    padding           to 4 bytes

Beside it lies how many documents, tokens and bytes it has of each key bin, from which the shards are planned and with
them where each one's part of the run begins and ends (`bertdata.ranges`): no part of a run is read that is not wanted.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from array import array
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertdata.arrays import read_npz
from bertdata.errors import OutputError
from bertdata.spans import offsets_of
from bertdata.spill import key_bins
from bertdata.storage import Folder

__all__ = ["HEAD_BYTES", "SIZE_AND_CRC", "Run", "RunBins", "RunWriter", "damaged_run", "run_name"]

RUN_BYTES = 128 << 20
HEAD_BYTES = 32
_BODY_HEAD = struct.Struct("<16sII")
SIZE_AND_CRC = struct.Struct("<II")


class Run(NamedTuple):
    """A run in the folder of runs.

    Attributes:
        portion: The portion whose documents it holds.
        number: Its number among the runs of that portion.
        num_bytes: Bytes of the file.
        bins_bytes: Bytes of the file of its bins.
    """

    portion: int
    number: int
    num_bytes: int
    bins_bytes: int

    @property
    def bins_name(self) -> str:
        """File name of its bins."""
        return bins_name(self.portion, self.number)


def run_name(portion: int, number: int) -> str:
    """Returns the file name of a run."""
    return f"{portion:05d}-{number:04d}.run"


def bins_name(portion: int, number: int) -> str:
    """Returns the file name of a run's bins."""
    return f"{portion:05d}-{number:04d}.npz"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunBins:
    """What a run has of each of the B key bins that are not empty, in order.

    Attributes:
        bins: int64 [B].
        num_documents: int64 [B].
        num_tokens: int64 [B].
        num_bytes: int64 [B].
    """

    bins: npt.NDArray[np.int64]
    num_documents: npt.NDArray[np.int64]
    num_tokens: npt.NDArray[np.int64]
    num_bytes: npt.NDArray[np.int64]

    def to_bytes(self) -> bytes:
        """Returns the numbers as an `.npz`, each array in the narrowest type that holds it."""
        sink = io.BytesIO()
        arrays = {name: getattr(self, name) for name in self.__slots__}
        np.savez(sink, **{name: part.astype(np.min_scalar_type(part.max())) for name, part in arrays.items()})
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> RunBins:
        """Reads what `to_bytes` gave; `where` names it in messages.

        Raises:
            OutputError: It is damaged.
        """
        try:
            arrays = read_npz(data)
            return cls(**{name: arrays[name].astype(np.int64) for name in cls.__slots__})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise damaged_run(where, error) from error


def damaged_run(where: str, error: Exception) -> OutputError:
    """Returns the error for a damaged file among the runs."""
    return OutputError(
        f"the intermediate file {where} cannot be read ({error}); run the same command again, with --overwrite if that "
        "does not help"
    )


class RunWriter:
    """Collects the documents of one portion and writes them as runs.

    Args:
        folder: Where runs go.
        portion: Number of the portion, by which runs are named.
        dtype: dtype of the token ids.
        run_bytes: Bytes after which a run is written; that much is held in memory, once.
    """

    def __init__(self, folder: Folder, *, portion: int, dtype: np.dtype[Any], run_bytes: int = RUN_BYTES) -> None:
        self.runs: list[Run] = []
        self._folder = folder
        self._portion = portion
        self._dtype = dtype
        self._run_bytes = run_bytes
        self._clear()

    def _clear(self) -> None:
        self._data = bytearray()
        self._keys = bytearray()
        self._sizes = array("I")
        self._num_tokens = array("I")

    def add(self, key: bytes, *, tokens: npt.NDArray[Any], num_tokens: npt.NDArray[np.int64]) -> None:
        """Adds one document.

        Args:
            key: From `document_key`.
            tokens: Ids of all its sentences, end to end.
            num_tokens: int64; how many tokens each sentence has.
        """
        body = b"".join(
            (
                _BODY_HEAD.pack(key, len(num_tokens), len(tokens)),
                num_tokens.astype("<u4").tobytes(),
                tokens.astype(self._dtype, copy=False).tobytes(),
                bytes(-tokens.size * self._dtype.itemsize % 4),
            )
        )
        self._data += SIZE_AND_CRC.pack(8 + len(body), zlib.crc32(body))
        self._data += body
        self._keys += key
        self._sizes.append(8 + len(body))
        self._num_tokens.append(len(tokens))
        if len(self._data) + len(self._keys) >= self._run_bytes:
            self._flush()

    def close(self) -> list[Run]:
        """Writes what is left and returns all runs."""
        self._flush()
        return self.runs

    def _flush(self) -> None:
        if not self._sizes:
            return
        keys = np.frombuffer(self._keys, dtype=">u8").reshape(-1, 2).astype(np.uint64)
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        sizes = np.frombuffer(self._sizes, dtype=np.uint32).astype(np.int64)
        starts = offsets_of(sizes)
        number = len(self.runs)
        with self._folder.create(run_name(self._portion, number)) as file, memoryview(self._data) as data:
            for row in order.tolist():
                file.write(data[starts[row] : starts[row + 1]])
        bins, first = np.unique(key_bins(keys[order]), return_index=True)
        num_tokens = np.frombuffer(self._num_tokens, dtype=np.uint32).astype(np.int64)
        run_bins = RunBins(
            bins=bins,
            num_documents=np.diff(first, append=len(order)),
            num_tokens=np.add.reduceat(num_tokens[order], first),
            num_bytes=np.add.reduceat(sizes[order], first),
        ).to_bytes()
        self._folder.write(bins_name(self._portion, number), run_bins)
        self.runs.append(Run(self._portion, number, int(starts[-1]), len(run_bins)))
        self._clear()
