"""Builds whose output lies in an object store: the bytes of those on this machine, whatever goes wrong on the way."""

import hashlib

import pytest

from bertdata import lease
from bertdata.build import build_serially
from bertdata.launch import open_build
from bertdata.lease import LeaseTimes
from tests.bertdata.test_store_folder import _own_place, bucket, left_over, moto, proxy  # noqa: F401 - fixtures

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


def test_build_in_a_store_has_the_bytes_of_one_here(bucket, here, tmp_path, jsonl_file, small_options, small_data_set):  # noqa: F811
    place = bucket.uri()
    assert build(place, jsonl_file, options=small_options) is not None
    assert digests(bucket) == here
    assert bucket.body("manifest.json") == (small_data_set / "manifest.json").read_bytes()
    assert left_over(tmp_path) == []
    assert build(place, jsonl_file, options=small_options) is None
