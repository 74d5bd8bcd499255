"""Inputs in S3 and Google's store: the same documents as from this machine, whatever the server does, by few requests."""

import json
from collections import Counter

import pyarrow.fs
import pytest

from bertdata import remote_inputs, store_pool
from bertdata.build import build_serially
from bertdata.config import ReadOptions
from bertdata.errors import ChangedInputError, ConfigError, InputError
from bertdata.inputs import file_name, find_inputs, input_facts, open_input
from bertdata.launch import open_build
from bertdata.portions import plan_portions
from bertdata.readers import iter_documents
from bertdata.rejects import iter_checked_documents
from bertdata.sampling import sample_places
from bertdata.splits import plan_splits
from tests.bertdata.formats import FORMATS, write_format
from tests.bertdata.reading import read
from tests.bertdata.shard_server import passed_on_to, serve_shards
from tests.bertdata.small_builds import build

TEXTS = [
    f"Here is the text of document {number}. It has a second sentence. And a third one, too." for number in range(40)
]


@pytest.fixture(scope="module")
def moto():
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


FAST = ("multistream.xml.bz2",)


class Bucket:
    """A bucket in a server that may misbehave, and all that its objects hold."""

    def __init__(self, server, moto) -> None:
        self.server = server
        self._passed_on = passed_on_to(*moto)
        self.query = f"?endpoint_override={server.address}&scheme=http&region=us-east-1"
        self._files = pyarrow.fs.S3FileSystem(
            endpoint_override="{}:{}".format(*moto), scheme="http", region="us-east-1", allow_bucket_creation=True
        )
        self._files.create_dir("buck")

    def reset(self) -> None:
        self._files.delete_dir_contents("buck", missing_dir_ok=True)
        self.server.is_data = lambda method, path: method == "GET" and "list-type" not in path
        self.server.answer = self._passed_on
        self.server.faults.clear()
        self.server.requests.clear()

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


@pytest.fixture(scope="module")
def served(moto):
    """A bucket for all tests, so that they need not start its process each."""
    with pytest.MonkeyPatch.context() as patch, serve_shards() as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        patch.setattr(store_pool.Retries, "wait", no_waits(store_pool.Retries.wait))
        yield Bucket(server, moto)
        remote_inputs.close_buckets()


@pytest.fixture
def bucket(served):
    served.reset()
    return served


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


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FORMATS]
)
def test_every_format_gives_the_same_from_a_store(name, tmp_path, bucket):
    path = write_format(tmp_path, name, TEXTS)
    uri = bucket.put(f"in/{name}", path.read_bytes())
    whole = [document.text for document in read(path)[0]]
    for split_bytes in (1 << 20, 1000):
        bucket.server.faults[:] = ["503", "", "cut:100"]
        documents, counts, splits = read_uri(uri, split_bytes=split_bytes)
        assert [document.text for document in documents] == whole
        assert counts == read(path, split_bytes=split_bytes)[1]
        assert documents[0].id.startswith(f"{name}:")
        assert {split.path for split in splits} == {uri}
        assert not bucket.server.faults


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("dump.xml", marks=pytest.mark.slow),
        pytest.param("multistream.xml.bz2", marks=pytest.mark.slow),
        "single.xml.bz2",
        "rows.parquet",
    ],
)
def test_a_dry_run_samples_the_same_places_in_a_store(name, tmp_path, bucket):
    path = write_format(tmp_path, name, TEXTS * 5)
    uri = bucket.put(f"in/{name}", path.read_bytes())
    sampled = []
    for place in (str(path), uri):
        portions = plan_portions(find_inputs([place]), options=ReadOptions())
        folder = tmp_path / str(len(sampled))
        folder.mkdir()
        places = sample_places(portions, options=ReadOptions(), folder=folder, text_bytes=3000)
        sampled.append([(found.stored_bytes, found.weight, read_portion(found.portion)) for found in places])
    assert sampled[0] == sampled[1]
    num_sampled = sum(len(texts) for _, _, texts in sampled[0])
    assert 0 < num_sampled <= 5 * len(TEXTS)
    assert num_sampled < 5 * len(TEXTS) or name.startswith("single")  # it is one block of bzip2


def read_portion(portion):
    """Returns the texts of a portion."""
    counts, rejects = Counter(), []
    documents = iter_checked_documents(portion, options=ReadOptions(), counts=counts, rejects=rejects, keep_in=None)
    return [document.text for document in documents]


@pytest.mark.slow
@pytest.mark.parametrize("document_per", ["line", "file"])
def test_text_is_cut_as_on_this_machine(document_per, tmp_path, bucket):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    uri = bucket.put("a.txt", (tmp_path / "a.txt").read_bytes())
    documents, _, splits = read_uri(uri, split_bytes=500, document_per=document_per)
    assert len(splits) == (1 if document_per == "file" else 7)
    wanted = read(tmp_path / "a.txt", split_bytes=500, document_per=document_per)[0]
    assert [document.text for document in documents] == [document.text for document in wanted]


def records(num_bytes: int) -> bytes:
    line = json.dumps({"text": "A sentence of this record. " * 8}).encode() + b"\n"
    return line * (num_bytes // len(line))


def test_split_fetches_its_range_and_the_rest_of_a_record(bucket, monkeypatch):
    monkeypatch.setattr(remote_inputs, "BLOCK_BYTES", 1 << 18)
    data = records(3 << 20)
    uri = bucket.put("a.jsonl", data)
    (file,) = find_inputs([uri])
    assert [method for method, _, _ in bucket.server.requests] == ["HEAD"]
    splits = plan_splits([uri], options=ReadOptions(), split_bytes=1 << 20)
    assert len(splits) == 3
    for split in splits:
        bucket.server.requests.clear()
        assert list(iter_documents(split, options=ReadOptions(), counts=Counter(), rejects=[]))
        methods = Counter(method for method, _, _ in bucket.server.requests)
        # The line that was begun before, four blocks and the rest of a record; a small read may be repeated.
        assert methods["GET"] <= 7
        assert methods["HEAD"] <= 2
        assert bucket.fetched_bytes() <= split.stop - split.start + 4 * (1 << 16)
    assert file.num_bytes == len(data)


def test_starts_of_streams_are_found_with_one_request_each(bucket, tmp_path):
    path = write_format(tmp_path, "multistream.xml.bz2", TEXTS * 60)
    uri = bucket.put("dump.xml.bz2", path.read_bytes())
    bucket.server.requests.clear()
    splits = plan_splits([uri], options=ReadOptions(), split_bytes=10_000)
    assert [(split.start, split.stop) for split in splits] == [
        (split.start, split.stop) for split in plan_splits([str(path)], options=ReadOptions(), split_bytes=10_000)
    ]
    assert len(splits) > 5
    # The object, the head twice since it is compressed, and a part for each split; a small read may be repeated.
    assert len(bucket.server.requests) <= 1 + 4 + 1 + 1.3 * len(splits)


def test_many_small_objects_are_looked_into_together(bucket):
    for number in range(12):
        bucket.put(f"many/{number}.txt", b"This is a file.")
    bucket.server.requests.clear()
    files = find_inputs([bucket.uri("many")])
    methods = Counter(method for method, _, _ in bucket.server.requests)
    assert methods["GET"] == 1  # a list, after a look whether there is an object of this name, and the bucket
    assert methods["HEAD"] <= 2
    (portion,) = plan_portions(files, options=ReadOptions())
    assert len(portion) == 12


def names(found) -> list[str]:
    return [file_name(file.path) for file in found]


def test_find_inputs_lists_objects_folders_and_patterns(bucket, tmp_path):
    for name in ("in/a.txt", "in/b/c d.txt", "in/b/e%20.txt", "in/.hidden/f", "in/b/.g", "other/h.txt", "in/empty"):
        bucket.put(name, b"" if name.endswith("empty") else b"x")
    (tmp_path / "z.txt").write_text("x")
    assert names(find_inputs([bucket.uri("in")])) == ["a.txt", "c d.txt", "e%20.txt", "empty"]
    assert names(find_inputs([bucket.uri("in/b/c d.txt")])) == ["c d.txt"]
    assert names(find_inputs([bucket.uri("in/b/c%20d.txt"), bucket.uri("in/b")])) == ["c d.txt", "e%20.txt"]
    assert names(find_inputs([bucket.uri("*/[ah].txt")])) == ["a.txt", "h.txt"]
    assert names(find_inputs([bucket.uri("**/*.txt")])) == ["a.txt", "c d.txt", "e%20.txt", "h.txt"]
    assert names(find_inputs([bucket.uri("i*"), str(tmp_path)])) == ["z.txt", "a.txt", "c d.txt", "e%20.txt", "empty"]
    for file in find_inputs([bucket.uri("in")]):
        assert input_facts(file.path) == (file.num_bytes, file.version)
        with open_input(file.path) as opened:
            assert opened.read() == (b"x" if file.num_bytes else b"")


def test_find_inputs_skips_builds_in_a_store(bucket):
    for name in ("in/a", "in/out/x", "in/old/index.arrow", "in/old/manifest.json", "in/half/.work/build.json"):
        bucket.put(name, b"x")
    assert names(find_inputs([bucket.uri("in")], out=bucket.uri("in/out/"))) == ["a"]
    with pytest.raises(InputError, match="is the output folder; give another --out"):
        find_inputs([bucket.uri("in/out")], out=bucket.uri("in/out"))


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("s3://buck/none", InputError, "no such object"),
        ("s3://buck/none-*", InputError, "no such object"),
        ("s3://absent/a", InputError, "there is no bucket absent"),
        ("https://host/a.txt", ConfigError, "is read from local files, s3:// and gs://"),
        ("s3://user:secret@buck/a", ConfigError, "credentials come from the environment"),
    ],
)
def test_find_inputs_says_what_is_wrong_with_a_uri(bucket, uri, error, message):
    with pytest.raises(error, match=message) as caught:
        find_inputs([uri + (bucket.query if uri.startswith("s3") else "")])
    assert "secret" not in str(caught.value)


def test_reader_of_the_users_own_gets_no_uri(bucket):
    uri = bucket.put("a.poems", b"x")
    with pytest.raises(ConfigError, match="--format json:loads reads local files only; copy s3://buck/a.poems"):
        plan_splits([uri], options=ReadOptions(format="json:loads"))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("where", ["local", pytest.param("s3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("change", ["longer", "shorter", "missing"])
def test_input_that_changes_while_it_is_read_is_an_error(bucket, tmp_path, monkeypatch, where, change, skip):
    monkeypatch.setattr(remote_inputs, "BLOCK_BYTES", 1 << 16)
    data = records(1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    uri = bucket.put("a.jsonl", data) if where == "s3" else str(path)
    options = ReadOptions(skip_bad_splits=skip, max_rejects=1)
    splits = plan_splits([uri], options=options)
    documents = iter_checked_documents(splits, options=options, counts=Counter(), rejects=[], keep_in=None)
    next(documents)
    changed = data * 2 if change == "longer" else data[: len(data) // 2]
    if change == "missing":
        bucket.delete("a.jsonl") if where == "s3" else path.unlink()
    elif where == "s3":
        bucket.put("a.jsonl", changed)
    else:
        path.write_bytes(changed)
    message = "is not there any more" if change == "missing" else rf"{len(data):,} bytes then, .* now; run the same"
    with pytest.raises(ChangedInputError, match=message):
        list(documents)


def test_inputs_in_googles_store_are_read_by_ranges(bucket, monkeypatch, tmp_path):
    data = records(1 << 18)
    server = bucket.server
    server.answer = server.answer_gcs
    server.is_data = lambda _method, path: "alt=media" in path
    server.files |= {"/buck/in/a b.jsonl": data, "/buck/in/.b": data, "/buck/c": data}
    uri = f"gs://buck/in?endpoint_override={server.address}&scheme=http&anonymous=true"
    (file,) = find_inputs([uri])
    assert (file_name(file.path), file.num_bytes) == ("a b.jsonl", len(data))
    assert input_facts(file.path) == (file.num_bytes, file.version)
    server.faults[:] = ["", "", "cut:100"]
    documents, _, splits = read_uri(uri, split_bytes=1 << 16)
    assert (len(documents), len(splits)) == (data.count(b"\n"), 4)
    server.files["/buck/in/a b.jsonl"] = data[:-1000]
    with pytest.raises(ChangedInputError, match=rf"{len(data):,} bytes then, {len(data) - 1000:,} now"):
        list(iter_documents(splits[0], options=ReadOptions(), counts=Counter(), rejects=[]))


@pytest.mark.slow
def test_build_from_a_store_gives_the_same_shards(bucket, tmp_path, jsonl_file, small_options):
    uri = bucket.put("in/a.jsonl", jsonl_file.read_bytes())
    wanted = build(tmp_path / "local", jsonl_file, options=small_options)
    with open_build([uri], out=tmp_path / "out", options=small_options, split_bytes=30_000) as work:
        build_serially(work)
    for path in wanted.glob("*.tar"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["inputs"] == [{"name": "a.jsonl", "bytes": jsonl_file.stat().st_size}]
