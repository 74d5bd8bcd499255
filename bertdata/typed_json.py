"""Values of JSON, which may hold anything, become values of the types that a dataclass says."""

from __future__ import annotations

import dataclasses
import reprlib
import types
from collections.abc import Hashable
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["from_json"]

Kind = TypeVar("Kind")


def from_json(kind: type[Kind], value: Any, *, where: str) -> Kind:
    """Returns a value of JSON as a dataclass, all of whose fields it must have; others are left out.

    >>> @dataclasses.dataclass
    ... class Point:
    ...     name: str
    ...     places: tuple[int, ...]
    >>> from_json(Point, {"name": "a", "places": [1, 2]}, where="point")
    Point(name='a', places=(1, 2))

    Args:
        kind: The dataclass. Its fields, and theirs, are int, float, str, bool, None, Any, Literal, dataclasses, and
            unions, dictionaries, lists and tuples of any length of these.
        value: What `json.loads` gave.
        where: What the value is, for messages.

    Raises:
        ValueError: A value is missing or of another type, or the dataclass does not allow it.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {reprlib.repr(value)}, not an object")
    hints = _field_types(kind)  # type: ignore[arg-type]
    missing = hints.keys() - value.keys()
    if missing:
        raise ValueError(f"{where} has no {', '.join(sorted(missing))}")
    return kind(**{name: _convert(hint, value[name], where=f"{where}: {name}") for name, hint in hints.items()})


@cache
def _field_types(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


def _convert(kind: Any, value: Any, *, where: str) -> Any:
    if kind is Any or type(value) is kind:
        return value
    origin, parts = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return from_json(kind, value, where=where)  # type: ignore[arg-type]
    if origin is dict and isinstance(value, dict):
        return {name: _convert(parts[1], part, where=f"{where}: {name[:80]!r}") for name, part in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        if all(type(part) is parts[0] for part in value):
            return origin(value)
        return origin(_convert(parts[0], part, where=f"{where}: {number}") for number, part in enumerate(value))
    if (
        (kind is float and type(value) is int)
        or (origin is Literal and value in parts)
        or (origin in (Union, types.UnionType) and type(value) in parts)
    ):
        return value
    raise ValueError(f"{where} is {reprlib.repr(value)}, not {getattr(kind, '__name__', kind)}")
