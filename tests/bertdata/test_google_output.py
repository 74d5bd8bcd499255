"""Output in Google's store: what an upload leaves that is cut, fails or is killed, and a build that goes on after it."""

import functools
import hashlib
import pickle
import subprocess
import sys
from urllib.parse import parse_qs

import pytest

from bertdata import lease, store_folder
from bertdata.build import build_serially
from bertdata.errors import OutputError
from bertdata.launch import open_build
from bertdata.object_stores import ObjectFolder
from bertdata.store_folder import StoreFolder
from tests.bertdata.shard_server import serve_shards
from tests.bertdata.test_lease import wait_for
from tests.bertdata.test_remote import children_of, is_running
from tests.bertdata.test_store_build import TIMES
from tests.bertdata.test_store_folder import _own_place, check_contract, left_over  # noqa: F401 - a fixture

DATA = bytes(range(256)) * 4000


def is_upload(method, target):
    return method == "PUT"


def is_part_of_second_shard(server, method, target):
    number = parse_qs(target.partition("?")[2]).get("upload_id", ["0"])[0]
    path, _ = server.google.uploads.get(number, ("", b""))
    return method == "PUT" and path.endswith("train-00001-of-00003.tar")


@pytest.fixture
def google(monkeypatch):
    """A server that speaks as Google's store does, and clients that wait no time between tries."""
    monkeypatch.setattr(store_folder, "ObjectFolder", functools.partial(ObjectFolder, sleep=lambda _seconds: None))
    monkeypatch.setattr(lease, "TIMES", TIMES)
    with serve_shards() as server:
        server.answer = server.answer_gcs
        server.is_data = is_upload
        server.files["/buck/other"] = b""
        yield server


def place_of(server):
    return f"gs://buck/out?endpoint_override={server.address}&scheme=http&anonymous=true"


def objects(server):
    """The objects of the output folder by name."""
    return {path.removeprefix("/buck/out/"): data for path, data in server.files.items() if path != "/buck/other"}


def digests(files):
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "manifest.json"}


@pytest.mark.slow
def test_upload_that_is_cut_or_fails_leaves_no_object(google, tmp_path):
    folder = StoreFolder(place_of(google), max_failures=1)
    check_contract(
        folder, [("write", "in/a", b"1"), ("create", "b", b"2"), ("clear", ["b"], None), ("remove", ["b"], 0)]
    )
    for fault in ("503", "drop", "lost", "cut:100000"):
        google.faults[:] = [fault]
        with folder.create("a") as file:
            file.write(DATA)
        assert objects(google) == {"a": DATA}
        assert not google.faults
        folder.remove(["a"])
    google.is_data = lambda method, _target: method == "PUT" and bool(google.faults)
    google.faults[:] = ["cut:100000"] * 1000
    with pytest.raises(OutputError, match=r"gs://buck/out/a: .*tries in a row failed"), folder.create("a") as file:
        file.write(DATA)
    assert objects(google) == {}
    assert left_over(tmp_path) == []


BUILDER = """
import pickle, sys
from bertdata import lease
from bertdata.build import build_serially
from bertdata.launch import open_build

lease.TIMES, place, path, options = pickle.load(sys.stdin.buffer)
with open_build([path], out=place, options=options) as work:
    build_serially(work)
"""


@pytest.mark.slow
def test_build_killed_at_an_upload_goes_on_to_the_bytes_of_one_here(
    google, tmp_path, jsonl_file, small_options, small_data_set
):
    place = place_of(google)
    google.is_data = functools.partial(is_part_of_second_shard, google)
    google.faults[:] = ["stall"]
    with subprocess.Popen([sys.executable, "-c", BUILDER], stdin=subprocess.PIPE) as process:
        process.stdin.write(pickle.dumps((TIMES, place, str(jsonl_file), small_options)))
        process.stdin.close()
        wait_for(lambda: not google.faults or process.poll() is not None, seconds=60)
        helpers = children_of(process.pid)
        process.kill()
    assert helpers
    google.released.set()
    wait_for(lambda: not any(is_running(helper) for helper in helpers))
    found = objects(google)
    assert "train-00000-of-00003.tar" in found
    assert "train-00001-of-00003.tar" not in found
    google.is_data = is_upload
    google.faults[:] = ["", "503", "", "lost", "cut:50", "", "drop"]
    google.requests.clear()
    with open_build([str(jsonl_file)], out=place, options=small_options) as work:
        build_serially(work)
    here = {path.name: path.read_bytes() for path in small_data_set.iterdir()}
    assert digests(objects(google)) == digests(here)
    assert objects(google)["manifest.json"] == here["manifest.json"]
    begun = [number for number, (path, _) in google.google.uploads.items() if path.endswith("00000-of-00003.tar")]
    assert len(begun) == 1  # it was not built again
    assert left_over(tmp_path) == []
