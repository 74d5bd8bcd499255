"""Ranges of objects: put together, cut, and fetched from a store of Google's kind."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertdata.object_stores import ObjectFolder
from bertdata.retries import WrongSizeError
from bertdata.store_client import coalesce, cut
from bertdata.web import NotFoundError
from tests.bertdata.shard_server import serve_shards

DATA = bytes(range(256)) * 4000
RANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)).map(lambda pair: (pair[0], pair[0] + pair[1])))


@given(ranges=RANGES, near_bytes=st.integers(0, 30))
def test_coalesce_covers_the_ranges_and_nothing_that_is_far(ranges, near_bytes):
    merged = coalesce(ranges, near_bytes=near_bytes)
    wanted = {place for start, stop in ranges for place in range(start, stop)}
    covered = [place for start, stop in merged for place in range(start, stop)]
    assert wanted <= set(covered)
    assert len(covered) == len(set(covered))
    for (_, stop), (start, _) in itertools.pairwise(merged):
        assert start - stop > near_bytes
    for start, stop in merged:
        inner = sorted(wanted & set(range(start, stop)))
        assert (inner[0], inner[-1] + 1) == (start, stop)
        assert all(second - first - 1 <= near_bytes for first, second in itertools.pairwise(inner))


@given(start=st.integers(0, 1 << 25), num_bytes=st.integers(0, 1 << 25))
def test_cut_gives_the_range_in_pieces_of_bounded_size(start, num_bytes):
    pieces = cut(start, start + num_bytes)
    assert sum(stop - first for first, stop in pieces) == num_bytes
    assert all(0 < stop - first <= 1 << 23 for first, stop in pieces)
    assert [first for first, _ in pieces[1:]] == [stop for _, stop in pieces[:-1]]


@pytest.fixture(scope="module")
def google():
    """A folder in a store of Google's kind, and its server."""
    with serve_shards() as server:
        server.answer = server.answer_gcs
        server.is_data = lambda _method, path: "alt=media" in path
        query = f"?endpoint_override={server.address}&scheme=http&anonymous=true"
        folder = ObjectFolder(f"gs://buck/folder{query}", timeout=5.0, max_failures=2, sleep=lambda _seconds: None)
        yield server, folder
        folder.close()


@pytest.fixture
def google_folder(google):
    server, folder = google
    server.files.clear()
    server.files["/buck/folder/a"] = DATA
    return folder


def test_ranges_come_exactly_and_near_ones_by_one_request(google, google_folder):
    ranges = [(500_000, 500_100), (0, 10), (10, 20), (5, 5), (400_000, 400_001), (1_000_000, 1_024_000), (3, 12)]
    google[0].requests.clear()
    assert google_folder.read_ranges("a", ranges) == [DATA[start:stop] for start, stop in ranges]
    asked = {asked for _, _, asked in google[0].requests if asked}
    assert asked == {"bytes=0-19", "bytes=400000-500099", "bytes=1000000-1023999"}


def test_parts_of_many_objects_come_in_order(google, google_folder):
    google[0].files |= {f"/buck/folder/{number}": DATA[number : number + 50 + number] for number in range(40)}
    parts = [(str(number), 10, 60) for number in range(40)]
    found = list(google_folder.read_parts(parts, clip=True))
    assert [data for _, data in found] == [DATA[number + 10 : number + 50 + min(number, 10)] for number in range(40)]
    assert [(facts.name, facts.num_bytes) for facts, _ in found] == [(str(n), 50 + n) for n in range(40)]


def test_parts_that_are_not_there_are_errors(google_folder):
    with pytest.raises(WrongSizeError, match=r"folder/a: it has only 1,024,000 bytes"):
        google_folder.read_ranges("a", [(0, len(DATA) + 1)])
    with pytest.raises(NotFoundError, match="folder/b: nothing is there"):
        google_folder.read_ranges("b", [(0, 1)])
    assert google_folder.facts("b") is None
    assert google_folder.facts("a").num_bytes == len(DATA)
    assert google_folder.list_objects("none") == []
    assert [facts.name for facts in google_folder.list_objects()] == ["a"]
