"""Types of what options take on the command line, and options that take several words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import click

from bertdata.config import FORMATS, is_hook
from bertdata.workers import num_cores

__all__ = ["Format", "Lengths", "NearestChoice", "Size", "Workers", "repeat_option"]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


class Size(click.ParamType[Any]):
    """A number of bytes with an optional unit: 1000, 64MiB, 1GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the number."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
        if match is None or match[2].upper() not in _UNITS:
            self.fail(f"{value!r} is not a size; write 1000, 64MiB or 1GB", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].upper()])


class Lengths(click.ParamType[Any]):
    """One length, or several with commas."""

    name = "lengths"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Returns the lengths."""
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\d+(,\d+)*", value):
            self.fail(f"{value!r} is not a length, nor several with commas such as 128,512", param, ctx)
        return tuple(int(part) for part in value.split(","))


class Format(click.ParamType[Any]):
    """One of the formats, or MODULE:FUNCTION."""

    name = "format"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the name."""
        name = str(value)
        if name not in FORMATS and not is_hook(name):
            nearest = difflib.get_close_matches(name, FORMATS, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            self.fail(f"{name!r} is not one of {', '.join(FORMATS)}, nor MODULE:FUNCTION{hint}", param, ctx)
        return name


class NearestChoice(click.Choice[str]):
    """One of some names; the nearest one is said where it is none of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the name."""
        if value not in self.choices:
            nearest = difflib.get_close_matches(str(value), self.choices, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            self.fail(f"{value!r} is not one of {', '.join(self.choices)}{hint}", param, ctx)
        return super().convert(value, param, ctx)


class Workers(click.ParamType[Any]):
    """A number of processes, or all: as many as there are processors."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the number."""
        if isinstance(value, int):
            return value
        if value == "all":
            return num_cores()
        if not value.isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is neither a number from 1 on nor all", param, ctx)
        return int(value)


def repeat_option(words: Sequence[str], name: str) -> list[str]:
    """Returns a command line in which an option stands before each of its words.

    A shell turns `--input corpus/*.jsonl` into several words, so all words up to the next option belong to it.

    >>> repeat_option(["--input", "a", "b", "--out", "c"], "--input")
    ['--input', 'a', '--input', 'b', '--out', 'c']
    """
    repeated: list[str] = []
    belongs = False
    for word in words:
        if word.startswith("-") and word != "-":
            belongs = word == name
            repeated.append(word)
        elif belongs and repeated[-1] != name:
            repeated += [name, word]
        else:
            repeated.append(word)
    return repeated
