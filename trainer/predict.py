"""Asks a model: makes samples of questions, computes them in batches, and gives the answers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from bertdata.errors import TrainingError
from trainer.answers import Answer
from trainer.questions import Question, Splitter, iter_batches
from trainer.tasks import Asked, Task

__all__ = ["AnswerLimits", "Predictor"]

_QUESTIONS_AT_ONCE = 512  # sorted by length together; the first answers come after as many

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerLimits:
    """How much is asked of a model.

    Attributes:
        top_k: Words for each mask; labels to show to people.
        max_seq_length: Tokens of a sample at most; None for what the model and its tokenizer say.
        max_answer_tokens: Tokens of an answer in a context at most.

    Raises:
        TrainingError: One is below 1.
    """

    top_k: int = 5
    max_seq_length: int | None = None
    max_answer_tokens: int = 30

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and value < 1:
                raise TrainingError(f"{name} is {value}; it must be at least 1")


class Predictor:
    """A model that answers questions, as `open_model` gives it; on a GPU if there is one.

    Args:
        model: The model.
        task: What it is for.
        splitter: Makes tokens of texts.
        pad_token_id: Id of [PAD].
        trained_length: Tokens of the longest samples that it was trained on; None where that is not known.

    Raises:
        TrainingError: The GPU has no room for it.
    """

    def __init__(
        self, model: nn.Module, *, task: Task[Any], splitter: Splitter, pad_token_id: int, trained_length: int | None
    ) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with _naming_lack_of_room():
            self._model = model.to(self._device).eval()
        self._task, self._splitter, self._pad_token_id = task, splitter, pad_token_id
        self._trained_length = trained_length

    def iter_answers(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Yields the answers in order, which are the same for whatever questions are asked together, but for rounding.

        Args:
            questions: What is asked; up to 512 are taken at a time.

        Raises:
            TrainingError: There is a question that the model cannot answer; those before it are answered first. Or the
                GPU has no room.
        """
        rest = iter(questions)
        while together := list(islice(rest, _QUESTIONS_AT_ONCE)):
            yield from self._answer(together)

    def _answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        texts = [text for question in questions for text in (question.text, question.text_b) if text is not None]
        pieces = iter(self._splitter.split(texts))
        asked: list[Asked] = []
        failure: TrainingError | None = None
        for question in questions:
            own = [next(pieces) for _ in range(1 if question.text_b is None else 2)]
            try:
                asked.append(self._task.ask(question, own))
            except TrainingError as error:
                failure = error
                break
        with _naming_lack_of_room():
            answers = self._compute(asked)
        yield from answers
        if failure is not None:
            raise failure

    @torch.inference_mode()
    def _compute(self, asked: Sequence[Asked]) -> list[Answer]:
        samples = [sample for one in asked for sample in one.samples]
        self._warn_of_length(max((len(sample.token_ids) for sample in samples), default=0))
        said: list[Any] = [None] * len(samples)
        for batch in iter_batches(samples, pad_token_id=self._pad_token_id):
            found = self._task.read(self._model, batch.to(self._device))
            for number, one in zip(batch.sample_ids.tolist(), found, strict=True):
                said[number] = one
        answers, first = [], 0
        for one in asked:
            stop = first + len(one.samples)
            answers.append(self._task.answer(one, said[first:stop]))
            first = stop
        return answers

    def _warn_of_length(self, num_tokens: int) -> None:
        if self._trained_length is not None and num_tokens > self._trained_length:
            _log.warning(
                "a text has %d tokens, and the model was trained on samples of up to %d: it knows nothing of the "
                "positions after them, and its answer may mean little",
                *(num_tokens, self._trained_length),
            )
            self._trained_length = None  # said once


@contextmanager
def _naming_lack_of_room() -> Iterator[None]:
    """While in use with `with`, a GPU without room is an error that says what to do.

    Raises:
        TrainingError: It is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the GPU has no room for the model and its work; wait for what runs there, or set CUDA_VISIBLE_DEVICES to "
            "nothing to ask on the CPU"
        ) from error
