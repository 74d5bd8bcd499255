"""The baseline: the common recipe, restated plainly. Sentence splitter, `tokenizers` per sentence, Python pairs, masks.

One process, one document after the other, Python's random numbers; masks are drawn once per instance and mask set and
stored with the whole sample, as the scripts of Devlin et al. 2018 and of NVIDIA's LDDL do.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sentencex import segment
from tokenizers import Tokenizer

SHORT_SEQ_PROB = 0.1
MASKED_LM_PROB = 0.15

Rows = dict[str, list[Any]]


def tokenize(documents: list[str], tokenizer: Tokenizer, *, language: str) -> list[list[list[int]]]:
    """Returns the ids of each sentence of each document."""
    tokenized = []
    for text in documents:
        sentences = [sentence for paragraph in text.split("\n") for sentence in segment(language, paragraph)]
        ids = [tokenizer.encode(sentence.strip(), add_special_tokens=False).ids for sentence in sentences]
        tokenized.append([row for row in ids if row])
    return [document for document in tokenized if document]


def build_rows(
    documents: list[list[list[int]]], *, roles: dict[str, int], vocab_size: int, max_seq_length: int, num_mask_sets: int
) -> Rows:
    """Returns the instances of one pass over all documents, each once per mask set."""
    rng = Random(0)
    rows: Rows = {"input_ids": [], "segment_b": [], "label": [], "positions": [], "labels": []}
    for number in range(len(documents)):
        for a, b, label in _pairs(documents, number, rng, max_num_tokens=max_seq_length - 3):
            tokens = [roles["cls"], *a, roles["sep"], *b, roles["sep"]]
            for _ in range(num_mask_sets):
                shown, positions, labels = _mask(tokens, rng, roles=roles, vocab_size=vocab_size)
                rows["input_ids"].append(shown)
                rows["segment_b"].append(len(a) + 2)
                rows["label"].append(label)
                rows["positions"].append(positions)
                rows["labels"].append(labels)
    return rows


def write_rows(rows: Rows, path: Path) -> None:
    """Writes the instances as Parquet."""
    pq.write_table(pa.table(rows), path)


def _pairs(documents: list[list[list[int]]], number: int, rng: Random, *, max_num_tokens: int) -> Any:
    document = documents[number]
    short = rng.random() < SHORT_SEQ_PROB
    target = rng.randint(2, max_num_tokens) if short else max_num_tokens
    chunk: list[list[int]] = []
    length = position = 0
    while position < len(document):
        chunk.append(document[position])
        length += len(document[position])
        position += 1
        if position < len(document) and length < target:
            continue
        a_end = 1 if len(chunk) == 1 else rng.randint(1, len(chunk) - 1)
        a = [token for sentence in chunk[:a_end] for token in sentence]
        b: list[int] = []
        is_random = len(chunk) == 1 or rng.random() < 0.5
        if is_random:
            other = number
            for _ in range(10):
                other = rng.randrange(len(documents))
                if other != number:
                    break
            for sentence in documents[other][rng.randrange(len(documents[other])) :]:
                b += sentence
                if len(b) >= target - len(a):
                    break
            position -= len(chunk) - a_end
        else:
            b = [token for sentence in chunk[a_end:] for token in sentence]
        while len(a) + len(b) > max_num_tokens:
            longer = a if len(a) > len(b) else b
            if rng.random() < 0.5:
                del longer[0]
            else:
                longer.pop()
        yield a, b, int(is_random)
        chunk, length = [], 0


def _mask(
    tokens: list[int], rng: Random, *, roles: dict[str, int], vocab_size: int
) -> tuple[list[int], list[int], list[int]]:
    candidates = [place for place, token in enumerate(tokens) if token not in (roles["cls"], roles["sep"])]
    rng.shuffle(candidates)
    positions = sorted(candidates[: max(1, round(len(tokens) * MASKED_LM_PROB))])
    shown = list(tokens)
    for position in positions:
        draw = rng.random()
        if draw < 0.8:
            shown[position] = roles["mask"]
        elif draw < 0.9:
            shown[position] = rng.randrange(vocab_size)
    return shown, positions, [tokens[position] for position in positions]
