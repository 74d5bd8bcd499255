"""Pre-trains BERT on the shards of bertdata, and asks it. Imports neither Beam nor transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.answers import Answer
    from trainer.batch import Batch, StepBatches
    from trainer.config import ModelOptions, TrainOptions
    from trainer.data import TrainingData, open_training_data
    from trainer.iterable import PreTrainingData
    from trainer.loader import Loader
    from trainer.model import BertForPreTraining
    from trainer.opening import open_model
    from trainer.plan import Plan
    from trainer.predict import AnswerLimits, Predictor
    from trainer.questions import Question
    from trainer.state import DataState

__all__ = [
    "Answer",
    "AnswerLimits",
    "Batch",
    "BertForPreTraining",
    "DataState",
    "Loader",
    "ModelOptions",
    "Plan",
    "PreTrainingData",
    "Predictor",
    "Question",
    "StepBatches",
    "TrainOptions",
    "TrainingData",
    "open_model",
    "open_training_data",
]

_MODULES = {
    "Answer": "answers",
    "AnswerLimits": "predict",
    "Batch": "batch",
    "BertForPreTraining": "model",
    "DataState": "state",
    "Loader": "loader",
    "ModelOptions": "config",
    "Plan": "plan",
    "PreTrainingData": "iterable",
    "Predictor": "predict",
    "Question": "questions",
    "StepBatches": "batch",
    "TrainOptions": "config",
    "TrainingData": "data",
    "open_model": "opening",
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
