"""Reads a data set with stock webdataset, which gives a dictionary of numpy arrays per block.

python examples/interchange/with_webdataset.py shards/
"""

import json
import sys
from pathlib import Path

import webdataset
from tokenizers import Tokenizer

folder = Path(sys.argv[1])
shards = json.loads((folder / "manifest.json").read_text())["shards"]
paths = [str(folder / shard["name"]) for shard in shards if shard["split"] == "train"]
num_samples = num_tokens = num_not_next = 0
first = None
for block in webdataset.WebDataset(paths, shardshuffle=False).decode():
    first = first or block
    num_samples += len(block["segment_b.npy"])
    num_tokens += len(block["tokens.npy"])
    num_not_next += int(block["next_sentence_label.npy"].sum())
print(f"samples        {num_samples:,}")
print(f"mean length    {num_tokens / num_samples:.2f}")
print(f"NotNext        {num_not_next / num_samples:.4f}")

# The first sample as the model sees it with its first mask set.
assert first is not None
sample = first["tokens.npy"][: first["token_offsets.npy"][1]].copy()
num_predictions = first["num_predictions.npy"][0, 0]
sample[first["mask_positions.npy"][:num_predictions]] = first["mask_tokens.npy"][:num_predictions]
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
print(f"first sample   {' '.join(str(tokenizer.id_to_token(number)) for number in sample.tolist())}")
