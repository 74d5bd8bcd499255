"""What a model is for: how a question becomes samples, and what the model says of them becomes an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

from tokenizers import Tokenizer
from torch import Tensor, nn

from trainer.answers import Answer, Row, list_shares, percent
from trainer.batch import Batch
from trainer.questions import Pieces, Question, Sample, Splitter
from trainer.spans import Window, best_span, make_windows
from trainer.text_words import find_words

__all__ = ["Asked", "LabelTask", "SpanTask", "TagTask", "Task"]

S = TypeVar("S")

_MAX_OVERLAP = 128  # tokens that windows of a context have in common, as in the published run_squad.py, if 128 do


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question on its way to the model.

    Attributes:
        question: The question.
        pieces: Tokens of its texts.
        samples: What the model sees.
        windows: The part of the context in each sample; empty where there is no context.
    """

    question: Question
    pieces: list[Pieces]
    samples: list[Sample]
    windows: list[Window]


class Task(Generic[S]):
    """What all tasks share; S is what the model says of a sample.

    Args:
        splitter: Makes samples of texts.
        tokenizer: Tells the words of ids.
        max_tokens: Tokens of a sample at most.
    """

    def __init__(self, *, splitter: Splitter, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.splitter = splitter
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def ask(self, question: Question, pieces: list[Pieces]) -> Asked:
        """Returns the samples of a question.

        Raises:
            TrainingError: It is none that this model can answer.
        """
        sample = self.splitter.sample(*(one.ids for one in pieces))
        number = len(sample.token_ids)
        if number > self.max_tokens:
            texts = "the text has" if question.text_b is None else "the two texts have"
            raise question.error(
                f"{texts} {number:,} tokens with the special ones, and the model reads at most {self.max_tokens:,}; "
                "shorten it, or give a larger --max-seq-length where the model has the positions"
            )
        return Asked(question=question, pieces=pieces, samples=[sample], windows=[])

    def read(self, model: nn.Module, batch: Batch) -> list[S]:
        """Returns what the model says of each sample of a batch."""
        raise NotImplementedError

    def answer(self, asked: Asked, said: Sequence[S]) -> Answer:
        """Returns the answer to a question, given what the model says of each of its samples."""
        raise NotImplementedError


class LabelTask(Task[Tensor]):
    """A label of one text or two, or a number where the model was trained to give one.

    Args:
        labels: Names of the labels; None for a number.
        top_k: Labels to show to people.
    """

    def __init__(self, *, labels: list[str] | None, top_k: int, **limits: Any) -> None:
        super().__init__(**limits)
        self._labels, self._top_k = labels, top_k

    def read(self, model: nn.Module, batch: Batch) -> list[Tensor]:
        """Returns float64 [L], the scores of the labels, of each sample."""
        return list(model(batch).double().cpu())

    def answer(self, asked: Asked, said: Sequence[Tensor]) -> Answer:
        """Returns the answer; see `Task.answer`."""
        values = asked.question.to_json()
        if self._labels is None:
            values["value"] = said[0].item()
            return Answer(values=values, rows=[Row("value", f"{values['value']:.4g}", "")])
        shares = dict(zip(self._labels, said[0].softmax(-1).tolist(), strict=True))
        ordered = sorted(shares.items(), key=lambda pair: -pair[1])
        values["label"], values["probability"] = ordered[0]
        return Answer(values=values | {"probabilities": shares}, rows=list_shares("label", ordered[: self._top_k]))


class TagTask(Task[Tensor]):
    """A tag for each word (see `trainer.text_words`), from its first token, as in training.

    Args:
        labels: Names of the tags.
    """

    def __init__(self, *, labels: list[str], **limits: Any) -> None:
        super().__init__(**limits)
        self._labels = labels

    def ask(self, question: Question, pieces: list[Pieces]) -> Asked:
        """Returns the samples of a question; see `Task.ask`."""
        if question.text_b is not None:
            raise question.error("the model gives tags to the words of one text; leave the second one out")
        return super().ask(question, pieces)

    def read(self, model: nn.Module, batch: Batch) -> list[Tensor]:
        """Returns float64 [tokens, L], the probabilities of the tags, of each sample."""
        return _by_sample(model(batch).double().softmax(-1).cpu(), batch)

    def answer(self, asked: Asked, said: Sequence[Tensor]) -> Answer:
        """Returns the answer; see `Task.answer`."""
        text = asked.question.text
        words: list[dict[str, Any]] = []
        rows = []
        for start, stop in find_words(text):
            word, tag, probability = text[start:stop], None, None
            first = next((row for row, span in enumerate(asked.pieces[0].spans) if start <= span[0] < stop), None)
            if first is not None:  # else the tokenizer drops all of it
                shares = said[0][1 + first]  # [CLS] stands before
                tag, probability = self._labels[int(shares.argmax())], float(shares.max())
            words.append({"word": word, "start": start, "end": stop, "tag": tag, "probability": probability})
            rows.append(Row(word, tag or "-", "" if probability is None else percent(probability)))
        return Answer(values=asked.question.to_json() | {"words": words}, rows=rows)


class SpanTask(Task[Tensor]):
    """The answer to a question, as a span of a context; see `trainer.spans`.

    Args:
        max_answer_tokens: Tokens of an answer at most.
    """

    def __init__(self, *, max_answer_tokens: int, **limits: Any) -> None:
        super().__init__(**limits)
        self._max_answer_tokens = max_answer_tokens

    def ask(self, question: Question, pieces: list[Pieces]) -> Asked:
        """Returns the samples of a question; see `Task.ask`."""
        if question.text_b is None:
            raise question.error("the model looks for an answer in a text; give the question, and then the text")
        asking, context = (one.ids for one in pieces)
        if not context:
            raise question.error("the text to look for the answer in is empty")
        room = self.max_tokens - len(self.splitter.sample(asking, []).token_ids)
        if len(context) > room and len(asking) + 2 > self.max_tokens // 2:
            raise question.error(
                f"the question has {len(asking):,} tokens, and the model reads at most {self.max_tokens:,} with the "
                "special ones and parts of the text; shorten the question"
            )
        overlap = max(min(_MAX_OVERLAP, self.max_tokens // 4), self._max_answer_tokens)
        windows = make_windows(
            len(context),
            room=room,
            overlap=min(overlap, room - 1),
            max_answer_tokens=self._max_answer_tokens,
        )
        samples = [self.splitter.sample(asking, context[window.start : window.stop]) for window in windows]
        return Asked(question=question, pieces=pieces, samples=samples, windows=windows)

    def read(self, model: nn.Module, batch: Batch) -> list[Tensor]:
        """Returns float [tokens, 2], scores of starts and ends, of each sample."""
        return _by_sample(model(batch).float().cpu(), batch)

    def answer(self, asked: Asked, said: Sequence[Tensor]) -> Answer:
        """Returns the answer; see `Task.answer`."""
        scores = [one[sample.segment_b : -1] for one, sample in zip(said, asked.samples, strict=True)]  # without [SEP]
        span = best_span(asked.windows, scores, max_tokens=self._max_answer_tokens)
        spans = asked.pieces[1].spans
        start, stop = spans[span.first][0], spans[span.last][1]
        text = (asked.question.text_b or "")[start:stop]
        found = {"text": text, "start": start, "end": stop, "probability": span.probability}
        return Answer(
            values=asked.question.to_json() | {"answer": found}, rows=[Row("answer", text, percent(span.probability))]
        )


def _by_sample(rows_T: Tensor, batch: Batch) -> list[Tensor]:
    return [rows_T[start:stop] for start, stop in pairwise(batch.cu_seqlens.tolist())]
