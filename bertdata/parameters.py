"""What the command line takes beside plain words: types of options, options of several words, words for Beam."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import click

from bertdata.config import FORMATS, is_hook
from bertdata.workers import num_cores

__all__ = [
    "BEAM_OPTIONS",
    "CorpusCommand",
    "Format",
    "Lengths",
    "MaskSet",
    "NearestChoice",
    "Size",
    "Workers",
    "hint_at_nearest",
    "repeat_option",
]

BEAM_OPTIONS = "bertdata.beam_options"
"""Where the context of a command has the words that stand after "--"."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def hint_at_nearest(name: str, names: Sequence[str]) -> str:
    """Returns the end of a message about a name that is none of some: the most like it of them, if one is like it."""
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


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
            hint = hint_at_nearest(name, FORMATS)
            self.fail(f"{name!r} is not one of {', '.join(FORMATS)}, nor MODULE:FUNCTION{hint}", param, ctx)
        return name


class MaskSet(click.ParamType[Any]):
    """The number of a mask set, or all."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Returns the number, None for all."""
        if value == "all":
            return None
        if not value.isdecimal():
            self.fail(f"{value!r} is neither the number of a mask set, from 0 on, nor all", param, ctx)
        return int(value)


class NearestChoice(click.Choice[str]):
    """One of some names; the nearest one is said where it is none of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the name."""
        if value not in self.choices:
            hint = hint_at_nearest(str(value), self.choices)
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


class CorpusCommand(click.Command):
    """A command whose --input takes any number of paths, and whose words after "--" are for Beam.

    Args:
        takes_beam_options: Whether there may be words after "--".
    """

    def __init__(self, *args: Any, takes_beam_options: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._takes_beam_options = takes_beam_options

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeats --input before each of its paths, and sets what comes after "--" aside."""
        own, beam_options = (args[: args.index("--")], args[args.index("--") + 1 :]) if "--" in args else (args, [])
        if beam_options and not self._takes_beam_options:
            ctx.fail(f'{beam_options[0]} stands after "--", where bertdata build has options for Beam; leave out "--"')
        ctx.meta[BEAM_OPTIONS] = beam_options
        return super().parse_args(ctx, repeat_option(own, "--input"))
