"""What two builds differ in, where one is asked for in the folder of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bertdata.config import BuildOptions
from bertdata.inputs import InputFile
from bertdata.work import Work

__all__ = ["describe_differences"]

_MOST = 5  # differences that are named


def describe_differences(found: Work, *, options: BuildOptions, inputs: Sequence[InputFile]) -> str:
    """Returns how an unfinished build differs from the wanted one, as a clause.

    Args:
        found: The unfinished build.
        options: The wanted options.
        inputs: The wanted inputs.
    """
    differences = [*_input_differences(found.inputs, inputs), *_option_differences(found.options, options)]
    if not differences:
        return "the versions of libraries, the tokenizer's files or a function of your own differ"
    named = differences[:_MOST]
    if len(differences) > _MOST:
        named.append(f"and {len(differences) - _MOST} more")
    return "; ".join(named)


def _input_differences(found: Sequence[InputFile], wanted: Sequence[InputFile]) -> Iterator[str]:
    before = {file.path: file for file in found}
    now = {file.path: file for file in wanted}
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            yield f"{path} is no input any more"
        elif path not in before:
            yield f"{path} is a new input"
        elif before[path].num_bytes != now[path].num_bytes:
            yield f"{path} has changed: it had {before[path].num_bytes:,} bytes, and has {now[path].num_bytes:,}"
        elif before[path] != now[path]:
            yield f"{path} has changed: it was written to since"


def _option_differences(found: BuildOptions, wanted: BuildOptions) -> Iterator[str]:
    before, now = (dict(_leaves(options.to_json())) for options in (found, wanted))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name} was {before.get(name)}, and is {now.get(name)}"


def _leaves(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield name, value
