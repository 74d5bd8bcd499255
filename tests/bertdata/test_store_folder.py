"""Folders of a build, here and in an object store: the same contract, and what goes wrong on the way to a store."""

import functools
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata import store_folder
from bertdata.errors import BertDataError, ConfigError, OutputError
from bertdata.object_stores import ObjectFolder
from bertdata.storage import LocalFolder, child_place, open_folder
from tests.bertdata.store_proxy import serve_proxy
from tests.bertdata.test_lease import wait_for
from tests.bertdata.test_remote import children_of, is_running, moto  # noqa: F401 - a fixture

DATA = bytes(range(256)) * 40
_numbers = itertools.count(1)  # of folders: modules of tests share the server


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

        def uri(self, address=moto, *, number=None):
            """The place of a folder of its own, or of an earlier one."""
            if number is None:
                self.number = next(_numbers)
            return f"s3://folders/out {number or self.number}?endpoint_override={address}&scheme=http&region=us-east-1"

        def objects(self):
            """Bytes of each object by name, but for those that stand for folders."""
            found = client.list_objects_v2(Bucket="folders", Prefix=f"out {self.number}/")
            objects = {item["Key"].partition("/")[2]: item["Size"] for item in found.get("Contents", [])}
            return {name: size for name, size in objects.items() if name and not name.endswith("/")}

        def body(self, name):
            return client.get_object(Bucket="folders", Key=f"out {self.number}/{name}")["Body"].read()

        def put(self, name, data):
            client.put_object(Bucket="folders", Key=f"out {self.number}/{name}", Body=data)

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


@pytest.mark.parametrize("num_examples", [3, pytest.param(15, marks=pytest.mark.slow)])
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


# What goes wrong on the way.


@pytest.fixture
def hasty(monkeypatch):
    """Clients that wait no time between tries."""
    monkeypatch.setattr(store_folder, "ObjectFolder", functools.partial(ObjectFolder, sleep=lambda _seconds: None))


def faults_for(methods, faults, *, part=""):
    """Returns what happens to the first requests of some methods, as `StoreProxy.fault` does."""
    left = list(faults)
    return lambda method, target: left.pop(0) if method in methods and part in target and left else ""


@pytest.mark.parametrize(
    "fault", [*(pytest.param(status, marks=pytest.mark.slow) for status in ("429", "503")), "lost"]
)
def test_upload_that_fails_is_tried_again(bucket, proxy, hasty, tmp_path, fault):
    folder = open_folder(bucket.uri(proxy.address))
    proxy.fault = faults_for(("PUT",), [fault])
    folder.write("a", DATA)
    proxy.fault = faults_for(("PUT",), [fault])
    with folder.create("in/b.tar") as file:
        file.write(DATA)
    assert (bucket.body("a"), bucket.body("in/b.tar")) == (DATA, DATA)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("fault", ["503", pytest.param("drop", marks=pytest.mark.slow), "cut:100", "short:100"])
def test_what_is_read_is_whole(bucket, proxy, hasty, fault):
    folder = open_folder(bucket.uri(proxy.address))
    for name in "ab":
        folder.write(name, DATA)
    proxy.fault = faults_for(("GET",), [fault] * 2, part="/out")
    assert folder.read("a") == DATA
    proxy.fault = faults_for(("GET",), [fault] * 2, part="/out")
    assert folder.read_ranges("a", [(0, 10), (5000, 9000)]) == [DATA[:10], DATA[5000:9000]]
    proxy.fault = faults_for(("GET",), [fault] * 2, part="/out")
    parts = [(name, start, start + 900) for start in range(0, 9000, 900) for name in "ab"]
    assert list(folder.read_many(parts)) == [DATA[start:stop] for _, start, stop in parts]


def test_list_facts_and_removals_are_tried_again(bucket, proxy, hasty):
    status = "503"
    folder = open_folder(bucket.uri(proxy.address))
    for name in ("a", "in/b", "in/c"):
        folder.write(name, DATA)
    proxy.fault = faults_for(("GET",), [status] * 2)
    assert folder.names("in") == ["in/b", "in/c"]
    proxy.fault = faults_for(("HEAD",), [status] * 2)
    assert folder.size("a") == len(DATA)
    proxy.fault = faults_for(("DELETE",), [status] * 2)
    folder.remove(["in/b", "a"])
    assert bucket.objects().keys() >= {"in/c"}
    proxy.fault = faults_for(("POST", "DELETE"), [status] * 2)
    folder.clear()
    assert bucket.objects() == {}


@pytest.mark.parametrize(
    ("method", "fault"), [("PUT", "403"), ("GET", "503"), pytest.param("PUT", "503", marks=pytest.mark.slow)]
)
def test_store_that_fails_for_good_is_an_error_that_names_the_object(bucket, proxy, hasty, tmp_path, method, fault):
    folder = open_folder(bucket.uri(proxy.address))
    folder.write("a", DATA)
    proxy.fault = lambda used, _target: fault if used == method else ""
    with pytest.raises(BertDataError, match="s3://folders/out.*/a"):
        if method == "GET":
            folder.read("a")
        else:
            with folder.create("a") as file:
                file.write(DATA[::-1])
    proxy.fault = lambda _method, _target: ""
    assert folder.read("a") == DATA
    assert left_over(tmp_path) == []


def test_object_of_another_size_than_was_uploaded_is_uploaded_again(bucket, proxy, hasty, monkeypatch):
    folder = open_folder(bucket.uri(proxy.address))
    put = ObjectFolder.put
    kept = [3, 5]

    def put_some(self, name, source):
        put(self, name, source.read_bytes()[: kept.pop()] if kept else source)

    monkeypatch.setattr(ObjectFolder, "put", put_some)
    with folder.create("a") as file:
        file.write(DATA)
    assert bucket.body("a") == DATA
    kept += [1, 2, 3]
    said = r"s3://folders/out.*/a has 1 bytes after an upload of 10,240"
    with pytest.raises(OutputError, match=said), folder.create("a") as file:
        file.write(DATA)


UPLOADER = """
import sys
from bertdata.storage import open_folder
with open_folder(sys.argv[1]).create("a.tar") as file:
    file.write(bytes(12 << 20))
"""


def test_upload_of_a_killed_process_leaves_no_object_and_no_process(bucket, proxy, tmp_path):
    """Of the parts of a large object one is there when all is killed that has to do with it."""
    proxy.fault = lambda method, target: "stall" if method == "PUT" and "partNumber=2" in target else ""
    with subprocess.Popen([sys.executable, "-c", UPLOADER, bucket.uri(proxy.address)]) as process:
        wait_for(lambda: proxy.stalled.is_set() and proxy.count("PUT", "partNumber=1"), seconds=60)
        helpers = children_of(process.pid)
        assert helpers
        process.send_signal(signal.SIGKILL)
        process.wait()
    proxy.released.set()
    wait_for(lambda: not any(is_running(helper) for helper in helpers))
    assert bucket.objects() == {}
    assert len(left_over(tmp_path)) == 1
    open_folder(bucket.uri()).sweep()
    assert left_over(tmp_path) == []


FORKER = """
import os, sys, time
from bertdata.storage import open_folder
folder = open_folder(sys.argv[1])
folder.write("a", b"parent")
if os.fork() == 0:
    if sys.argv[2] == "uses":
        assert folder.read("a") == b"parent"
    folder = None
    print(f"child {os.getpid()}\\n", end="", flush=True)
    time.sleep(60)
print(f"parent {os.getpid()}\\n", end="", flush=True)
assert folder.read("a") == b"parent"
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["uses", "ignores"])
def test_process_of_a_killed_parent_ends_though_a_fork_goes_on(bucket, how):
    command = [sys.executable, "-W", "error", "-c", FORKER, bucket.uri(), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pids = dict(process.stdout.readline().split() for _ in range(2))
        parent, child = int(pids["parent"]), int(pids["child"])
        helpers = [pid for pid in children_of(parent) if pid != child]
        assert len(helpers) == 1
        assert len(children_of(child)) == (how == "uses")
        os.kill(parent, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not is_running(helpers[0]))
        assert is_running(child)
        own = children_of(child)
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: not any(is_running(pid) for pid in own))


def test_object_is_opened_once_for_all_reads_of_parts(bucket, proxy):
    folder = open_folder(bucket.uri(proxy.address))
    names = [f"runs/{number}" for number in range(20)]
    for number, name in enumerate(names):
        folder.write(name, DATA[number:])
    proxy.requests.clear()
    for start in range(0, 1000, 200):  # as shards do
        parts = [(name, start, start + 200) for name in names]
        wanted = [DATA[start + number : start + number + 200] for number in range(20)]
        assert list(folder.read_many(parts)) == wanted
    assert proxy.count("HEAD", "/runs/") == 20
    assert 100 <= proxy.count("GET", "/runs/") <= 102  # one whose last byte is that set before is read again


def test_object_that_is_written_again_or_removed_is_not_read_as_it_was(bucket):
    folder, other = open_folder(bucket.uri()), open_folder(f"{bucket.uri(number=bucket.number)}&anonymous=false")
    for data in (DATA[:100], DATA, DATA[5:50]):
        other.write("a", data)
        assert list(folder.read_many([("a", 0, 40), ("a", len(data) - 10, len(data))])) == [data[:40], data[-10:]]
    with pytest.raises(OSError, match="a: it has only 45 bytes"):
        list(folder.read_many([("a", 0, 46)]))
    other.remove(["a"])
    with pytest.raises(FileNotFoundError):
        list(folder.read_many([("a", 0, 40)]))
