"""Reads a data set with numpy and the standard library alone.

python examples/interchange/with_numpy.py shards/

A shard is a plain tar file of `.npy` arrays, eight for each block of samples, the last of which is mask_tokens.
"""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def iter_blocks(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the blocks of a shard: arrays by name."""
    block = {}
    with tarfile.open(path) as archive:
        while member := archive.next():
            name = member.name.split(".")[1]
            block[name] = np.load(io.BytesIO(archive.extractfile(member).read()), allow_pickle=False)
            if name == "mask_tokens":
                yield block
                block = {}


folder = Path(sys.argv[1])
shards = json.loads((folder / "manifest.json").read_text())["shards"]
first, num_samples, num_tokens, num_not_next = None, 0, 0, 0
for shard in shards:
    for block in iter_blocks(folder / shard["name"]) if shard["split"] == "train" else ():
        first = first or block
        num_samples += len(block["segment_b"])
        num_tokens += len(block["tokens"])
        num_not_next += int(block["next_sentence_label"].sum())
print(f"samples        {num_samples:,}")
print(f"mean length    {num_tokens / num_samples:.2f}")
print(f"NotNext        {num_not_next / num_samples:.4f}")

# The first sample as the model sees it with its first mask set.
sample = first["tokens"][: first["token_offsets"][1]].copy()
num_predictions = first["num_predictions"][0, 0]
sample[first["mask_positions"][:num_predictions]] = first["mask_tokens"][:num_predictions]
vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
pieces = {number: piece for piece, number in vocab.items()}
print(f"first sample   {' '.join(pieces[number] for number in sample.tolist())}")
