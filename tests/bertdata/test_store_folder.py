"""Folders of a build, here and in an object store: the same contract, and what goes wrong on the way to a store."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata.errors import ConfigError
from bertdata.storage import LocalFolder, child_place, open_folder
from tests.bertdata.store_proxy import serve_proxy
from tests.bertdata.test_remote import children_of, is_running, moto  # noqa: F401 - a fixture

DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _own_place(tmp_path, monkeypatch):
    """Keys of nobody, so that none of this machine are used, and a folder for temporary files that can be looked at."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()


@pytest.fixture(scope="module")
def bucket(moto):  # noqa: F811
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=f"http://{moto}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="folders")

    class Bucket:
        def __init__(self):
            self.number = 0

        def uri(self, address=moto):
            """The place of a folder of its own."""
            self.number += 1
            return f"s3://folders/out {self.number}?endpoint_override={address}&scheme=http&region=us-east-1"

        def objects(self):
            """Bytes of each object by name, but for the one that stands for the folder itself."""
            found = client.list_objects_v2(Bucket="folders", Prefix=f"out {self.number}/")
            objects = {item["Key"].partition("/")[2]: item["Size"] for item in found.get("Contents", [])}
            return {name: size for name, size in objects.items() if name}

        def body(self, name):
            return client.get_object(Bucket="folders", Key=f"out {self.number}/{name}")["Body"].read()

        def cut(self, name, num_bytes):
            key = f"out {self.number}/{name}"
            client.put_object(Bucket="folders", Key=key, Body=self.body(name)[:num_bytes])

    return Bucket()


@pytest.fixture
def proxy(moto):  # noqa: F811
    with serve_proxy(moto) as server:
        yield server


def left_over(tmp_path) -> list[Path]:
    return [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()]


NAMES = ["a", "b.json", "in/a", "in/b.tar", "in/deep/a", "é ü"]
actions = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.binary(max_size=40)),
    st.tuples(st.just("create"), st.sampled_from(NAMES), st.binary(max_size=40)),
    st.tuples(st.just("remove"), st.lists(st.sampled_from(NAMES), max_size=3, unique=True), st.none()),
    st.tuples(st.just("clear"), st.lists(st.sampled_from(["a", "b.json"]), max_size=2, unique=True), st.none()),
    st.tuples(st.just("ranges"), st.sampled_from(NAMES), st.lists(st.tuples(*[st.integers(0, 20)] * 2), max_size=3)),
)


def check_contract(folder, sequence) -> None:
    """Does to a folder what is done to a dictionary of its files, and compares them after each step."""
    files: dict[str, bytes] = {}
    for what, name, value in sequence:
        if what == "write":
            folder.write(name, value)
            files[name] = value
        elif what == "create":
            with folder.create(name) as file:
                file.write(value[:5])
                file.write(value[5:])
                assert file.tell() == len(value)
            files[name] = value
        elif what == "remove":
            folder.remove(name)
            files = {key: data for key, data in files.items() if key not in name}
        elif what == "clear":
            folder.clear(keep=name)
            files = {key: data for key, data in files.items() if key in name}
        elif name in files:
            ranges = [(min(pair), max(pair)) for pair in value]
            wanted = [files[name][start:stop] for start, stop in ranges]
            if all(stop <= len(files[name]) for _, stop in ranges):
                assert folder.read_ranges(name, ranges) == wanted
                assert list(folder.read_many([(name, *pair) for pair in ranges])) == wanted
            else:
                with pytest.raises(OSError, match=r"."):
                    folder.read_ranges(name, ranges)
                with pytest.raises(OSError, match=r"."):
                    list(folder.read_many([(name, *pair) for pair in ranges]))
        else:
            with pytest.raises(FileNotFoundError):
                folder.read(name)
            with pytest.raises(FileNotFoundError):
                folder.read_ranges(name, [(0, 1)])
        for inner in ("", "in", "in/deep", "absent"):
            start = f"{inner}/" if inner else ""
            assert folder.names(inner) == sorted(
                key for key in files if key.startswith(start) and "/" not in key[len(start) :]
            )
        for key in NAMES:
            assert folder.has(key) == (key in files)
            assert folder.size(key) == (len(files[key]) if key in files else None)
        assert {key: folder.read(key) for key in files} == files
        child = folder.child("in")
        assert child.names() == [key.partition("/")[2] for key in folder.names("in")]
        assert open_folder(child.place).names() == child.names()
        assert child.location == f"{folder.location}/in"


@settings(max_examples=25)
@given(sequence=st.lists(actions, max_size=8))
def test_folder_here_holds_to_the_contract(tmp_path_factory, sequence):
    folder = LocalFolder(tmp_path_factory.mktemp("folder") / "out")
    check_contract(folder, sequence)
    folder.clear()
    assert not folder.path.exists()


@pytest.mark.parametrize("num_examples", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_folder_in_a_store_holds_to_the_contract(bucket, tmp_path, num_examples):
    @settings(max_examples=num_examples, deadline=None, database=None)
    @given(sequence=st.lists(actions, min_size=3, max_size=6))
    def check(sequence):
        check_contract(open_folder(bucket.uri()), sequence)
        assert left_over(tmp_path) == []

    check()


def test_place_of_a_folder_within_keeps_the_options_of_a_uri():
    assert child_place("/a/b", "c") == "/a/b/c"
    assert child_place("s3://b/c/?region=x", "d") == "s3://b/c/d?region=x"
    assert child_place("s3://b", "d") == "s3://b/d"


@pytest.mark.parametrize("place", ["https://host/out", "ftp://host/out", "s3://user@bucket/x", "s3://b/x?colour=red"])
def test_place_that_is_not_written_to_is_refused(place):
    with pytest.raises(ConfigError):
        open_folder(place)


def test_nothing_is_left_after_an_exception(bucket, tmp_path):
    folder = open_folder(bucket.uri())
    with pytest.raises(ZeroDivisionError), folder.create("a.tar") as file:
        file.write(DATA)
        raise ZeroDivisionError
    assert bucket.objects() == {}
    assert left_over(tmp_path) == []
