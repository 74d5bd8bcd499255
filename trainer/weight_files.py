"""Weights of a BERT from a folder that transformers wrote, under the names that our model gives them.

what is in the file                               what becomes of it
bert.encoder.layer.0.output.LayerNorm.gamma       bert.encoder.layer.0.output.LayerNorm.weight (early checkpoints)
encoder.layer.0.output.LayerNorm.weight           bert.encoder.layer.0. ... (BertModel, without heads)
cls.predictions.decoder.weight, .bias             left out: a copy of the word embeddings, of cls.predictions.bias
bert.embeddings.position_ids                      left out: no weight
classifier.weight                                 not used, and said
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bertdata.errors import TrainingError

__all__ = ["WORDS", "load_weights", "put_weights", "rename_weights"]

WORDS = "bert.embeddings.word_embeddings.weight"
_BIAS = "cls.predictions.bias"
_FILES = ("model.safetensors", "pytorch_model.bin")
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
_NO_WEIGHTS = ("position_ids", "token_type_ids")
_COPIES = {"cls.predictions.decoder.weight": WORDS, "cls.predictions.decoder.bias": _BIAS}


def load_weights(folder: Path, *, option: str = "--init") -> dict[str, Tensor]:
    """Returns the weights in a folder under the names that they have there.

    Args:
        folder: With model.safetensors or pytorch_model.bin, or an index of several such files.
        option: What named the folder, for messages.

    Raises:
        TrainingError: There is no such file, or one is damaged.
    """
    for name in _FILES:
        if (folder / name).is_file():
            return _load_file(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            weights: dict[str, Tensor] = {}
            for part in _parts_of(index):
                weights |= _load_file(folder / part)
            return weights
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".h5", ".msgpack", ".ckpt", ".index"))
    hint = f"; {others[0]} is of another library: load it with transformers and save it again" if others else ""
    raise TrainingError(f"{option} {folder} holds neither {_FILES[0]} nor {_FILES[1]}{hint}")


def _parts_of(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (*_UNREADABLE, json.JSONDecodeError) as error:
        raise TrainingError(f"{index} is no index of weights ({error!r}); copy the folder again") from error
    if any(Path(name).name != name for name in names):
        raise TrainingError(f"{index} names files outside of its folder; copy the folder again")
    return names


def _load_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            weights: dict[str, Tensor] = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)  # never runs what a pickle says
            if not all(isinstance(one, Tensor) for one in weights.values()):
                raise ValueError("it holds more than tensors")
    except (*_UNREADABLE, SafetensorError, BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        raise TrainingError(f"{path} cannot be read as weights ({reason}); copy or export it again") from error
    return weights


def rename_weights(weights: dict[str, Tensor], *, own: Collection[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Returns weights under our names, and the names of those that we have no use for.

    Args:
        weights: As in the files.
        own: Names of our weights.
    """
    has_prefix = any(name.startswith("bert.") for name in weights)
    found: dict[str, Tensor] = {}
    ignored: list[str] = []
    for name, tensor in weights.items():
        ours = name
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(f"LayerNorm{old}"):
                ours = name.removesuffix(old) + new
        if not has_prefix and not name.startswith("cls."):
            ours = f"bert.{ours}"
        if ours in own:
            found[ours] = tensor
        elif name.rpartition(".")[2] not in _NO_WEIGHTS and ours not in _COPIES:
            ignored.append(name)
    for copy, ours in _COPIES.items():
        if ours not in found and copy in weights:
            found[ours] = weights[copy]
    return found, ignored


@torch.no_grad()
def put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Gives weights to a model; those that are not among them stay.

    Args:
        model: The model.
        weights: By the model's names; word embeddings may have fewer rows, without the padding of the vocabulary.
    """
    own = model.state_dict()
    for name, tensor in weights.items():
        own[name][: len(tensor)].copy_(tensor)
