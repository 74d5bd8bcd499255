"""Pre-trains BERT on the shards of bertdata. Imports neither Beam nor transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.batch import Batch, StepBatches
    from trainer.config import ModelOptions, TrainOptions
    from trainer.data import TrainingData, open_training_data
    from trainer.iterable import PreTrainingData
    from trainer.loader import Loader
    from trainer.model import BertForPreTraining
    from trainer.plan import Plan
    from trainer.state import DataState

__all__ = [
    "Batch",
    "BertForPreTraining",
    "DataState",
    "Loader",
    "ModelOptions",
    "Plan",
    "PreTrainingData",
    "StepBatches",
    "TrainOptions",
    "TrainingData",
    "open_training_data",
]

_MODULES = {
    "Batch": "batch",
    "BertForPreTraining": "model",
    "DataState": "state",
    "Loader": "loader",
    "ModelOptions": "config",
    "Plan": "plan",
    "PreTrainingData": "iterable",
    "StepBatches": "batch",
    "TrainOptions": "config",
    "TrainingData": "data",
    "open_training_data": "data",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `bert-train --help` need not load torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Returns the public names, too, of which none may have been imported yet."""
    return sorted({*globals(), *__all__})
