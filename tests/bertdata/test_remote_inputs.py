"""Inputs in S3 and Google's store: the same documents as from this machine, whatever the server does, by few requests."""

from collections import Counter

import pyarrow.fs
import pytest

from bertdata import remote_inputs, store_pool
from bertdata.config import ReadOptions
from bertdata.readers import iter_documents
from bertdata.splits import plan_splits
from tests.bertdata.formats import FORMATS, write_format
from tests.bertdata.reading import read
from tests.bertdata.shard_server import passed_on_to, serve_shards

TEXTS = [
    f"Here is the text of document {number}. It has a second sentence. And a third one, too." for number in range(40)
]


@pytest.fixture(scope="module")
def moto():
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


class Bucket:
    """A bucket in a server that may misbehave, and all that its objects hold."""

    def __init__(self, server, moto) -> None:
        self.server = server
        server.is_data = lambda method, path: method == "GET" and "list-type" not in path
        server.answer = passed_on_to(*moto, sent=server.sent)
        self.query = f"?endpoint_override={server.address}&scheme=http&region=us-east-1"
        self._files = pyarrow.fs.S3FileSystem(
            endpoint_override="{}:{}".format(*moto), scheme="http", region="us-east-1", allow_bucket_creation=True
        )
        self._files.create_dir("buck")
        self._files.delete_dir_contents("buck", missing_dir_ok=True)

    def put(self, name: str, data: bytes) -> str:
        with self._files.open_output_stream(f"buck/{name}", compression=None) as file:
            file.write(data)
        return self.uri(name)

    def delete(self, name: str) -> None:
        self._files.delete_file(f"buck/{name}")

    def uri(self, name: str) -> str:
        return f"s3://buck/{name}{self.query}"

    def fetched_bytes(self) -> int:
        ranges = [asked.removeprefix("bytes=").split("-") for _, _, asked in self.server.requests if asked]
        return sum(int(last) + 1 - int(first) for first, last in ranges)


@pytest.fixture
def bucket(moto, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store_pool.Retries, "wait", no_waits(store_pool.Retries.wait))
    with serve_shards() as server:
        yield Bucket(server, moto)
        remote_inputs.close_buckets()


def no_waits(wait):
    def without(self, *args, **values):
        self.sleep = lambda _seconds: None
        return wait(self, *args, **values)

    return without


def read_uri(uri: str, *, split_bytes: int, **options):
    """Reads an object split by split."""
    chosen = ReadOptions(**options)
    counts, rejects = Counter(), []
    splits = plan_splits([uri], options=chosen, split_bytes=split_bytes)
    documents = [
        document
        for split in splits
        for document in iter_documents(split, options=chosen, counts=counts, rejects=rejects)
    ]
    return documents, counts, splits


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_from_a_store(name, tmp_path, bucket):
    path = write_format(tmp_path, name, TEXTS)
    uri = bucket.put(f"in/{name}", path.read_bytes())
    whole = [document.text for document in read(path)[0]]
    for split_bytes in (1 << 20, 1000):
        bucket.server.requests.clear()
        bucket.server.faults[:] = ["503", "", "cut:100"]
        documents, counts, splits = read_uri(uri, split_bytes=split_bytes)
        assert [document.text for document in documents] == whole
        assert counts == read(path, split_bytes=split_bytes)[1]
        assert documents[0].id.startswith(f"{name}:")
        assert {split.path for split in splits} == {uri}
    assert not bucket.server.faults
