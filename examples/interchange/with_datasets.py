"""Reads a data set with Hugging Face datasets, streamed from the shards: a row of arrays per block.

python examples/interchange/with_datasets.py shards/

No `with_format("numpy")`: the arrays are numpy's already, and it would copy them value by value, far more slowly.
"""

import json
import sys
from pathlib import Path

import numpy as np
from datasets import load_dataset
from tokenizers import Tokenizer

folder = Path(sys.argv[1])
shards = json.loads((folder / "manifest.json").read_text())["shards"]
paths = [str(folder / shard["name"]) for shard in shards if shard["split"] == "train"]
num_samples = num_tokens = num_not_next = 0
first = None
for block in load_dataset("webdataset", data_files=paths, split="train", streaming=True):
    first = first or block
    num_samples += len(block["segment_b.npy"])
    num_tokens += len(block["tokens.npy"])
    num_not_next += int(np.sum(block["next_sentence_label.npy"]))
print(f"samples        {num_samples:,}")
print(f"mean length    {num_tokens / num_samples:.2f}")
print(f"NotNext        {num_not_next / num_samples:.4f}")

# The first sample as the model sees it with its first mask set.
assert first is not None
sample = np.array(first["tokens.npy"][: first["token_offsets.npy"][1]])
num_predictions = first["num_predictions.npy"][0][0]
sample[first["mask_positions.npy"][:num_predictions]] = first["mask_tokens.npy"][:num_predictions]
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
print(f"first sample   {' '.join(str(tokenizer.id_to_token(number)) for number in sample.tolist())}")
