"""What a model answers, for programs and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bertdata.painting import columns, printable

__all__ = ["Answer", "Row", "list_shares", "percent"]

_GAP = "  "


class Row(NamedTuple):
    """A line of an answer for people.

    Attributes:
        head: What is answered; empty where it is the same as in the row before.
        text: The answer.
        figure: How probable it is, or where the answer is a number, nothing.
    """

    head: str
    text: str
    figure: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer to a question; as text, the table that `bert-predict` prints.

    Attributes:
        values: For programs, as JSON values in full precision: `text`, `text_b` of two, and what was said of them, as
            `bert-predict --json` prints it.
        rows: For people.
    """

    values: dict[str, Any]
    rows: list[Row]

    def __str__(self) -> str:
        """Returns the rows as a table."""
        cells = [(printable(row.head), printable(row.text), row.figure) for row in self.rows]
        head, text, figure = (max((columns(row[number]) for row in cells), default=0) for number in range(3))
        lines = []
        for first, second, third in cells:
            line = first + " " * (head - columns(first)) + _GAP + second + " " * (text - columns(second)) + _GAP
            lines.append((line + third.rjust(figure)).rstrip())
        return "\n".join(lines)


def percent(probability: float) -> str:
    """Returns a probability for people."""
    return f"{probability:.1%}"


def list_shares(head: str, shares: Sequence[tuple[str, float]]) -> list[Row]:
    """Returns the rows of several answers with their probabilities."""
    return [Row("" if number else head, name, percent(share)) for number, (name, share) in enumerate(shares)]
