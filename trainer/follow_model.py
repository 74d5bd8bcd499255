"""The model that a document is followed through: that of a run, or of a folder for transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from trainer.config import ModelOptions
from trainer.initial import Initial, initial_model_options, load_initial
from trainer.model import BertForPreTraining, build_model
from trainer.phases import find_run
from trainer.run_facts import learns_next_sentences, load_facts_of
from trainer.weight_files import put_weights

__all__ = ["LoadedModel", "load_model"]

_OPTION = "MODEL"
_NO_NEXT_SENTENCE = "The model has not learned to predict next sentences, so that part is left out."


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model to look into.

    Attributes:
        model: The model, in evaluation mode; it predicts next sentences where it has learned to and the data set has
            such labels.
        step: Optimizer steps of its checkpoint; None of an exported model.
        warnings: What else is to be known of it.
    """

    model: BertForPreTraining
    step: int | None
    warnings: tuple[str, ...]


def load_model(place: Path, *, data_set: DataSet) -> LoadedModel:
    """Loads the model of a run, or of a folder for transformers, and checks that it reads this data set.

    Args:
        place: Folder of a run or of an exported model.
        data_set: What the samples will be of.

    Raises:
        TrainingError: There is no model, it is of another vocabulary, it has fewer positions than samples may have
            tokens, or it cannot predict words.
    """
    has_labels = data_set.manifest.options["pairs"]["next_sentence"] != "none"
    options, initial = _load_weights(place, data_set=data_set, next_sentence=has_labels)
    new = {name.split(".")[1] for name in initial.new}
    if "predictions" in new:
        raise TrainingError(f"{_OPTION} {place} has no masked-word head, so it has nothing to say here; train it first")
    is_learned = not new and learns_next_sentences(load_facts_of(place) or {})
    warnings = (_NO_NEXT_SENTENCE,) if has_labels and not is_learned else ()
    model = build_model(options, next_sentence=has_labels and is_learned).eval()
    put_weights(model, initial.weights)
    return LoadedModel(model=model, step=initial.step, warnings=warnings)


def _load_weights(place: Path, *, data_set: DataSet, next_sentence: bool) -> tuple[ModelOptions, Initial]:
    run = find_run(place, option=_OPTION)
    options = initial_model_options(
        place,
        run,
        vocab_size=data_set.manifest.tokenizer.vocab_size,
        hidden_dropout_prob=0.0,
        max_seq_length=data_set.manifest.options["pairs"]["max_seq_length"],
        option=_OPTION,
    )
    initial = load_initial(place, run, options=options, next_sentence=next_sentence, data_set=data_set, option=_OPTION)
    return options, initial
