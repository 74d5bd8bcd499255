"""Files that lie elsewhere: each of three kinds of stores, on servers that misbehave."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.fs
import pytest

from bertdata import object_stores, store_process
from bertdata.cache_options import CacheOptions
from bertdata.data_set import open_data_set
from bertdata.errors import BertDataError, ConfigError, DownloadError, ShardError
from bertdata.remote import open_remote, read_remote
from bertdata.remote_data_set import fetch_data_set
from bertdata.retries import WrongSizeError
from bertdata.uris import is_uri, location_of
from bertdata.web import NotFoundError
from tests.bertdata.shard_server import ShardServer, passed_on_to, serve_shards
from tests.small_data_set import make_data_set

DATA = random.Random(1).randbytes(300_000)
NUM_BYTES = len(DATA)
KINDS = ("http", "s3", "gs")
SIGNATURE = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
TIMEOUTS = {"http": 0.3, "s3": 1.0, "gs": 0.5}


class Waits:
    """Waits no time, and remembers for how long it should have."""

    def __init__(self):
        self.seconds = []

    def __call__(self, seconds):
        self.seconds.append(seconds)


class Store:
    """A folder in one kind of store, behind a server that misbehaves."""

    def __init__(self, kind: str, server: ShardServer, moto: str) -> None:
        self.kind, self.server, self.waits = kind, server, Waits()
        query = f"?endpoint_override={server.address}&scheme=http"
        self.uri = {
            "http": f"http://{server.address}/buck/folder",
            "s3": f"s3://buck/folder{query}&region=us-east-1",
            "gs": f"gs://buck/folder{query}&anonymous=true",
        }[kind]
        self.location = f"http://{server.address}/buck/folder" if kind == "http" else f"{kind}://buck/folder"
        if kind == "s3":
            server.answer = passed_on_to(*moto.split(":"))
            self._files = pyarrow.fs.S3FileSystem(
                endpoint_override=moto, scheme="http", region="us-east-1", allow_bucket_creation=True
            )
            self._files.create_dir("buck")
            self._files.delete_dir_contents("buck", missing_dir_ok=True)
        elif kind == "gs":
            server.answer = server.answer_gcs
            server.is_data = lambda _method, path: ".tar" in path and "alt=media" in path

    def put(self, path: str, data: bytes) -> None:
        if self.kind != "s3":
            self.server.files[f"/buck/{path}"] = data
            return
        with self._files.open_output_stream(f"buck/{path}") as file:
            file.write(data)

    def open(self, **options):
        return open_remote(self.uri, **{"timeout": TIMEOUTS[self.kind], "sleep": self.waits} | options)


@pytest.fixture(scope="session")
def moto():
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    """Those of nobody, so that none of this machine are used."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=KINDS)
def store(request, moto):
    with serve_shards() as server:
        found = Store(request.param, server, moto)
        found.put("folder/a.tar", DATA)
        server.requests.clear()
        yield found


def fetch(folder, name="a.tar", *, num_bytes=NUM_BYTES) -> bytes:
    """Returns what comes, put to its places."""
    data = bytearray()
    for start, part in folder.iter_bytes(name, num_bytes=num_bytes):
        assert start <= len(data)
        data[start : start + len(part)] = part
    return bytes(data)


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_file_comes_as_it_is(store):
    folder = store.open()
    assert folder.location == store.location
    assert fetch(folder) == fetch(folder, num_bytes=None) == DATA
    assert read_remote(folder, "a.tar", max_bytes=len(DATA)) == DATA
    assert store.waits.seconds == []


def test_file_of_no_bytes_comes(store):
    store.put("folder/empty.tar", b"")
    assert fetch(store.open(), "empty.tar", num_bytes=0) == b""
    assert read_remote(store.open(), "empty.tar", max_bytes=0) == b""


def test_file_beside_the_folder_is_found_and_none_outside(store):
    store.put("other folder/b.tar", DATA[:1000])
    assert fetch(store.open(), "../other folder/b.tar", num_bytes=1000) == DATA[:1000]
    with pytest.raises(ShardError, match="leads out of"):
        fetch(store.open(), "../../../etc/b.tar", num_bytes=1000)


FAULTS = ["503", "500", "429", "drop", "cut:100000", "cut:0", "short:70000", "stall", "stall:100000"]
SLOW = [("s3", "stall:100000"), *(("gs", fault) for fault in ("500", "429", "cut:0", "stall:100000"))]


@pytest.mark.parametrize("fault", FAULTS)
def test_fetch_tries_again_after(store, fault):
    if (store.kind, fault) in SLOW:
        pytest.skip("the library waits for seconds that cannot be cut short")
    store.server.faults = [fault, fault] if store.kind == "http" else [fault]
    assert fetch(store.open()) == DATA
    if store.kind == "http":  # libraries try again by themselves, too
        assert store.waits.seconds == [1, 2]


@pytest.mark.parametrize("seed", range(2))
def test_fetch_gives_the_same_bytes_whatever_goes_wrong(store, seed, monkeypatch):
    monkeypatch.setattr(object_stores, "PIECE_BYTES", 1 << 16)
    generator = random.Random(seed)
    kinds = ["503", "500", "drop", "cut:{}", "short:{}", ""]
    folder = store.open(max_failures=50)
    for _ in range(6 if store.kind != "gs" else 2):
        faults = [generator.choice(kinds).format(generator.randrange(len(DATA))) for _ in range(generator.randrange(6))]
        store.server.faults = list(faults)
        assert fetch(folder) == DATA, faults


def test_fetch_goes_on_where_it_broke_off(store, monkeypatch):
    if store.kind == "gs":
        pytest.skip("what came of a stream is fetched again")
    monkeypatch.setattr(object_stores, "PIECE_BYTES", 100_000)
    store.server.faults = ["cut:100000"] if store.kind == "http" else ["", "cut:50000"]
    assert fetch(store.open()) == DATA
    first = "bytes=100000-" if store.kind == "http" else "bytes=100000-199999"
    assert store.server.ranges()[-3 if store.kind == "s3" else -1 :][0] == first
    assert store.server.ranges().count(None) + store.server.ranges().count("bytes=0-99999") == 1


def test_fetch_starts_anew_where_ranges_are_ignored(moto):
    with serve_shards() as server:
        web = Store("http", server, moto)
        web.put("folder/a.tar", DATA)
        server.ignore_range, server.faults = True, ["cut:200000", "cut:100000"]
        assert fetch(web.open()) == DATA
        assert server.ranges() == [None, "bytes=200000-", "bytes=100000-"]
        server.faults = ["cut:200000", "cut:100000"]
        assert read_remote(web.open(), "a.tar", max_bytes=len(DATA)) == DATA


def test_fetch_waits_as_long_as_a_web_server_asks(moto):
    with serve_shards() as server:
        web = Store("http", server, moto)
        web.put("folder/a.tar", DATA)
        server.retry_after, server.faults = "17", ["503", "429"]
        assert fetch(web.open()) == DATA
        assert web.waits.seconds == [17, 17]


def test_fetch_gives_up_after_some_failures(store):
    if store.kind == "gs":
        pytest.skip("its library waits for two seconds each time")
    store.server.faults = ["503"] * 100
    folder = store.open()
    with pytest.raises(DownloadError, match=r"a\.tar: .*503.*, and 7 tries in a row failed. Look whether the server"):
        fetch(folder)
    assert store.waits.seconds == [1, 2, 4, 8, 16, 32]
    assert len(store.server.paths()) == 7  # its library does not try again by itself


@pytest.mark.parametrize("status", ["400", "401", "403"])
def test_fetch_gives_up_at_once_where_access_is_refused(store, status):
    store.server.is_data = lambda _method, path: "a.tar" in path
    store.server.faults = [status] * 100
    with pytest.raises(
        DownloadError, match=r"folder/a\.tar: .*refuse.*; look whether the address is right, and whether"
    ):
        fetch(store.open())
    assert store.waits.seconds == []
    assert len(store.server.requests) == 1


def test_fetch_gives_up_at_once_where_nothing_is(store):
    with pytest.raises(NotFoundError, match=r"folder/b\.tar: nothing is there"):
        fetch(store.open(), "b.tar")
    assert store.waits.seconds == []


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_fetch_says_that_there_is_no_bucket(moto, kind):
    with serve_shards() as server:
        store = Store(kind, server, moto)
        folder = open_remote(store.uri.replace("//buck/", "//nobody/"), timeout=5, sleep=store.waits)
        with pytest.raises(NotFoundError, match="there is no bucket nobody; look whether the address is right"):
            fetch(folder)
        assert store.waits.seconds == []


def test_fetch_gives_up_soon_where_no_server_answers():
    waits = Waits()
    with pytest.raises(DownloadError, match="and 3 tries in a row failed"):
        fetch(open_remote("http://127.0.0.1:1/folder", sleep=waits))
    with pytest.raises(DownloadError, match="and 3 tries in a row failed"):
        fetch(open_remote("s3://buck/x?endpoint_override=127.0.0.1:1&scheme=http", sleep=waits))
    assert waits.seconds == [1, 2, 1, 2]


@pytest.mark.parametrize("num_bytes", [len(DATA) - 1, len(DATA) + 1])
def test_fetch_never_takes_another_size_for_the_right_one(store, num_bytes):
    came = []
    with pytest.raises(WrongSizeError):
        came.extend(start + len(part) for start, part in store.open().iter_bytes("a.tar", num_bytes=num_bytes))
    assert max(came, default=0) <= num_bytes
    assert store.kind == "http" or store.waits.seconds == []


def test_read_remote_takes_no_more_than_it_may(store):
    with pytest.raises(ShardError, match="has more than the 299,999 bytes that are allowed"):
        read_remote(store.open(), "a.tar", max_bytes=len(DATA) - 1)


def test_endpoint_of_s3_comes_from_the_environment(moto, monkeypatch):
    with serve_shards() as server:
        store = Store("s3", server, moto)
        store.put("folder/a.tar", DATA)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.address}")
        assert fetch(open_remote("s3://buck/folder/")) == DATA
        assert server.paths() == ["/buck/folder/a.tar"]


def test_s3_gives_up_a_connection_after_the_time_that_is_given(monkeypatch):
    given = {}
    monkeypatch.setattr(pyarrow.fs, "S3FileSystem", lambda **options: given.update(options))
    store_process.open_s3("buck", {"endpoint_override": "127.0.0.1:1", "timeout": 7.0})
    assert (given["request_timeout"], given["connect_timeout"]) == (7.0, 7.0)


@pytest.mark.parametrize("anonymous", [True, False])
def test_anonymous_requests_are_not_signed(moto, anonymous):
    signed = []
    with serve_shards() as server:
        store = Store("s3", server, moto)
        store.put("folder/a.tar", DATA)
        inner = server.answer

        def answer(method, path, headers):
            signed.append("Authorization" in headers)
            return inner(method, path, headers | {"Authorization": SIGNATURE})

        server.answer = answer
        assert fetch(open_remote(f"{store.uri}&anonymous={str(anonymous).lower()}")) == DATA
    assert set(signed) == {not anonymous}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/x", "ftp://host/x: data sets are read from local folders, s3://, gs://, https:// and http://"),
        ("s3://key:secret@buck/x", "s3://buck/x: it must be s3://bucket/folder; credentials come from the environment"),
        ("s3:///x", "s3:///x: it must be s3://bucket/folder"),
        ("s3://buck/x?zone=1", "s3://buck/x: unknown option 'zone'; allowed are endpoint_override, scheme, region"),
        ("s3://buck/x?anonymous=yes", "anonymous is 'yes'; it must be true or false"),
        ("gs://buck/x?scheme=ftp", "scheme is 'ftp'; it must be https or http"),
        ("http://me:secret@host/x", "http://host/x: an address cannot hold a user name or password"),
        ("http://", "the data set's address is 'http://'; it must be an address"),
    ],
)
def test_open_remote_refuses_what_is_no_folder(uri, message):
    with pytest.raises(BertDataError) as caught:
        open_remote(uri)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, ConfigError | DownloadError)


def test_query_of_a_web_address_goes_with_each_file_and_into_no_message(moto):
    with serve_shards() as server:
        targets = []
        inner = server.answer
        server.answer = lambda method, target, headers: targets.append(target) or inner(method, target, headers)
        folder = open_remote(f"http://{server.address}/x?token=secret", sleep=Waits())
        assert folder.location == location_of(f"http://{server.address}/x?token=secret") == f"http://{server.address}/x"
        with pytest.raises(NotFoundError) as caught:
            fetch(folder)
        assert targets == ["/x/a.tar?token=secret"]
        assert "secret" not in str(caught.value)


def test_is_uri_tells_addresses_from_paths(tmp_path):
    assert all(is_uri(uri) for uri in ("s3://b", "https://h/x", "foo://x"))
    assert not any(is_uri(path) for path in ("shards/", "/a/b", "c:/x", "a b://", tmp_path))


def test_store_can_be_read_after_a_fork_while_other_threads_read(store, tmp_path):
    store.server.faults = ["stall:1000"]
    thread = threading.Thread(target=lambda: fetch(store.open(timeout=10.0)))
    thread.start()
    while not store.server.paths() and "alt=media" not in str(store.server.requests):
        time.sleep(0.01)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if fetch(store.open(timeout=5)) == DATA else 1)
        finally:
            os._exit(2)
    timer = threading.Timer(20, lambda: os.kill(child, signal.SIGKILL))
    timer.start()
    status = os.waitpid(child, 0)[1]
    timer.cancel()
    store.server.released.set()
    thread.join()
    assert status == 0


def test_process_that_reads_ends_with_the_one_it_reads_for(store):
    if store.kind == "http":
        pytest.skip("it needs none")
    store.server.is_data = lambda _method, path: "a.tar" in path
    store.server.faults = ["stall"]
    code = f"from bertdata.remote import open_remote; list(open_remote({store.uri!r}, timeout=300).iter_bytes('a.tar'))"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        while not store.server.requests:
            time.sleep(0.01)
        (reader,) = children_of(process.pid)
        process.kill()
    end = time.monotonic() + 5
    while is_running(reader):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_other_threads_go_on_while_a_store_stalls(store):
    store.server.faults = ["stall"]
    longest, last, is_done = 0.0, time.monotonic(), threading.Event()

    def run():
        fetch(store.open(timeout=1.0))
        is_done.set()

    threading.Thread(target=run).start()
    while not is_done.wait(0.01):
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert longest < 0.5


def test_data_set_is_read_from_each_kind_of_store(store, tmp_path, monkeypatch):
    monkeypatch.setattr(object_stores, "PIECE_BYTES", 5000)
    here = make_data_set(tmp_path / "here", train_blocks=((20, 10),) * 4)
    for path in here.folder.iterdir():
        store.put(f"folder/{path.name}", path.read_bytes())
    store.server.faults = ["cut:4000", "503", "", "short:100"] if store.kind != "gs" else []
    location, manifest, cache = fetch_data_set(store.uri, CacheOptions(folder=tmp_path / "cache"), sleep=store.waits)
    assert (location, manifest) == (store.location, here.manifest)
    for shard in manifest.shards:
        with cache.open(shard) as path:
            assert path.read_bytes() == (here.folder / shard.name).read_bytes()
    again = open_data_set(store.uri, cache=CacheOptions(folder=tmp_path / "cache"))
    assert again.load_vocabulary().roles == here.load_vocabulary().roles


def test_data_set_that_is_not_there_is_missed_as_clearly_as_a_folder(store, tmp_path):
    with pytest.raises(ShardError, match=f"{store.location} has no manifest.json, so it is not a finished data set"):
        open_data_set(store.uri, cache=CacheOptions(folder=tmp_path))
