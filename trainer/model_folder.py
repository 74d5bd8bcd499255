"""A BERT that lies in a folder for transformers: found, read, and checked against the model that is to take it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bertdata.errors import TrainingError
from trainer.config import ModelOptions, load_model_options
from trainer.model import BertForPreTraining
from trainer.weight_files import WORDS, load_weights, rename_weights

__all__ = ["NEW_PARTS", "NEXT_SENTENCE", "StoredModel", "find_export", "find_tokenizer", "read_export", "some"]

NEW_PARTS = {
    "bert.pooler.": "pooler",
    "cls.seq_relationship.": "next-sentence head",
    "cls.predictions.": "masked-word head",
}
"""What may be missing of a BERT, by the beginning of its names."""

NEXT_SENTENCE = ("bert.pooler.", "cls.seq_relationship.")
"""What of it serves next sentences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """What a folder for transformers holds.

    Attributes:
        folder: The folder, with config.json and weights.
        options: The shape of the model, with its own vocabulary.
        weights: By our names, float32; word embeddings without padding.
        new: Names of weights that are missing there.
        ignored: Names there that the model has no use for.
    """

    folder: Path
    options: ModelOptions
    weights: dict[str, Tensor]
    new: tuple[str, ...]
    ignored: tuple[str, ...]


def some(names: Iterable[str], *, limit: int = 4) -> str:
    """Returns the first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def find_export(place: Path, *, option: str) -> Path:
    """Returns the folder with config.json: that of a run, or the place itself.

    Args:
        place: Folder of a run or of an exported model.
        option: What named the place, for messages.

    Raises:
        TrainingError: There is none.
    """
    for folder in (place / "hf", place):
        if (folder / "config.json").is_file():
            return folder
    if not place.is_dir():
        raise TrainingError(
            f"{option} {place} is no folder; give the folder of a run, or one with config.json and model.safetensors "
            "(a published model has to be downloaded into a folder first)"
        )
    raise TrainingError(
        f"{option} {place} holds no checkpoints and no config.json; give the folder of a run, or one with config.json "
        "and model.safetensors"
    )


def find_tokenizer(folder: Path) -> Path | None:
    """Returns the file of the tokenizer in a folder; None where there is none."""
    found = [folder / name for name in ("tokenizer.json", "vocab.txt") if (folder / name).is_file()]
    return found[0] if found else None


def read_export(
    folder: Path,
    *,
    option: str,
    build: Callable[[ModelOptions], nn.Module] = BertForPreTraining,
    new_parts: Mapping[str, str] = NEW_PARTS,
) -> StoredModel:
    """Reads a model from a folder for transformers.

    Args:
        folder: With config.json and weights.
        option: What named the folder, for messages.
        build: Makes the model that is to take the weights.
        new_parts: What may be missing, by the beginning of its names.

    Raises:
        TrainingError: The weights are not there, damaged, or not those of such a model.
    """
    stored = load_weights(folder, option=option)
    words = next((stored[name] for name in (WORDS, WORDS.removeprefix("bert.")) if name in stored), None)
    if words is None:
        raise TrainingError(f"{option} {folder} holds no {WORDS}, so it is no BERT; it has {some(stored)}")
    options = load_model_options(folder / "config.json", vocab_size=len(words), hidden_dropout_prob=0.0, option=option)
    own = _shapes_of(build, options)
    weights, ignored = rename_weights(stored, own=own)
    missing = [name for name in own if name not in weights and not name.startswith(tuple(new_parts))]
    surplus = [name for name in ignored if ".layer." in name]
    wrong = [
        f"{name} of shape {list(tensor.shape)} instead of {own[name]}"
        for name, tensor in weights.items()
        if list(tensor.shape) != own[name]
    ]
    if missing or surplus or wrong:
        problem = f"lacks {some(missing)}" if missing else f"has {some(surplus or wrong)}, against its config.json"
        raise TrainingError(f"{option} {folder} {problem}; it is no whole BERT as published: export it again")
    return StoredModel(
        folder=folder,
        options=options,
        weights={name: tensor.float() for name, tensor in weights.items()},
        new=tuple(name for name in own if name not in weights),
        ignored=tuple(ignored),
    )


def _shapes_of(build: Callable[[ModelOptions], nn.Module], options: ModelOptions) -> dict[str, list[int]]:
    with torch.device("meta"):
        own = build(options).state_dict()
    return {name: list(tensor.shape) for name, tensor in own.items()} | {
        WORDS: [options.vocab_size, options.hidden_size]
    }
