"""Unicode characters of running text: one form, one kind of space, one kind of line end."""

from __future__ import annotations

import re
from unicodedata import normalize

__all__ = ["clean_characters", "collapse_spaces"]

# Soft hyphen, zero-width space, marks of direction; not the (non-)joiners, which Persian and Indic spelling needs.
_INVISIBLE_OR_SPACE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\xa0\xad\u1680\u2000-\u200b\u200e\u200f\u202a-\u202f\u205f-\u2064\u2066-\u2069\u3000\ufeff"
    "\ufffe\uffff]"
)
_SPACES = re.compile("  +")


def clean_characters(text: str) -> str:
    r"""Returns NFC text without invisible and control characters, each kind of space as " ", each line end as "\n"."""
    for line_end in ("\r\n", "\r", "\x85", "\u2028", "\u2029"):
        if line_end in text:
            text = text.replace(line_end, "\n")
    text = text.replace("\xa0", " ")  # by far the most frequent of those below, so that they are seldom looked for
    if not text.replace("\n", "").isprintable():  # seldom, and asked in a tenth of the time
        text = _INVISIBLE_OR_SPACE.sub(_space_or_nothing, text)
    return normalize("NFC", text)


def _space_or_nothing(match: re.Match[str]) -> str:
    return " " if match[0].isspace() else ""


def collapse_spaces(text: str) -> str:
    """Returns text with one space for each run of spaces."""
    return _SPACES.sub(" ", text)
