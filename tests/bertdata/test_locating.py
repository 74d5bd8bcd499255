import os
import shutil
from collections import defaultdict

import numpy as np
import pytest

from bertdata.blocks import iter_samples
from bertdata.data_set import open_data_set
from bertdata.errors import ShardError
from bertdata.locating import find_document, iter_document_keys
from bertdata.shard_reading import iter_blocks, read_field
from bertdata.shards import FIELDS


@pytest.fixture
def data_set(small_data_set):
    return open_data_set(small_data_set)


@pytest.fixture
def damaged_copy(small_data_set, tmp_path):
    """A copy of the data set whose shards may be changed."""
    return shutil.copytree(small_data_set, tmp_path / "copy")


def test_document_keys_are_those_of_every_block(data_set):
    found = list(iter_document_keys(data_set))
    assert [row for row, _ in found] == list(range(len(data_set.index)))
    for row, keys in found:
        np.testing.assert_array_equal(keys, data_set.read(data_set.index, row).document_keys)


def test_document_keys_are_read_without_the_rest(data_set, monkeypatch):
    """Half of the data set is tokens and masks, which must not be touched."""
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: read.append(args[1]) or pread(*args))
    num_keys = sum(len(keys) for _, keys in iter_document_keys(data_set))
    assert sum(read) <= len(data_set.index) * (5 * 512 + 128) + 16 * num_keys


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_can_be_read_alone(data_set, field):
    index = data_set.index
    for row in range(len(index)):
        path = data_set.folder / data_set.manifest.shards[index.shard[row]].name
        found = read_field(path, offset=int(index.offset[row]), num_bytes=int(index.num_bytes[row]), field=field)
        np.testing.assert_array_equal(found, getattr(data_set.read(index, row), field))


def test_documents_are_found_as_by_reading_all_samples(data_set):
    wanted = defaultdict(list)
    for shard in data_set.manifest.shards:
        for number, block in enumerate(iter_blocks(data_set.folder / shard.name)):
            for place, sample in enumerate(iter_samples(block)):
                key_a, key_b = sample.document_keys
                wanted[key_a].append((shard.name, number, place, "A"))
                if key_b != key_a:
                    wanted[key_b].append((shard.name, number, place, "B"))
    assert len(wanted) > 250
    for key in [*list(wanted)[::25], max(wanted)]:
        found = [(place.shard, place.block, place.sample, place.role) for place in find_document(data_set, key)]
        assert found == wanted[key]


def test_place_names_the_block_in_the_index(data_set):
    key = int(data_set.read(data_set.index, len(data_set.index) - 1).document_keys[-1, 0])
    places = find_document(data_set, key)
    assert places
    for place in places:
        assert (
            data_set.read(data_set.index, place.row).document_keys[place.sample, 0 if place.role == "A" else 1] == key
        )


def test_unknown_document_is_nowhere(data_set):
    assert find_document(data_set, 12345) == []


def test_missing_shard_is_an_error(damaged_copy):
    data_set = open_data_set(damaged_copy)
    (damaged_copy / "train-00001-of-00003.tar").unlink()
    with pytest.raises(ShardError, match=r"train-00001-of-00003\.tar"):
        find_document(data_set, 1)


def test_truncated_or_overwritten_shard_is_an_error(damaged_copy):
    data_set = open_data_set(damaged_copy)
    path = damaged_copy / "train-00000-of-00003.tar"
    data = path.read_bytes()
    keys_header = data.index(b"train-00000-00000.document_keys.npy")
    labels_header = data.index(b"train-00000-00000.next_sentence_label.npy")
    negative = b"\xff" * 12
    for damaged, message in [
        (data[: keys_header + 100], "truncated"),
        (data[:keys_header] + bytes(512) + data[keys_header + 512 :], "no tar header"),
        (data[:keys_header] + data[labels_header : labels_header + 512] + data[keys_header + 512 :], "belongs"),
        (data.replace(b"'<u8'", b"'<u4'", 1), "do not hold an array"),
        (_with_size(data, labels_header, negative), "eleven octal digits"),
        (_with_size(data, labels_header, b"77777777777\0"), "reaches past byte"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=message):
            find_document(data_set, 1)


def _with_size(data: bytes, header: int, size: bytes) -> bytes:
    """Replaces the size in a tar header, and mends its checksum."""
    fields = data[header : header + 124] + size + data[header + 136 : header + 512]
    blank = fields[:148] + b" " * 8 + fields[156:]
    fields = fields[:148] + b"%06o\0 " % sum(blank) + fields[156:]
    return data[:header] + fields + data[header + 512 :]


def test_keys_of_another_block_are_an_error(damaged_copy):
    """The headers are sound, but the index belongs to other shards."""
    data_set = open_data_set(damaged_copy)
    index = data_set.index
    last = np.flatnonzero(index.shard == 0)[-1]
    assert index.num_samples[last] != index.num_samples[0]
    for name in ("offset", "num_bytes"):
        values = getattr(index, name).copy()
        values[0] = values[last]
        object.__setattr__(index, name, values)
    with pytest.raises(ShardError, match="has dtype uint64 and shape"):
        find_document(data_set, 1)
