"""Models with random weights as transformers saves them, to be asked, and what transformers itself says of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, BertConfig

from bertdata.wordpiece import load_tokenizer, write_tokenizer

SENTENCES = (
    "The cat sat on the mat.",
    "a river and the old bridge",
    "It was sleeping, I think!",
    "Where did the cat sit?",
    "dog",
    "we walked along the river to the town, and the town was old; the bridge, too, was old",
)


def save_model(
    folder: Path, *, architecture: str, tokenizer_file: Path, seed: int = 0, positions: int = 64, **config: Any
) -> Path:
    """Saves a model with random weights, and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(tokenizer_file)
    options = BertConfig(
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=positions,
        initializer_range=0.4,  # so that probabilities are far from each other
        **config,
    )
    model = getattr(transformers, architecture)(options)
    for bias in (parameter for name, parameter in model.named_parameters() if name.endswith("bias")):
        torch.nn.init.normal_(bias)
    model.save_pretrained(folder)
    tokenizer.encode_special_tokens = False
    write_tokenizer(tokenizer, folder / "tokenizer.json")
    return folder


def ask_transformers(folder: Path, *, architecture: str, text: str, text_b: str | None = None) -> tuple[Any, Any]:
    """Returns what the tokenizer makes of texts, and what the model says of them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    inputs = tokenizer(text, text_b, return_tensors="pt")
    with torch.no_grad():
        return inputs, model(**inputs)
