"""Where the stages of a build are looked up, for `StageTimes.watch`."""

from __future__ import annotations

import bertdata.runs
import bertdata.tokenizing
from bertdata.encoder import Encoder

__all__ = ["WITHIN_SPLIT"]

# What `tokenize_portion` calls, but for reading.
WITHIN_SPLIT = (
    ("sentences", bertdata.tokenizing, "sentences_of"),
    ("tokens", Encoder, "encode"),
    ("runs (keys, spill)", bertdata.tokenizing, "document_key"),
    ("runs (keys, spill)", bertdata.runs.RunWriter, "add"),
    ("runs (keys, spill)", bertdata.runs.RunWriter, "close"),
)
