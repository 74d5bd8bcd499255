"""Tokenized documents, many at a time, and their keys: a document's key is a 128-bit hash of its sentences."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.spans import gather_spans

__all__ = ["BIN_BITS", "Documents", "document_key", "key_bins", "parse_key"]

BIN_BITS = 16
_KEY = re.compile(r"([0-9a-f]{16})([0-9a-f]{16})?")
_SENTENCES_AT_ONCE = 1 << 14  # a document may have 60 MB of them


def document_key(sentences: Sequence[str]) -> bytes:
    """Returns the 16-byte key of a document: BLAKE2b of its sentences, joined by newlines."""
    digest = hashlib.blake2b(digest_size=16)
    for first in range(0, len(sentences), _SENTENCES_AT_ONCE):
        if first:
            digest.update(b"\n")
        digest.update("\n".join(sentences[first : first + _SENTENCES_AT_ONCE]).encode())
    return digest.digest()


def parse_key(text: str) -> str | None:
    """Returns the first 16 digits, which is what samples store, of a key of 16 or 32 hexadecimal ones; else None."""
    match = _KEY.fullmatch(text.lower())
    return match[1] if match is not None else None


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
