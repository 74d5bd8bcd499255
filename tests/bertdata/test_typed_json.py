import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertdata.config import BuildOptions
from bertdata.typed_json import from_json


@dataclass(frozen=True, kw_only=True)
class Inner:
    number: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    flag: bool | None
    kind: Literal["a", "b"]
    inner: Inner
    many: tuple[Inner, ...]
    counts: dict[str, int]
    numbers: list[int]
    anything: dict[str, Any]


inners = st.builds(Inner, number=st.integers(), share=st.floats(allow_nan=False) | st.just(1.0))
outers = st.builds(
    Outer,
    name=st.text(),
    flag=st.none() | st.booleans(),
    kind=st.sampled_from(["a", "b"]),
    inner=inners,
    many=st.lists(inners, max_size=3).map(tuple),
    counts=st.dictionaries(st.text(), st.integers(), max_size=3),
    numbers=st.lists(st.integers(), max_size=3),
    anything=st.dictionaries(st.text(), st.none() | st.lists(st.integers()), max_size=3),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [field.name for field in dataclasses.fields(Outer)]


@given(outers)
def test_what_was_written_is_read_again(outer):
    assert from_json(Outer, json.loads(json.dumps(dataclasses.asdict(outer))), where="outer") == outer


def fits(name, value):
    """Returns whether a value of JSON is one of the field of that name; `inner` and `many` are not judged."""
    is_int = type(value) is int
    return {
        "name": isinstance(value, str),
        "flag": value is None or isinstance(value, bool),
        "kind": value in ("a", "b"),
        "counts": isinstance(value, dict) and all(type(part) is int for part in value.values()),
        "numbers": isinstance(value, list) and all(type(part) is int for part in value),
        "anything": isinstance(value, dict),
        "inner": False if is_int else None,
        "many": False if is_int else None,
    }[name]


@given(outers, st.sampled_from(FIELDS), JSON)
def test_a_value_of_another_type_is_refused(outer, name, value):
    values = dataclasses.asdict(outer) | {"many": [], name: value}
    if fits(name, value):
        assert getattr(from_json(Outer, values, where="outer"), name) == value
    elif fits(name, value) is False:
        with pytest.raises(ValueError, match=f"outer: {name}"):
            from_json(Outer, values, where="outer")


@given(st.sampled_from(FIELDS))
def test_a_missing_field_is_named(name):
    values = {field: None for field in FIELDS if field != name}
    with pytest.raises(ValueError, match=f"outer has no {name}"):
        from_json(Outer, values, where="outer")


def test_whole_numbers_are_floats_and_nothing_else_is_converted():
    assert from_json(Inner, {"number": 1, "share": 1}, where="inner") == Inner(number=1, share=1.0)
    for value in (True, "1", None, [1]):
        with pytest.raises(ValueError, match="inner: share is"):
            from_json(Inner, {"number": 1, "share": value}, where="inner")


def test_message_tells_the_place_and_stays_short():
    values = BuildOptions().to_json()
    values["pairs"]["dupe_factor"] = ["x" * 10**6]
    with pytest.raises(ValueError, match=r"^options: pairs: dupe_factor is \['x+\.\.\.x+'\], not int$"):
        BuildOptions.from_json(values)
