"""Builds whose output lies in an object store: the bytes of those on this machine, whatever goes wrong on the way."""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import urllib.parse
from collections import Counter

import pytest
from click.testing import CliRunner

import bertdata
from bertdata import build as stages
from bertdata import lease, store_folder
from bertdata.build import build_serially
from bertdata.cli import build as build_command
from bertdata.cli import main
from bertdata.errors import BertDataError, OutputError, ShardError
from bertdata.launch import open_build
from bertdata.lease import LeaseTimes
from bertdata.locating import iter_document_keys
from bertdata.object_stores import ObjectFolder
from bertdata.options import make_build_options
from bertdata.uploads import local_folder_of
from bertdata.uris import location_of
from tests.bertdata.test_lease import wait_for
from tests.bertdata.test_store_folder import _own_place, bucket, left_over, moto, proxy  # noqa: F401 - fixtures
from tests.corpus import article, iter_texts

TIMES = LeaseTimes(renew_seconds=0.2, expire_seconds=2.0, settle_seconds=0.01)


@pytest.fixture(autouse=True)
def _short_leases(monkeypatch):
    monkeypatch.setattr(lease, "TIMES", TIMES)


def build(place, *inputs, options, **launch):
    with open_build([str(path) for path in inputs], out=place, options=options, **launch) as work:
        if work is not None:
            build_serially(work)
        return work


def digests(bucket):  # noqa: F811
    """SHA-256 of every object of the last folder but the manifest."""
    names = [name for name in bucket.objects() if name != "manifest.json"]
    return {name: hashlib.sha256(bucket.body(name)).hexdigest() for name in names}


@pytest.fixture(scope="module")
def here(small_data_set):
    """What a build on this machine writes."""
    paths = [path for path in small_data_set.iterdir() if path.name != "manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_build_from_a_store_to_a_store_has_the_bytes_of_one_here(
    bucket,  # noqa: F811
    here,
    tmp_path,
    jsonl_file,
    small_options,
    small_data_set,
):
    corpus = bucket.uri()
    bucket.put(jsonl_file.name, jsonl_file.read_bytes())
    place = bucket.uri()
    assert build(place, corpus, options=small_options) is not None
    assert digests(bucket) == here
    manifests = [
        json.loads(data) for data in (bucket.body("manifest.json"), (small_data_set / "manifest.json").read_bytes())
    ]
    assert manifests[0].pop("build") != manifests[1].pop("build")  # the fingerprint, which knows where the input lies
    assert manifests[0] == manifests[1]
    assert left_over(tmp_path) == []
    assert build(place, corpus, options=small_options) is None


@pytest.mark.slow
def test_launches_do_in_a_store_what_they_do_here(bucket, tmp_path, jsonl_file, small_options, caplog):  # noqa: F811
    """The same launches one after the other, here and there, leave the same files with the same bytes."""
    place, folder = bucket.uri(), tmp_path / "here"
    other = dataclasses.replace(small_options, seed=1)

    def both(options, **launch):
        """Builds at both places; returns whether there was anything to do, and the objects that are there then."""
        results = [build(where, jsonl_file, options=options, **launch) for where in (place, folder)]
        was_done = [result is None for result in results]
        assert was_done[0] == was_done[1]
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        objects = set(bucket.objects())
        assert {name for name in files ^ objects if not name.endswith("/lock")} == set()
        for path in folder.iterdir():
            assert not path.is_file() or bucket.body(path.name) == path.read_bytes()
        return was_done[0], objects

    was_done, objects = both(small_options, keep_work=True)
    assert not was_done
    assert ".work/plan.json" in objects
    assert both(small_options, keep_work=True) == (True, objects)  # it is finished

    _, keys = next(iter_document_keys(bertdata.open_data_set(folder)))
    with caplog.at_level(logging.INFO):
        was_done, objects = both(small_options.excluding([f"{keys[0, 0]:016x}"]), keep_work=True)
    assert caplog.text.count("builds 1 of 4 shards again") == 2
    assert (was_done, ".work/plan.json" in objects) == (False, True)

    assert bertdata.open_data_set(folder).manifest.counts["excluded_documents"] == 1
    before = {name: bucket.body(name) for name in sorted(bucket.objects())}
    for where in (place, folder):
        with pytest.raises(OutputError, match=r"holds another build .*--overwrite"):
            build(where, jsonl_file, options=other)
    assert {name: bucket.body(name) for name in sorted(bucket.objects())} == before

    bucket.put("mine.txt", b"kept")
    (folder / "mine.txt").write_bytes(b"kept")
    was_done, objects = both(other, overwrite=True)
    assert objects == {name for name in before if not name.startswith(".work/")} | {"mine.txt"}
    assert bucket.body("train-00000-of-00003.tar") != before["train-00000-of-00003.tar"]
    assert left_over(tmp_path) == []


@pytest.fixture
def hasty(monkeypatch):
    """Clients that wait no time between tries."""
    monkeypatch.setattr(store_folder, "ObjectFolder", functools.partial(ObjectFolder, sleep=lambda _seconds: None))


@pytest.mark.slow
def test_build_through_a_server_that_fails_has_the_same_bytes(bucket, proxy, hasty, here, jsonl_file, small_options):  # noqa: F811
    """Of all requests one in eight fails, another way each time; the heartbeat's too."""
    draws, faults = random.Random(5), {"GET": ["503", "drop", "cut:50", "short:50"], "PUT": ["503", "lost"]}

    def fault(method, _target):
        return draws.choice(faults.get(method, ["503"])) if draws.random() < 1 / 8 else ""

    proxy.fault = fault
    build(bucket.uri(proxy.address), jsonl_file, options=small_options)
    assert digests(bucket) == here


@pytest.mark.slow
def test_build_that_loses_its_store_goes_on_where_it_stopped(bucket, proxy, hasty, here, jsonl_file, small_options):  # noqa: F811
    place = bucket.uri(proxy.address)
    proxy.fault = lambda _method, target: "503" if target.endswith("train-00001-of-00003.tar") else ""
    with pytest.raises(BertDataError, match=r"s3://folders/out .*/train-00001-of-00003\.tar.*tries in a row failed"):
        build(place, jsonl_file, options=small_options)
    assert "manifest.json" not in bucket.objects()
    with pytest.raises(ShardError, match=r"no manifest\.json, so it is not a finished data set"):
        bertdata.open_data_set(place)
    proxy.fault = lambda _method, _target: ""
    proxy.requests.clear()
    build(place, jsonl_file, options=small_options)
    assert digests(bucket) == here
    written = [target.rpartition("/")[2] for method, target in proxy.requests if method == "PUT"]
    assert [name for name in written if name.endswith((".run", "train-00000-of-00003.tar"))] == []
    assert [name for name in written if name.endswith(".tar")] == [
        "train-00001-of-00003.tar",
        "train-00002-of-00003.tar",
        "eval-00000-of-00001.tar",
    ]


def stopped_before_the_end(place, jsonl_file, options):
    """Builds all but what is beside the shards."""
    with pytest.raises(KeyboardInterrupt), open_build([str(jsonl_file)], out=place, options=options) as work:
        stages.train_tokenizer(work)
        stages.tokenize_portion(work, 0)
        for task in stages.plan_shards(work):
            stages.build_shard(work, task)
        raise KeyboardInterrupt


def check_cut(bucket, here, place, name, num_bytes, jsonl_file, options):  # noqa: F811
    """Cuts an object of an unfinished build, which then must give the right bytes or a clear error."""
    bucket.cut(name, num_bytes)
    try:
        build(place, jsonl_file, options=options)
    except BertDataError as error:
        assert "manifest.json" not in bucket.objects()
        assert "--overwrite" in str(error)  # noqa: PT017 - it need not come
        build(place, jsonl_file, options=options, overwrite=True)
    assert digests(bucket) == here


@pytest.mark.slow
@pytest.mark.parametrize("num_cuts", [4])
def test_object_that_is_cut_is_never_taken_for_whole(bucket, here, jsonl_file, small_options, num_cuts):  # noqa: F811
    draws = random.Random(num_cuts)
    for _ in range(num_cuts):
        place = bucket.uri()
        stopped_before_the_end(place, jsonl_file, small_options)
        objects = {name: size for name, size in bucket.objects().items() if size and not name.endswith("lock")}
        name = draws.choice(sorted(objects))
        check_cut(bucket, here, place, name, draws.randrange(objects[name]), jsonl_file, small_options)


COMMAND = """
import sys
from bertdata import lease
from bertdata.cli import main

lease.TIMES = lease.LeaseTimes(renew_seconds=0.2, expire_seconds=8.0, settle_seconds=0.1)
main(["build", *sys.argv[1:]])
"""
OPTIONS = ["--max-seq-length", "64", "--num-shards", "4", "--num-workers", "2", "--vocab-size", "300"]


def command(wiki, out):
    return [sys.executable, "-c", COMMAND, "--input", str(wiki), "--out", str(out), *OPTIONS]


def kill_at(wiki, place, stage):
    """Starts a build and kills all its processes once a worker is at a stage."""
    running = local_folder_of(f"{location_of(place)}/.work") / "running"
    process = subprocess.Popen(command(wiki, place), stderr=subprocess.PIPE, start_new_session=True)

    def workers():
        found = running.glob("*") if running.exists() else []
        return [int(path.name) for path in found if path.name.isdigit() and path.read_text().startswith(stage)]

    wait_for(lambda: workers() or process.poll() is not None, seconds=90)
    if process.poll() is not None:
        pytest.fail(f"the build ended before {stage}: {process.communicate()[1].decode()}")
    groups = {process.pid, *(os.getpgid(worker) for worker in workers())}
    assert len(groups) == 2
    for group in groups:
        os.killpg(group, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_command_killed_in_each_half_completes_with_the_same_bytes(bucket, proxy, tmp_path):  # noqa: F811
    wiki = tmp_path / "wiki.xml"
    pages = "".join(article(f"Title {number}", text) for number, text in enumerate(iter_texts(700)))
    wiki.write_text(f'<mediawiki version="0.11" xml:lang="en">\n{pages}</mediawiki>\n')
    place = bucket.uri(proxy.address)
    kill_at(wiki, place, "tokenize_portion")
    kill_at(wiki, place, "build_shard")
    assert "manifest.json" not in bucket.objects()
    built = {name for name in bucket.objects() if name.endswith(".tar.json")}
    proxy.requests.clear()
    last = subprocess.run(command(wiki, place), capture_output=True, text=True, check=True)
    assert "held by another build: process" in last.stderr
    assert "MiB in s3://folders/out" in last.stdout
    assert re.search(r"peak memory +\d+ MiB of a worker", last.stdout)  # which they leave word of on this machine
    written = Counter(
        urllib.parse.unquote(target).partition(f"/out {bucket.number}/")[2].partition("?")[0]
        for method, target in proxy.requests
        if method == "PUT"
    )
    # The workers share the shards that are left: none is built by both.
    shards = [name for name in bucket.objects() if name.endswith(".tar")]
    assert len(shards) == 5
    assert {name: written[f".work/shards/64/{name}.json"] for name in shards} == {
        name: f".work/shards/64/{name}.json" not in built for name in shards
    }
    assert not [name for name in written if name.startswith((".work/words", ".work/runs", ".work/splits"))]
    assert left_over(tmp_path) == []
    out = tmp_path / "here"
    with open_build([str(wiki)], out=out, options=bertdata_options(wiki)) as work:
        build_serially(work)
    assert digests(bucket) == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.iterdir()
        if path.name != "manifest.json"
    }


def bertdata_options(wiki):
    """The options of the command."""
    return make_build_options(build_command.make_context("build", command(wiki, "x")[3:]).params)


@pytest.mark.parametrize("name", ["verify", "report"])
def test_command_for_data_sets_here_refuses_one_elsewhere(name):
    result = CliRunner().invoke(main, [name, "s3://buck/out?region=x"])
    assert result.exit_code == 2
    assert "s3://buck/out lies elsewhere; copy the data set here first" in result.output
