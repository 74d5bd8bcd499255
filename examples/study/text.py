"""Which documents are trained on and which are held out: a sample of any input, the same in whatever order it comes."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bertdata.config import ReadOptions
from bertdata.errors import InputError
from bertdata.files import write_atomically
from bertdata.readers import iter_documents
from bertdata.splits import plan_splits

__all__ = ["divide", "sample"]


def sample(texts: Iterator[str], *, num_chars: int) -> list[str]:
    """Returns the texts with the smallest hashes, as many as have so many characters together, in their order.

    Memory is what these take: those with the greatest hashes go as others come.
    """
    kept: list[tuple[int, str]] = []  # a heap, the greatest hash first
    total, seen = 0, set()
    for text in texts:
        number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
        if number in seen:
            continue
        heapq.heappush(kept, (-number, text))
        seen.add(number)
        total += len(text)
        while total - len(kept[0][1]) >= num_chars:
            gone, last = heapq.heappop(kept)
            seen.remove(-gone)
            total -= len(last)
    return [text for _, text in sorted(kept, reverse=True)]


def _iter_texts(source: str, *, document_chars: int | None) -> Iterator[str]:
    """Yields the texts of an input, long ones cut at the end of a paragraph where there is one."""
    options = ReadOptions()
    for split in plan_splits([source], options=options):
        for document in iter_documents(split, options=options, counts=Counter(), rejects=[]):
            text = document.text
            if document_chars is not None and len(text) > document_chars:
                text = text[:document_chars].rpartition("\n")[0] or text[:document_chars]
            yield text


def divide(
    source: str, *, out: Path, train_chars: int, held_out_chars: int, document_chars: int | None
) -> dict[str, dict[str, int]]:
    """Writes held-out.jsonl and train.jsonl, which have no document in common.

    Args:
        source: Input of any format of `bertdata build`.
        out: Folder for both.
        train_chars: Characters of the training text, about.
        held_out_chars: Characters of the held-out text, about; less where there is not enough for both.
        document_chars: Characters of a document at most; None for no limit.

    Returns:
        Documents and characters of "train" and "held-out".

    Raises:
        InputError: There is too little text.
    """
    texts = sample(_iter_texts(source, document_chars=document_chars), num_chars=train_chars + held_out_chars)
    total = sum(map(len, texts))
    wanted = min(held_out_chars, total * held_out_chars // (train_chars + held_out_chars))
    cut, taken = 0, 0
    while cut < len(texts) and taken < wanted:
        taken += len(texts[cut])
        cut += 1
    parts = {"held-out": texts[:cut], "train": texts[cut:]}
    if len(parts["train"]) < 2 or len(parts["held-out"]) < 2:
        raise InputError(f"{source} has only {len(texts)} documents; a study needs two to train on and two held out")
    for name, part in parts.items():
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in part)
        write_atomically(out / f"{name}.jsonl", lines.encode())
    return {name: {"documents": len(part), "characters": sum(map(len, part))} for name, part in parts.items()}
