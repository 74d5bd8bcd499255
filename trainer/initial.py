"""What a run begins with instead of new weights (`--init`): those of an earlier run, or of a folder for transformers.

    run/checkpoints/    the newest checkpoint of the run, else
    run/hf/             what it exported
    folder/             config.json and weights of BertForPreTraining, BertForMaskedLM or BertModel

Only what a published BERT may lack is new: pooler, next-sentence head, masked-word head. Nothing is resized.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from trainer.config import ModelOptions, Precision, load_model_options
from trainer.model_folder import NEW_PARTS, NEXT_SENTENCE, find_export, find_tokenizer, read_export, some
from trainer.vocabulary import check_vocabulary
from trainer.weight_files import WORDS

__all__ = ["Initial", "initial_model_options", "load_initial"]

_OF_WORDS = (WORDS, "cls.predictions.bias")
_FREE = ("vocab_size", "hidden_dropout_prob", "initializer_range")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Initial:
    """Weights to begin with.

    Attributes:
        place: The folder asked for.
        options: The shape of the model there, with its own vocabulary.
        weights: By our names, float32; the word embeddings of a run with the padding of the vocabulary.
        new: Names of weights that are missing there.
        ignored: Names there that the model has no use for.
        step: Step of the run's checkpoint; None of an exported model.
        optimizer: State of the run's optimizer; None of an exported model.
        tokenizer: File of the tokenizer there, None where there is none.
        tokenizer_sha256: Hash of the tokenizer of the run's data; None of an exported model.
        precision: What the run computed in; None of an exported model.
    """

    place: Path
    options: ModelOptions
    weights: dict[str, Tensor]
    new: tuple[str, ...]
    ignored: tuple[str, ...]
    step: int | None
    optimizer: dict[str, Any] | None
    tokenizer: Path | None
    tokenizer_sha256: str | None
    precision: Precision | None

    def __str__(self) -> str:
        """Returns where the weights are from, what is new, and what is not used, on one line."""
        origin = f"weights of {self.place}" + ("" if self.step is None else f", step {self.step}")
        parts = [label for prefix, label in NEW_PARTS.items() if any(name.startswith(prefix) for name in self.new)]
        new = f"; new: {', '.join(parts)}" if parts else ", all of the model"
        ignored = f"; not used: {some(self.ignored)}" if self.ignored else ""
        return origin + new + ignored


def initial_model_options(
    place: Path,
    run: dict[str, Any] | None = None,
    *,
    vocab_size: int,
    hidden_dropout_prob: float,
    max_seq_length: int = 1,
    option: str = "--init",
) -> ModelOptions:
    """Returns the shape of the model that a run begins with.

    Args:
        place: Folder of a run or of an exported model.
        run: The run's newest checkpoint, from `trainer.phases.find_run`; None for an exported model.
        vocab_size: Ids of the data set's tokenizer; `load_initial` checks that it is that of the weights.
        hidden_dropout_prob: Dropout to train with.
        max_seq_length: Tokens of the data set's longest samples.
        option: What named the place, for messages.

    Raises:
        TrainingError: There is no model, or it is none that can be trained here.
    """
    if run is not None:
        changes = {"vocab_size": vocab_size, "hidden_dropout_prob": hidden_dropout_prob}
        options = ModelOptions(**(run["options"]["model"] | changes))
    else:
        path = find_export(place, option=option) / "config.json"
        options = load_model_options(
            path, vocab_size=vocab_size, hidden_dropout_prob=hidden_dropout_prob, option=option
        )
    if options.max_position_embeddings < max_seq_length:
        raise TrainingError(
            f"the samples have up to {max_seq_length} tokens, the model of {option} {place} has "
            f"{options.max_position_embeddings} positions; begin with another model, or build with --max-seq-length "
            f"{options.max_position_embeddings}"
        )
    return options


def load_initial(
    place: Path,
    run: dict[str, Any] | None = None,
    *,
    options: ModelOptions,
    next_sentence: bool,
    data_set: DataSet,
    is_main: bool = True,
    option: str = "--init",
) -> Initial:
    """Reads weights to begin a run with, and says what is new and what is not used.

    Args:
        place: Folder of a run or of an exported model.
        run: The run's newest checkpoint, from `trainer.phases.find_run`; None for an exported model.
        options: The shape of the run's model.
        next_sentence: Whether the run predicts next sentences.
        data_set: What the run is trained on, for its tokenizer.
        is_main: Whether this process says what is to be said.
        option: What named the place, for messages.

    Raises:
        TrainingError: The weights are not there, damaged, of another shape or of another vocabulary.
    """
    initial = _from_export(place, option=option) if run is None else _from_run(place, run, next_sentence=next_sentence)
    _check_shape(initial, options, option=option)
    warning = check_vocabulary(
        initial.place,
        option=option,
        num_rows=initial.options.vocab_size,
        tokenizer=initial.tokenizer,
        tokenizer_sha256=initial.tokenizer_sha256,
        data_set=data_set,
    )
    if is_main:
        _log.info("%s", initial)
    if is_main and warning:
        _log.warning("%s", warning)
    if run is not None:
        return initial
    cut = {name: initial.weights[name][: options.vocab_size] for name in _OF_WORDS if name in initial.weights}
    return dataclasses.replace(initial, weights=initial.weights | cut)


def _from_run(place: Path, run: dict[str, Any], *, next_sentence: bool) -> Initial:
    before, weights = run["options"], run["model"]
    # A head that was never trained is no better than a new one.
    is_untrained = next_sentence and not before["next_sentence"]
    new = tuple(name for name in weights if is_untrained and name.startswith(NEXT_SENTENCE))
    return Initial(
        place=place,
        options=ModelOptions(**before["model"]),
        weights={name: tensor for name, tensor in weights.items() if name not in new},
        new=new,
        ignored=(),
        step=int(run["step"]),
        optimizer=run["optimizer"],
        tokenizer=find_tokenizer(place / "hf"),
        tokenizer_sha256=run["tokenizer"],
        precision=before["precision"],
    )


def _from_export(place: Path, *, option: str) -> Initial:
    stored = read_export(find_export(place, option=option), option=option)
    return Initial(
        place=stored.folder,
        options=stored.options,
        weights=stored.weights,
        new=stored.new,
        ignored=stored.ignored,
        step=None,
        optimizer=None,
        tokenizer=find_tokenizer(stored.folder),
        tokenizer_sha256=None,
        precision=None,
    )


def _check_shape(initial: Initial, options: ModelOptions, *, option: str) -> None:
    there, asked = initial.options.to_json(), options.to_json()
    differences = [
        f"{name} is {asked[name]}, there {value}"
        for name, value in there.items()
        if name not in _FREE and asked[name] != value
    ]
    if differences:
        raise TrainingError(
            f"the model asked for is not that of {option} {initial.place}: {'; '.join(differences)}. Leave --model and "
            "--config out, and it gets the shape of those weights"
        )
