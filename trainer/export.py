"""The finished model as a folder that transformers reads: config.json, model.safetensors and the tokenizer.

Parameters already carry transformers' names. Left to do: cut the padding off the vocabulary.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from trainer.config import ModelOptions
from trainer.model import BertForPreTraining
from trainer.run_folder import writing
from trainer.weight_files import WORDS

__all__ = ["export_model", "hf_config", "hf_weights"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def hf_config(options: ModelOptions, *, pad_token_id: int) -> dict[str, Any]:
    """Returns the contents of `config.json`."""
    return {
        "architectures": ["BertForPreTraining"],
        "model_type": "bert",
        "vocab_size": options.vocab_size,
        "num_hidden_layers": options.num_hidden_layers,
        "hidden_size": options.hidden_size,
        "num_attention_heads": options.num_attention_heads,
        "intermediate_size": options.intermediate_size,
        "hidden_act": "gelu",
        "max_position_embeddings": options.max_position_embeddings,
        "type_vocab_size": options.type_vocab_size,
        "hidden_dropout_prob": options.hidden_dropout_prob,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": options.initializer_range,
        "layer_norm_eps": options.layer_norm_eps,
        "pad_token_id": pad_token_id,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def hf_weights(model: BertForPreTraining) -> dict[str, Tensor]:
    """Returns the weights as transformers stores them: float32 on the CPU, no vocabulary padding, tied ones once."""
    weights = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    weights[WORDS] = weights[WORDS][: model.options.vocab_size]
    return {name: tensor.clone().contiguous() for name, tensor in weights.items()}


def export_model(model: BertForPreTraining, folder: Path, *, tokenizer_folder: Path, pad_token_id: int) -> None:
    """Writes the model as a folder for transformers; an earlier export there is replaced.

    Args:
        model: The trained model.
        folder: Where to; it appears complete or not at all.
        tokenizer_folder: Data set, the tokenizer files of which are copied.
        pad_token_id: Id of [PAD] in that tokenizer.

    Raises:
        OutputError: The disk is full or cannot be written to.
    """
    with writing(folder, also=SafetensorError):
        _export(model, folder, tokenizer_folder=tokenizer_folder, pad_token_id=pad_token_id)


def _export(model: BertForPreTraining, folder: Path, *, tokenizer_folder: Path, pad_token_id: int) -> None:
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        config = json.dumps(hf_config(model.options, pad_token_id=pad_token_id), indent=2)
        (temporary / "config.json").write_text(config + "\n", encoding="utf-8")
        save_file(hf_weights(model), temporary / "model.safetensors", metadata={"format": "pt"})
        shutil.copymode(temporary / "config.json", temporary / "model.safetensors")  # else it is the owner's alone
        for name in _TOKENIZER_FILES:
            if (tokenizer_folder / name).exists():
                shutil.copyfile(tokenizer_folder / name, temporary / name)
        _replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, folder: Path) -> None:
    """Moves `new` to `folder`; a folder cannot be renamed over a full one, so an old one steps aside first."""
    old = folder.with_name(f"{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
