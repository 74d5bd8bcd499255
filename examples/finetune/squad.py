"""Reads SQuAD's files, and lays windows over texts that are longer than a model sees at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_ANSWER = 30  # pieces, as in the published run_squad.py
MAX_OVERLAP = 128  # of windows, in pieces; the same


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question, its text, and the answers that count as right with their first characters; none has no answer."""

    id: str
    text: str
    context: str
    answers: list[tuple[str, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """What the model sees of a question's text.

    Attributes:
        question: Number of the question.
        inputs: Ids, segment ids and attention mask.
        spans: First character and the one after the last of each piece; None where it is no piece of the text.
        starts: Places of the pieces at which an answer may begin; each piece of the text is one in a single window.
    """

    question: int
    inputs: dict[str, list[int]]
    spans: list[tuple[int, int] | None]
    starts: range


def read_squad(path: Path) -> list[Question]:
    """Returns the questions of a file as of SQuAD 1.1 or 2.0."""
    questions = []
    try:
        for paragraph in (
            one for article in json.loads(path.read_text("utf-8"))["data"] for one in article["paragraphs"]
        ):
            context = paragraph["context"]
            for row in paragraph["qas"]:
                answers = [(answer["text"], answer["answer_start"]) for answer in row["answers"]]
                questions.append(Question(id=row["id"], text=row["question"], context=context, answers=answers))
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{path} is no file as of SQuAD: {error!r}") from error
    for question in questions:
        for text, start in question.answers:
            if question.context[start : start + len(text)] != text:
                raise click.ClickException(f"{path}, {question.id}: no {text!r} at character {start} of its text")
    if not questions:
        raise click.ClickException(f"{path} has no questions")
    return questions


def iter_windows(questions: Iterable[Question], tokenizer: PreTrainedTokenizerBase, *, length: int) -> Iterator[Window]:
    """Yields the windows of all questions, those of a question in the order of its text.

    Raises:
        click.ClickException: If a question leaves too little room for its text, or the text is empty.
    """
    for number, question in enumerate(questions):
        asked = len(tokenizer(question.text)["input_ids"])
        if asked > length // 2:
            raise click.ClickException(f"question {question.id} fills more than half of --max-seq-length {length}")
        if not question.context.strip():
            raise click.ClickException(f"question {question.id} has an empty text")
        overlap = min(max(min(MAX_OVERLAP, length // 4), MAX_ANSWER), length - asked - 2)  # less than what fits
        # What begins in the first half of an overlap counts in the window before, if all answers still end there.
        lead = max(0, min(overlap // 2, overlap - MAX_ANSWER))
        rows = tokenizer(
            question.text,
            question.context,
            truncation="only_second",
            max_length=length,
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        names = [name for name in rows if name in tokenizer.model_input_names]
        count = len(rows["input_ids"])
        for row, places in enumerate(rows["offset_mapping"]):
            is_text = [part == 1 for part in rows.sequence_ids(row)]
            first, stop = is_text.index(True), len(is_text) - 1  # [SEP] stands at the end
            if row > 0:
                first += lead
            if row + 1 < count:
                stop -= overlap - lead
            yield Window(
                question=number,
                inputs={name: rows[name][row] for name in names},
                spans=[place if mine else None for place, mine in zip(places, is_text, strict=True)],
                starts=range(first, stop),
            )


def encode(window: Window, question: Question) -> dict[str, Any]:
    """Returns what the model learns from: the window, and the places of the first answer's ends, or 0 without one."""
    first = last = 0
    if question.answers:
        text, start = question.answers[0]
        start, stop = start + len(text) - len(text.lstrip()), start + len(text.rstrip())  # no piece has white space
        inside = [place for place, span in enumerate(window.spans) if span and span[0] < stop and span[1] > start]
        seen = [window.spans[place] for place in inside]
        if seen and seen[0][0] <= start and seen[-1][1] >= stop:
            first, last = inside[0], inside[-1]
    return {**window.inputs, "start_positions": first, "end_positions": last}
