"""What two builds differ in, where one is asked for in the folder of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bertdata.config import BuildOptions
from bertdata.fingerprint import library_versions
from bertdata.inputs import InputFile, file_name
from bertdata.manifest import Manifest
from bertdata.work import Work

__all__ = ["describe_differences", "describe_differences_of_finished"]

_MOST = 5  # differences that are named


def describe_differences(found: Work, *, options: BuildOptions, inputs: Sequence[InputFile]) -> str:
    """Returns how an unfinished build differs from the wanted one, as a clause.

    Args:
        found: The unfinished build.
        options: The wanted options.
        inputs: The wanted inputs.
    """
    return _clause(
        [
            *_input_differences(found.inputs, inputs),
            *_value_differences(found.options.to_json(), options.to_json()),
        ]
    )


def describe_differences_of_finished(found: Manifest, *, options: BuildOptions, inputs: Sequence[InputFile]) -> str:
    """Returns the same of a finished build, whose manifest knows its inputs by name and size.

    Args:
        found: The manifest of one of its data sets.
        options: The wanted options.
        inputs: The wanted inputs.
    """
    length = found.options["pairs"]["max_seq_length"]
    wanted = options.for_length(length) if length in options.max_seq_lengths else options
    before = {(entry["name"], entry["bytes"]) for entry in found.inputs}
    now = {(file_name(file.path), file.num_bytes) for file in inputs if file.num_bytes}
    return _clause(
        [
            *(f"{name} of {size:,} bytes is no input any more" for name, size in sorted(before - now)),
            *(f"{name} of {size:,} bytes is a new input" for name, size in sorted(now - before)),
            *_value_differences(found.options, wanted.to_json()),
            *_value_differences(found.versions, library_versions()),
        ]
    )


def _clause(differences: Sequence[str]) -> str:
    if not differences:
        return "the versions of libraries, the tokenizer's files, a function of your own or the input's times differ"
    named = [*differences[:_MOST], *([f"and {len(differences) - _MOST} more"] if len(differences) > _MOST else [])]
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


def _value_differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    before, now = dict(_leaves(found)), dict(_leaves(wanted))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name} was {_shown(before.get(name))}, and is {_shown(now.get(name))}"


def _shown(value: Any) -> str:
    return f"{len(value):,} values" if isinstance(value, list) and len(value) > _MOST else str(value)


def _leaves(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield name, value
