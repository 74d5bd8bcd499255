import hashlib
import io
import tarfile

import datasets
import numpy as np
import pytest
import webdataset

import bertdata
from bertdata.blocks import iter_samples
from bertdata.errors import ShardError
from bertdata.shard_reading import iter_blocks, read_block
from bertdata.shards import FIELDS, Block, block_name, encode_block, open_shard, position_dtype, shard_name, token_dtype
from bertdata.storage import LocalFolder

GOLDEN_SHARD = "0a47047707febefad7993dc7fe2090a0b886e35dfaac747cd0739a894905b4c6"

# Two samples with two mask sets each, the example of the module's docstring.
BLOCK = Block(
    tokens=np.array([2, 10, 11, 3, 12, 3, 2, 13, 3, 14, 15, 3], dtype="<u2"),
    token_offsets=np.array([0, 6, 12], dtype="<u4"),
    segment_b=np.array([4, 3], dtype="u1"),
    next_sentence_label=np.array([0, 1], dtype="u1"),
    document_keys=np.array([[1, 1], [1, 2**64 - 1]], dtype="<u8"),
    num_predictions=np.array([[1, 1], [1, 1]], dtype="u1"),
    mask_positions=np.array([2, 1, 4, 3], dtype="u1"),
    mask_tokens=np.array([4, 10, 4, 4], dtype="<u2"),
)


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / shard_name("train", 0, 1)
    with open_shard(LocalFolder(path.parent), path.name) as writer:
        writer.add(BLOCK, name=block_name("train", 0, 0))
        writer.add(BLOCK, name=block_name("train", 0, 1))
    return path, writer.entries


def assert_equal(found, wanted):
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(found, field), getattr(wanted, field), err_msg=field)
        assert getattr(found, field).dtype == getattr(wanted, field).dtype, field


def test_format_golden_bytes(shard):
    path, _ = shard
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GOLDEN_SHARD


def test_read_block_round_trip(shard):
    path, entries = shard
    for entry in entries:
        block = read_block(path, offset=entry.offset, num_bytes=entry.num_bytes, crc32=entry.crc32)
        assert_equal(block, BLOCK)


def test_iter_blocks_needs_no_index(shard):
    path, _ = shard
    blocks = list(iter_blocks(path))
    assert len(blocks) == 2
    for block in blocks:
        assert_equal(block, BLOCK)


def test_samples_of_a_block():
    first, second = iter_samples(BLOCK)
    assert first.tokens == [2, 10, 11, 3, 12, 3]
    assert first.segment_ids == [0, 0, 0, 0, 1, 1]
    assert first.mask_sets == [([2], [4]), ([1], [10])]
    assert second.next_sentence_label == 1
    assert second.document_keys == (1, 2**64 - 1)
    assert second.mask_sets == [([4], [4]), ([3], [4])]


def test_shard_is_a_plain_tar(shard):
    path, _ = shard
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [
            f"train-00000-{number:05d}.{field}.npy" for number in range(2) for field in FIELDS
        ]
        assert {(member.mtime, member.uid, member.gid, member.type) for member in members} == {(0, 0, 0, b"0")}
        tokens = np.load(io.BytesIO(archive.extractfile(members[0]).read()), allow_pickle=False)
    np.testing.assert_array_equal(tokens, BLOCK.tokens)


def test_stock_webdataset_reads_every_field(small_data_set):
    path = small_data_set / "train-00000-of-00003.tar"
    wanted = list(iter_blocks(path))
    found = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    assert len(found) == len(wanted) > 1
    for sample, block in zip(found, wanted, strict=True):
        for field in FIELDS:
            np.testing.assert_array_equal(sample[f"{field}.npy"], getattr(block, field))


def test_stock_datasets_reads_every_field(small_data_set, tmp_path):
    path = small_data_set / "train-00001-of-00003.tar"
    wanted = list(iter_blocks(path))
    found = datasets.load_dataset("webdataset", data_files=str(path), split="train", cache_dir=str(tmp_path))
    assert len(found) == len(wanted) > 1
    for sample, block in zip(found, wanted, strict=True):
        for field in FIELDS:
            np.testing.assert_array_equal(np.array(sample[f"{field}.npy"], dtype=np.uint64), getattr(block, field))


def test_read_samples_of_a_data_set_and_of_a_shard(small_data_set):
    whole = list(bertdata.read_samples(small_data_set))
    by_shard = [sample for path in sorted(small_data_set.glob("train-*.tar")) for sample in bertdata.read_samples(path)]
    assert whole == by_shard
    assert len(whole) == bertdata.open_data_set(small_data_set).manifest.num_samples("train")
    assert list(bertdata.read_samples(small_data_set, split="eval"))


def test_read_block_finds_every_flipped_byte(shard, tmp_path):
    path, (entry, _) = shard
    data = path.read_bytes()
    damaged = tmp_path / "damaged.tar"
    for position in range(0, entry.num_bytes, 7):
        damaged.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(ShardError, match=r"damaged\.tar, block .*CRC-32"):
            read_block(damaged, offset=entry.offset, num_bytes=entry.num_bytes, crc32=entry.crc32)


def test_read_block_finds_truncation(shard, tmp_path):
    path, (_, entry) = shard
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(path.read_bytes()[: entry.offset + entry.num_bytes - 1])
    with pytest.raises(ShardError, match="truncated"):
        read_block(damaged, offset=entry.offset, num_bytes=entry.num_bytes, crc32=entry.crc32)


def test_read_block_names_a_missing_shard(tmp_path):
    with pytest.raises(ShardError, match=r"absent\.tar"):
        read_block(tmp_path / "absent.tar", offset=0, num_bytes=1, crc32=0)


@pytest.mark.parametrize("stop", [100, 600, 1000, 5000, 8192 + 512])
def test_iter_blocks_finds_truncation(shard, tmp_path, stop):
    path, _ = shard
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(path.read_bytes()[:stop])
    with pytest.raises(ShardError, match=r"damaged\.tar"):
        list(iter_blocks(damaged))


def test_iter_blocks_reads_no_foreign_member(tmp_path):
    path = tmp_path / "foreign.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("train-00000-00000.tokens.pkl")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"\x80\x04N."))
    with pytest.raises(ShardError):
        list(iter_blocks(path))


def test_decode_refuses_arrays_that_do_not_fit(tmp_path):
    wrong = Block(**{field: getattr(BLOCK, field) for field in FIELDS} | {"segment_b": BLOCK.segment_b[:1]})
    path = tmp_path / "wrong.tar"
    path.write_bytes(encode_block(wrong, name="train-00000-00000") + bytes(1024))
    with pytest.raises(ShardError, match="do not fit"):
        list(iter_blocks(path))


def test_writer_leaves_nothing_after_an_error(tmp_path):
    path = tmp_path / "train-00000-of-00001.tar"
    with pytest.raises(RuntimeError), open_shard(LocalFolder(path.parent), path.name) as writer:
        writer.add(BLOCK, name="train-00000-00000")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_dtypes_are_the_narrowest():
    assert position_dtype(255) == np.uint8
    assert position_dtype(256) == np.uint16
    assert token_dtype(65536) == np.uint16
    assert token_dtype(65537) == np.uint32
