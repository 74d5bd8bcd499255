"""Reads an export with pandas, and makes a batch for transformers' BertForPreTraining with datasets.

bertdata export shards/ --out exported/ --mask-set 0
python examples/interchange/with_parquet.py exported/
"""

import sys
from pathlib import Path

import pandas
from datasets import load_dataset
from tokenizers import Tokenizer
from torch import tensor
from torch.nn.utils.rnn import pad_sequence

folder = Path(sys.argv[1])
paths = sorted(str(path) for path in folder.glob("train-*.parquet"))
table = pandas.read_parquet(paths, columns=["input_ids", "next_sentence_label"])
print(f"samples        {len(table):,}")
print(f"mean length    {table['input_ids'].map(len).mean():.2f}")
print(f"NotNext        {table['next_sentence_label'].mean():.4f}")
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
print(f"first sample   {' '.join(str(tokenizer.id_to_token(number)) for number in table['input_ids'][0])}")

# Rows are not padded: pad each batch to its longest row, where attention_mask is 0 and labels are -100.
rows = list(load_dataset("parquet", data_files=paths, split="train", streaming=True).take(8))
ones = [{"attention_mask": [1] * len(row["input_ids"])} for row in rows]
padding = {"input_ids": tokenizer.token_to_id("[PAD]"), "token_type_ids": 0, "labels": -100, "attention_mask": 0}
batch = {
    name: pad_sequence([tensor((row | one)[name]) for row, one in zip(rows, ones, strict=True)], True, value)
    for name, value in padding.items()
}
batch["next_sentence_label"] = tensor([row["next_sentence_label"] for row in rows])
print(f"a batch        {', '.join(f'{name} {list(values.shape)}' for name, values in batch.items())}")
