"""Samples as text for a terminal: pieces in the colours of what they are, lines broken between pieces only.

The text says the same without colours, in which predicted positions stand as

    «[MASK]|cat»     the model sees [MASK] and is to say "cat"
    «tree|cat»       it sees another token, drawn at random
    «cat»            it sees the token itself, and is asked for it all the same
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

import click
from tokenizers import Tokenizer

from bertdata.blocks import Sample
from bertdata.data_set import DataSet
from bertdata.wordpiece import load_tokenizer

__all__ = ["LABELS", "Painter", "columns", "paint", "printable", "wrap"]

LABELS = {"balanced": ("IsNext", "NotNext"), "google": ("IsNext", "NotNext"), "sop": ("in order", "swapped")}

_CONTINUES = "##"
_STYLES: dict[str, dict[str, Any]] = {
    "A": {},
    "B": {"fg": "cyan"},
    "special": {"dim": True},
    "masked": {"fg": "yellow", "bold": True},
    "replaced": {"fg": "red", "bold": True},
    "kept": {"fg": "green", "bold": True},
    "label": {"underline": True},
    "name": {"bold": True},
}


def paint(text: str, kind: str) -> str:
    """Returns text in the colour of its kind."""
    return click.style(text, **_STYLES[kind]) if _STYLES[kind] else text


_HARMLESS = "\n\u200c\u200d"  # line end, and the joiners that some scripts need


def printable(text: str) -> str:
    """Returns text with escapes for control characters and marks of direction, which a terminal would obey."""
    return "".join(
        character
        if character in _HARMLESS or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp")
        else ascii(character)[1:-1]
        for character in text
    )


def columns(text: str) -> int:
    """Returns how many columns of a terminal text takes, without its colours."""
    plain = click.unstyle(text)
    if plain.isascii():
        return len(plain)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in plain)
    return len(plain) + wide - sum(unicodedata.combining(character) > 0 for character in plain)


def wrap(words: Iterable[str], *, head: str = "", width: int | None) -> str:
    """Returns words with a space between, broken into lines.

    Args:
        words: What is never broken; may be coloured.
        head: What stands before the first; the lines after it are indented as far.
        width: Columns of a line at most, where no word is longer; None for one line.
    """
    indent = columns(head)
    lines, line, used = [], head, indent
    for number, word in enumerate(words):
        size = columns(word)
        if number and width is not None and used + 1 + size > width:
            lines.append(line)
            line, used = " " * indent, indent
        elif number:
            word, size = f" {word}", size + 1
        line, used = line + word, used + size
    return "\n".join([*lines, line])


class Painter:
    """Writes samples of one data set.

    Args:
        tokenizer: The tokenizer of the samples' ids.
        roles: Ids of the special tokens by role.
        next_sentence: The mode in which the samples were built.
        width: Columns of a line at most; None for lines of any length.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, roles: dict[str, int], next_sentence: str, width: int | None = None
    ) -> None:
        self.width = width
        self._tokenizer = tokenizer
        self._mask = roles["mask"]
        self._special = {number for role, number in roles.items() if role != "unk"}
        self._labels = LABELS.get(next_sentence)

    @classmethod
    def of(cls, data_set: DataSet, *, width: int | None = None) -> Painter:
        """Returns the painter of a data set."""
        manifest = data_set.manifest
        return cls(
            load_tokenizer(data_set.folder / "tokenizer.json"),
            roles=manifest.tokenizer.roles,
            next_sentence=manifest.options["pairs"]["next_sentence"],
            width=width,
        )

    def piece(self, token: int) -> str:
        """Returns the piece of a token as the vocabulary has it."""
        return str(self._tokenizer.id_to_token(token))

    def label_name(self, sample: Sample) -> str | None:
        """Returns what the label of a sample is called; None for a sample of one segment."""
        return self._labels[sample.next_sentence_label] if self._labels is not None else None

    def kind(self, token: int, shown: int) -> str:
        """Returns what a predicted token shows: "masked", "replaced" or "kept"."""
        return "masked" if shown == self._mask else "kept" if shown == token else "replaced"

    def legend(self) -> str:
        """Returns a line on what the colours and marks mean."""
        label = paint("label", "label")
        words = [
            *(paint("A", "A"), paint("B", "B"), paint("special", "special")),
            f"{paint('«[MASK]', 'masked')}|{label}{paint('»', 'masked')} shows [MASK],",
            f"{paint('«other', 'replaced')}|{label}{paint('»', 'replaced')} shows a random token,",
            f"{paint('«', 'kept')}{label}{paint('»', 'kept')} shows itself",
        ]
        return wrap(words, head="legend: ", width=self.width)

    def describe(self, sample: Sample, *, mask_set: int = 0) -> list[str]:
        """Returns the segments of a sample, its label and its documents, each a line or more.

        Args:
            sample: The sample.
            mask_set: Which of its mask sets is marked in the text; none where it has none.
        """
        pieces = self._pieces(sample, mask_set=mask_set)
        boundary = sample.segment_ids.index(1) if 1 in sample.segment_ids else len(pieces)
        lines = [wrap(pieces[:boundary], head="  A          ", width=self.width)]
        if boundary < len(pieces):
            head = f"  {paint('B', 'B')}          "
            lines.append(wrap(pieces[boundary:], head=head, width=self.width))
            forced = " (forced: its chunk had one sentence)" if sample.label_forced else ""
            name = paint(str(self.label_name(sample)), "name")
            lines.append(f"  label      {sample.next_sentence_label} {name}{forced}")
        key_a, key_b = sample.document_keys
        lines.append(f"  documents  {key_a:016x} {key_b:016x}")
        return lines

    def predictions(self, sample: Sample, *, mask_set: int) -> list[str]:
        """Returns the predicted positions of a mask set: "7:" and what is seen and asked for there."""
        positions, shown = sample.mask_sets[mask_set]
        return [
            f"{position}:{self._prediction(sample.tokens[position], token)}"
            for position, token in zip(positions, shown, strict=True)
        ]

    def count_shown(self, sample: Sample, *, mask_set: int) -> str:
        """Returns how many positions of a mask set are predicted, and how many show what."""
        positions, shown = sample.mask_sets[mask_set]
        kinds = [self.kind(sample.tokens[position], token) for position, token in zip(positions, shown, strict=True)]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("masked", "replaced", "kept"))
        return f"{len(kinds)} predicted: {counts}"

    def _pieces(self, sample: Sample, *, mask_set: int) -> list[str]:
        seen = dict(zip(*sample.mask_sets[mask_set], strict=True)) if sample.mask_sets else {}
        return [
            self._prediction(token, seen[position]) if position in seen else self._plain(token, segment)
            for position, (token, segment) in enumerate(zip(sample.tokens, sample.segment_ids, strict=True))
        ]

    def _plain(self, token: int, segment: int) -> str:
        piece = printable(self.piece(token))
        if token in self._special:
            return paint(piece, "special")
        kind = "AB"[segment]
        if piece.startswith(_CONTINUES):
            return paint(_CONTINUES, "special") + paint(piece.removeprefix(_CONTINUES), kind)
        return paint(piece, kind)

    def _prediction(self, token: int, shown: int) -> str:
        kind = self.kind(token, shown)
        before = "«" if kind == "kept" else f"«{printable(self.piece(shown))}|"
        return f"{paint(before, kind)}{paint(printable(self.piece(token)), 'label')}{paint('»', kind)}"
