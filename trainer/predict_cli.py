"""The command `bert-predict`: asks a model, pre-trained or fine-tuned."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import textwrap
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from bertdata.errors import InputError, TrainingError
from bertdata.program import SETTINGS, ending

if TYPE_CHECKING:
    from trainer.answers import Answer
    from trainer.questions import Question

__all__ = ["main"]

_log = logging.getLogger(__name__)

_STDIN = "-"
_READ_BYTES = 1 << 20
_AT_LEAST_ONE = click.IntRange(min=1)


class _PredictCommand(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        with ending():
            return super().invoke(ctx)


@click.command(
    cls=_PredictCommand,
    context_settings=SETTINGS,
    epilog='Example: bert-predict run/ "The cat [MASK] on the mat."',
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.argument("text_b", required=False)
@click.option("--top-k", type=_AT_LEAST_ONE, default=5, help="Words for each [MASK]; labels to show.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per input, on a line of its own.")
@click.option(
    "--max-seq-length",
    type=_AT_LEAST_ONE,
    help="Tokens that the model reads at once, at most; a context to find an answer in is read in windows. "
    "[default: as the tokenizer says, or the positions of the model]",
)
@click.option("--max-answer-tokens", type=_AT_LEAST_ONE, default=30, help="Tokens of an answer in a context, at most.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, a vocab.txt, or a folder with one. [default: the one beside the model]",
)
@click.version_option(package_name="bertdata")
def main(
    model: Path,
    text: str | None,
    text_b: str | None,
    top_k: int,
    as_json: bool,
    max_seq_length: int | None,
    max_answer_tokens: int,
    tokenizer: Path | None,
) -> None:
    """Asks a model what it has learned.

    MODEL is the folder of a run, or one for transformers with a tokenizer in it. What is printed depends on what the
    model was trained for:

    \b
    pre-training          the most probable words for each [MASK] in the texts, and
                          with TEXT_B whether it follows TEXT: IsNext or NotNext
    labels of texts       the labels of TEXT, or of the pair, most probable first
    tags of words         the tag of each word of TEXT
    question answering    the answer to the question TEXT that is found in TEXT_B

    Without TEXT, or with -, each line of stdin is a TEXT, or a TEXT, a tab and a TEXT_B.
    """  # noqa: D301 - click looks for the character itself
    if text in (None, _STDIN) and text_b is not None:
        raise click.UsageError("TEXT_B comes after a TEXT; lines of stdin have theirs behind a tab")
    if not all(one.strip() for one in (text, text_b) if one is not None):
        raise click.UsageError("a text is empty")
    if not all(map(_is_unicode, (text or "", text_b or ""))):
        raise click.UsageError("a text is not UTF-8; convert it first, as with iconv")
    if not all(map(importlib.util.find_spec, ("torch", "safetensors"))):
        raise TrainingError('bert-predict needs torch and safetensors: pip install "bertdata[train]"')
    from trainer.opening import open_model
    from trainer.predict import AnswerLimits
    from trainer.questions import Question

    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    limits = AnswerLimits(top_k=top_k, max_seq_length=max_seq_length, max_answer_tokens=max_answer_tokens)
    predictor = open_model(model, limits=limits, tokenizer=tokenizer)
    if text is not None and text != _STDIN:
        for answer in predictor.iter_answers([Question(text=text, text_b=text_b)]):
            _print(answer, as_json=as_json)
        return
    if sys.stdin.isatty():
        click.echo("write a TEXT, or a TEXT, a tab and a TEXT_B; end with Ctrl-D", err=True)
    for questions in _iter_questions(cast(BufferedReader, sys.stdin.buffer)):
        for answer, question in zip(predictor.iter_answers(questions), questions, strict=False):
            _print(answer, as_json=as_json, question=question)


def _is_unicode(text: str) -> bool:
    """Returns whether an argument was UTF-8: Python hands other bytes on as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _print(answer: Answer, *, as_json: bool, question: Question | None = None) -> None:
    """Prints an answer; beneath its question, where there are several."""
    from bertdata.painting import printable

    if as_json:
        click.echo(json.dumps(answer.values, ensure_ascii=False))
    elif question is None:
        click.echo(str(answer))
    else:
        texts = [question.text, *([] if question.text_b is None else [question.text_b])]
        click.echo(f"{printable(' | '.join(texts))}\n{textwrap.indent(str(answer), '  ')}\n")


def _iter_questions(stream: BufferedReader) -> Iterator[list[Question]]:
    """Yields the questions of lines as they come: of a file as many as one read gives, of a slow writer each.

    Raises:
        InputError: A line is not what it should be; those before it have been yielded.
    """
    for numbered in _iter_lines(stream):
        questions: list[Question] = []
        try:
            for number, line in numbered:
                if line.strip():
                    questions.append(_parse_line(line, number=number))
                else:
                    _log.warning("line %d is empty, and is passed over", number)
        except InputError:
            yield questions
            raise
        yield questions


def _iter_lines(stream: BufferedReader) -> Iterator[list[tuple[int, bytes]]]:
    """Yields all whole lines that reads give, with their numbers: it waits for no more than is there."""
    number, rest = 1, b""
    while data := stream.read1(_READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield list(enumerate(lines, start=number))
            number += len(lines)
    if rest:
        yield [(number, rest)]


def _parse_line(line: bytes, *, number: int) -> Question:
    from trainer.questions import Question

    place = f"line {number}: "
    try:
        texts = line.decode("utf-8").removesuffix("\r").split("\t")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}it is not UTF-8 ({error}); convert it first, as with iconv") from error
    if len(texts) > 2:
        raise InputError(f"{place}it has {len(texts) - 1} tabs; write TEXT, or TEXT, one tab and TEXT_B")
    if not all(text.strip() for text in texts):
        raise InputError(f"{place}a text is empty; write TEXT, or TEXT, one tab and TEXT_B")
    return Question(text=texts[0], text_b=texts[1] if len(texts) == 2 else None, place=place)
