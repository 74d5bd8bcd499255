"""Opens the model of a run, or of any folder for transformers, to ask it: its weights, its words, its labels.

run/hf/, or while the run is unfinished its newest checkpoint     masked words and next sentences
folder/config.json, architectures:
    BertForPreTraining, BertForMaskedLM, ...                      the same, as far as it has heads for that
    BertForSequenceClassification                                 labels, or a number
    BertForTokenClassification                                    tags
    BertForQuestionAnswering                                      spans
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from bertdata.errors import TokenizerError, TrainingError
from bertdata.painting import LABELS
from bertdata.wordpiece import Vocabulary, load_tokenizer, tokenizer_files
from trainer.checkpoint import load_latest
from trainer.config import ModelOptions
from trainer.model import build_model
from trainer.model_folder import NEXT_SENTENCE, find_export, find_tokenizer, read_export
from trainer.predict import AnswerLimits, Predictor
from trainer.questions import Splitter
from trainer.run_facts import learns_next_sentences, load_facts_of
from trainer.task_model import TaskModel
from trainer.tasks import LabelTask, SpanTask, TagTask, Task
from trainer.weight_files import put_weights
from trainer.word_task import WordTask

__all__ = ["open_model"]

_OPTION = "MODEL"
_PRE_TRAINED = ("BertForPreTraining", "BertForMaskedLM", "BertForNextSentencePrediction", "BertModel")
_HEADS = {  # name of the head's layer, whether it scores tokens
    "BertForSequenceClassification": ("classifier", False),
    "BertForTokenClassification": ("classifier", True),
    "BertForQuestionAnswering": ("qa_outputs", True),
}
_NO_POOLER = {"bert.pooler.": "pooler"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    """A model with its weights.

    Attributes:
        model: The model.
        options: Its shape.
        tokenizer: File of its tokenizer; None where there is none.
        make_task: Makes what it is for, given its tokenizer and what `Task` takes.
        trained_length: Tokens of the longest samples that it was trained on; None where that is not known.
    """

    model: nn.Module
    options: ModelOptions
    tokenizer: Path | None
    make_task: Callable[..., Task[Any]]
    trained_length: int | None = None


def open_model(
    place: str | os.PathLike[str],
    *,
    limits: AnswerLimits | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> Predictor:
    """Opens a model, to ask it.

    Args:
        place: Folder of a run, or one for transformers.
        limits: How much is asked for; None for the defaults.
        tokenizer: A tokenizer.json, a vocab.txt, or a folder with one; None for the one beside the model or, of an
            unfinished run, in the folder of its data.

    Raises:
        TrainingError: There is no model, none of a kind that can be asked, or the GPU has no room for it.
        TokenizerError: The tokenizer cannot be read, or lacks a special token.
    """
    place, limits = Path(place), limits or AnswerLimits()
    opened = _open(place, limits=limits)
    path = opened.tokenizer if tokenizer is None else Path(tokenizer)
    if path is None:
        raise TrainingError(
            f"{_OPTION} {place} has no tokenizer.json and no vocab.txt, and text has no ids without; copy it there, or "
            "give --tokenizer"
        )
    words = load_tokenizer(path)
    vocabulary = Vocabulary.of(words)
    if vocabulary.size > opened.options.vocab_size:
        raise TrainingError(
            f"the tokenizer {path} has {vocabulary.size:,} ids, and the model in {place} has "
            f"{opened.options.vocab_size:,}; give the model's own with --tokenizer"
        )
    splitter = Splitter(words, roles=vocabulary.roles)
    max_tokens = _max_tokens(opened.options.max_position_embeddings, tokenizer=path, asked=limits.max_seq_length)
    return Predictor(
        opened.model,
        task=opened.make_task(tokenizer=words, splitter=splitter, max_tokens=max_tokens),
        splitter=splitter,
        pad_token_id=vocabulary.roles["pad"],
        trained_length=opened.trained_length,
    )


def _max_tokens(num_positions: int, *, tokenizer: Path, asked: int | None) -> int:
    """Returns the tokens of a sample at most: what is asked for, else what the tokenizer says, else all positions."""
    if asked is not None and asked > num_positions:
        raise TrainingError(f"--max-seq-length is {asked}, and the model has {num_positions} positions; give no more")
    said = None
    for path in tokenizer_files(tokenizer)[1:]:
        try:
            said = json.loads(path.read_bytes()).get("model_max_length")
        except (OSError, ValueError, AttributeError) as error:
            raise TokenizerError(f"{path} cannot be read ({error}); copy it again, or remove it") from error
    if asked is None and isinstance(said, int) and said > 0:
        return min(num_positions, said)
    return asked or num_positions


def _open(place: Path, *, limits: AnswerLimits) -> _Opened:
    facts = load_facts_of(place) or {}
    run = _load_unfinished(place, facts)
    if run is not None:
        _log.warning("the run in %s has not ended; asking its checkpoint of step %d", place, run["step"])
        return _open_run(place, run, facts=facts, limits=limits)
    folder = find_export(place, option=_OPTION)
    try:
        config = json.loads((folder / "config.json").read_bytes())
        (architecture,) = config.get("architectures") or _PRE_TRAINED[:1]  # the first configurations do not name it
    except (OSError, ValueError, AttributeError) as error:
        raise TrainingError(f"{folder / 'config.json'} cannot be read ({error}); copy or export it again") from error
    if architecture in _HEADS:
        return _open_fine_tuned(folder, config, architecture=architecture, limits=limits)
    if architecture in _PRE_TRAINED:
        return _open_pre_trained(folder, facts=facts, limits=limits)
    raise TrainingError(
        f"{_OPTION} {folder} holds a {architecture}; those that can be asked are {', '.join((*_PRE_TRAINED, *_HEADS))}"
    )


def _load_unfinished(place: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the newest checkpoint of a run that has not ended, or not exported anything."""
    (last,) = facts.get("starts", [])[-1:] or [{}]
    is_finished = not facts or last.get("end", {}).get("is_finished", False)
    if is_finished and (place / "hf").is_dir():
        return None
    return load_latest(place / "checkpoints")


def _open_run(place: Path, run: dict[str, Any], *, facts: dict[str, Any], limits: AnswerLimits) -> _Opened:
    options = ModelOptions(**run["options"]["model"])
    labels = _labels_of(facts) if run["options"]["next_sentence"] else None
    model = build_model(options, next_sentence=labels is not None)
    put_weights(model, run["model"])
    return _Opened(
        model=model,
        options=options,
        tokenizer=_find_tokenizer_of_run(place, facts, sha256=run["tokenizer"]),
        make_task=_word_task(options, limits=limits, has_words=True, labels=labels),
        trained_length=_trained_length(facts),
    )


def _find_tokenizer_of_run(place: Path, facts: dict[str, Any], *, sha256: str) -> Path | None:
    """Returns the tokenizer that a run was begun with: as exported before, or that of its data, where that is here."""
    folders = [place / "hf", *(Path(data["place"]) for data in facts.get("data", []))]
    for path in (folder / "tokenizer.json" for folder in folders):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    return None


def _open_pre_trained(folder: Path, *, facts: dict[str, Any], limits: AnswerLimits) -> _Opened:
    stored = read_export(folder, option=_OPTION)
    has_words = not any(name.startswith("cls.predictions.") for name in stored.new)
    is_new = any(name.startswith(NEXT_SENTENCE) for name in stored.new)
    has_next = learns_next_sentences(facts) and not is_new  # a head that was never trained says nothing
    labels = _labels_of(facts) if has_next else None
    if not has_words and labels is None:
        raise TrainingError(
            f"{_OPTION} {folder} has neither a masked-word head nor a next-sentence head, so that there is nothing to "
            "ask it; fine-tune it first, or give a folder that has one"
        )
    model = build_model(stored.options, next_sentence=labels is not None)
    put_weights(model, stored.weights)
    return _Opened(
        model=model,
        options=stored.options,
        tokenizer=find_tokenizer(folder),
        make_task=_word_task(stored.options, limits=limits, has_words=has_words, labels=labels),
        trained_length=_trained_length(facts),
    )


def _word_task(options: ModelOptions, *, limits: AnswerLimits, **heads: Any) -> Callable[..., Task[Any]]:
    return partial(WordTask, top_k=limits.top_k, num_words=options.vocab_size, **heads)


def _labels_of(facts: dict[str, Any]) -> tuple[str, str] | None:
    """Returns what labels 0 and 1 of the next-sentence head mean in a run's data."""
    mode = facts["data"][0]["next_sentence"] if facts.get("data") else "balanced"
    return LABELS.get(mode)


def _trained_length(facts: dict[str, Any]) -> int | None:
    return max((data["max_seq_length"] for data in facts.get("data", [])), default=None)


def _open_fine_tuned(folder: Path, config: dict[str, Any], *, architecture: str, limits: AnswerLimits) -> _Opened:
    head, of_tokens = _HEADS[architecture]
    labels = _task_labels(config, folder=folder)
    build = partial(TaskModel, head=head, num_labels=len(labels), of_tokens=of_tokens)
    stored = read_export(folder, option=_OPTION, build=build, new_parts=_NO_POOLER if of_tokens else {})
    model = build(stored.options)
    put_weights(model, stored.weights)
    make_task: Callable[..., Task[Any]]
    if architecture == "BertForSequenceClassification":
        make_task = partial(LabelTask, labels=labels if len(labels) > 1 else None, top_k=limits.top_k)
    elif architecture == "BertForTokenClassification":
        make_task = partial(TagTask, labels=labels)
    else:
        make_task = partial(SpanTask, max_answer_tokens=limits.max_answer_tokens)
    return _Opened(model=model, options=stored.options, tokenizer=find_tokenizer(folder), make_task=make_task)


def _task_labels(config: dict[str, Any], *, folder: Path) -> list[str]:
    """Returns the names of a head's labels, as transformers counts and names them where config.json does not."""
    where = f"{_OPTION} {folder / 'config.json'}"
    names = config.get("id2label") or {str(number): f"LABEL_{number}" for number in range(config.get("num_labels", 2))}
    labels = [str(names[str(number)]) for number in range(len(names)) if str(number) in names]
    if len(set(labels)) < len(names):
        raise TrainingError(f"{where}: id2label is {names}; it must name each label from 0 on, and none twice")
    kind = config.get("problem_type")
    if kind not in (None, "single_label_classification") and not (kind == "regression" and len(labels) == 1):
        raise TrainingError(
            f"{where}: problem_type is {kind!r} with {len(labels)} labels; it must be 'single_label_classification', "
            "or 'regression' with one"
        )
    return labels
