"""Damaged files: each ends in a clear error, or in the count that an independent reading gives; none hangs."""

import bz2
import gzip
import io
import random
import re
import signal
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from bertdata.errors import InputError
from tests.bertdata.damage import damage
from tests.bertdata.formats import FORMATS, format_of
from tests.bertdata.reading import read
from tests.corpus import sentence

zstandard = pytest.importorskip("zstandard")

TEXTS = [" ".join(sentence(number, place) for place in range(4)) for number in range(40)]
DUMP = Path(__file__).parents[3] / "shared" / "data" / "enwiki-106-articles.xml.bz2"
SECONDS = 30


def decompress(name: str, data: bytes) -> bytes:
    if name.endswith(".bz2"):
        whole = b""
        while data:
            stream = bz2.BZ2Decompressor()
            whole += stream.decompress(data)
            if not stream.eof:
                raise EOFError
            data = stream.unused_data
        return whole
    if name.endswith(".gz"):
        return gzip.decompress(data)
    if name.endswith(".zst"):
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
    return data


def expected_records(name: str, data: bytes, counts: Counter[str]) -> bool:
    """Returns whether the counts are right, by standard libraries alone.

    Raises:
        Exception: The file cannot be read at all.
    """
    if name.endswith(".parquet"):
        columns = ["text", "language"]  # what lies in others is not looked at
        return pq.read_table(io.BytesIO(data), columns=columns, use_threads=False).num_rows == counts["records"]
    plain = decompress(name, data)
    if ".xml" in name:
        try:
            pages = sum(element.tag.endswith("page") for element in ElementTree.fromstring(plain))
        except ElementTree.ParseError:  # damage in a header's attribute, say, of which no page depends
            pages = plain.count(b"<page>")
        kinds = ("articles", "redirects", "other_namespaces", "other_models")
        return (
            pages == counts["pages"] == sum(counts[kind] for kind in kinds) and counts["records"] == counts["articles"]
        )
    if name.startswith("records"):
        return sum(bool(line.strip()) for line in plain.split(b"\n")) == counts["records"]
    if name.startswith("wiki"):
        return counts["rejected_bad_markup"] > 0 or plain.count(b"</doc>") == counts["records"]
    paragraphs = re.split(rb"(?:\A|\n)\s*(?:\n|\Z)", plain)
    return sum(bool(paragraph.strip()) for paragraph in paragraphs) == counts["records"]


class TooSlowError(Exception):
    pass


def stop(number: int, frame: object) -> None:
    raise TooSlowError


def check(path: Path, data: bytes, *, split_bytes: int) -> str:
    """Reads damaged data, and returns what came of it."""
    path.write_bytes(data)
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        _, counts, _ = read(path, split_bytes=split_bytes, format=format_of(path.name))
    except InputError as error:
        return "error" if str(path) in str(error) else f"an error that does not name the file: {error}"
    finally:
        signal.alarm(0)
    assert expected_records(path.name, data, counts), counts
    return "bad records" if any(name.startswith("rejected_") for name in counts) else "right count"


def fuzz(folder: Path, name: str, *, rounds: range) -> Counter[str]:
    data = FORMATS[name](TEXTS)
    outcomes: Counter[str] = Counter()
    for number in rounds:
        draw = random.Random(f"{name} {number}")
        broken = damage(data, draw)
        if broken and broken != data:
            try:
                outcomes[check(folder / name, broken, split_bytes=draw.choice([100, 1000, 10**9]))] += 1
            except Exception as error:
                raise AssertionError(f"damage {number} of {name}") from error
    return outcomes


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_file_ends_in_an_error_or_the_right_count(tmp_path, name):
    outcomes = fuzz(tmp_path, name, rounds=range(30))
    assert set(outcomes) <= {"error", "bad records", "right count"}
    assert outcomes["error"] + outcomes["bad records"] > 0 or name == "text.txt"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_file_ends_in_an_error_or_the_right_count_often(tmp_path, name):
    outcomes = fuzz(tmp_path, name, rounds=range(30, 700))
    assert set(outcomes) <= {"error", "bad records", "right count"}
    assert outcomes.total() > 500


@pytest.mark.slow
@pytest.mark.skipif(not DUMP.exists(), reason="the real dump is not there")
@pytest.mark.parametrize("kind", ["bz2", "xml"])
def test_damaged_real_dump_ends_in_an_error_or_the_right_count(tmp_path, kind):
    name = "multistream.xml.bz2" if kind == "bz2" else "dump.xml"
    data = DUMP.read_bytes() if kind == "bz2" else bz2.decompress(DUMP.read_bytes())
    outcomes: Counter[str] = Counter()
    for number in range(30):
        draw = random.Random(f"{kind} {number}")
        outcomes[check(tmp_path / name, damage(data, draw), split_bytes=draw.choice([300_000, 10**9]))] += 1
    assert set(outcomes) <= {"error", "bad records", "right count"}
    assert outcomes["error"] > 0
