"""Pre-trains BERT on the shards of bertdata. Imports neither Beam nor transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config import ModelOptions, TrainOptions
    from trainer.loader import Batch, BlockReader, Loader
    from trainer.model import BertForPreTraining
    from trainer.plan import Plan

__all__ = ["Batch", "BertForPreTraining", "BlockReader", "Loader", "ModelOptions", "Plan", "TrainOptions"]

_MODULES = {
    "Batch": "loader",
    "BertForPreTraining": "model",
    "BlockReader": "loader",
    "Loader": "loader",
    "ModelOptions": "config",
    "Plan": "plan",
    "TrainOptions": "config",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `bert-train --help` need not load torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
