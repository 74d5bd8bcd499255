import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata import ranges
from bertdata.config import BuildOptions, ShardOptions
from bertdata.errors import OutputError
from bertdata.planning import plan_tasks
from bertdata.ranges import add_up_bins, read_ranges, write_ranges
from bertdata.run_reading import RunPart, read_runs
from bertdata.runs import RunWriter
from bertdata.spill import BIN_BITS, key_bins
from bertdata.storage import LocalFolder
from tests.bertdata.memory_folder import MemoryFolder

NUM_BINS = 1 << BIN_BITS
U2, U4 = np.dtype("<u2"), np.dtype("<u4")


def random_documents(generator, count, *, dtype=U2):
    """Returns (key, lengths of sentences, tokens) of each document; a tenth are copies of another."""
    documents = []
    for _ in range(count):
        if documents and generator.random() < 0.1:
            documents.append(documents[generator.integers(len(documents))])
            continue
        lengths = generator.integers(1, 9, generator.integers(1, 7))
        tokens = generator.integers(0, np.iinfo(dtype).max, lengths.sum()).astype(dtype)
        documents.append((generator.bytes(16), lengths, tokens))
    return documents


def write(folder, documents, *, run_bytes=1 << 20, portion=0, dtype=U2):
    writer = RunWriter(folder, portion=portion, dtype=dtype, run_bytes=run_bytes)
    for key, lengths, tokens in documents:
        writer.add(key, tokens=tokens, num_tokens=lengths)
    return writer.close()


def as_rows(documents):
    """Returns key, lengths and tokens of each of the documents as plain values."""
    rows = []
    for row in range(len(documents)):
        first, last = documents.sentence_offsets[row : row + 2]
        bounds = documents.token_offsets[first : last + 1]
        key = b"".join(int(half).to_bytes(8, "big") for half in documents.keys[row])
        rows.append((key, np.diff(bounds).tolist(), documents.tokens[bounds[0] : bounds[-1]].tolist()))
    return rows


def wanted_rows(documents):
    return sorted((key, lengths.tolist(), tokens.tolist()) for key, lengths, tokens in documents)


def whole(run):
    return RunPart(f"{run.portion:05d}-{run.number:04d}.run", 0, run.num_bytes)


def read_all(folder, runs, *, dtype=U2):
    return read_runs(folder, [whole(run) for run in runs], first_bin=0, last_bin=NUM_BINS, dtype=dtype)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    counts=st.lists(st.integers(0, 150), min_size=1, max_size=4),
    num_shards=st.integers(1, 9),
    run_bytes=st.sampled_from([500, 3000, 1 << 20]),
    dtype=st.sampled_from([U2, U4]),
)
def test_shards_read_each_document_once_in_one_part_of_each_run(seed, counts, num_shards, run_bytes, dtype):
    generator = np.random.default_rng(seed)
    documents = random_documents(generator, sum(counts) + 20, dtype=dtype)
    work, folder = MemoryFolder(), MemoryFolder()
    bounds = np.cumsum([0, *counts, 20])
    runs = [
        run
        for portion, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))
        for run in write(folder, documents[start:stop], portion=portion, run_bytes=run_bytes, dtype=dtype)
    ]
    histogram = add_up_bins(folder, runs)
    shards = ShardOptions(num_shards=num_shards, eval_fraction=0.1)
    options = dataclasses.replace(BuildOptions(), shards=shards, max_seq_lengths=(64, 128))
    tasks = [
        task
        for length in options.max_seq_lengths
        for task in plan_tasks(histogram, options=options.for_length(length), token_bytes=dtype.itemsize)
    ]
    write_ranges(work, folder, runs, tasks=tasks)
    for length in options.max_seq_lengths:
        found = []
        folder.asked.clear()
        own = sorted((task for task in tasks if task.max_seq_length == length), key=lambda task: task.first_bin)
        for task in own:
            parts = read_ranges(work, task)
            assert len({part.name for part in parts}) == len(parts)
            part = read_runs(folder, parts, first_bin=task.first_bin, last_bin=task.last_bin, dtype=dtype)
            bins = key_bins(part.keys)
            assert ((bins >= task.first_bin) & (bins < task.last_bin)).all()
            assert len(part) == histogram[task.first_bin : task.last_bin, 0].sum()
            found += as_rows(part)
        assert found == wanted_rows(documents)
        # Every byte of every run is read once.
        asked = sorted(folder.asked)
        assert sum(stop - start for _, start, stop in asked) == sum(run.num_bytes for run in runs)
        assert all(before[0] != after[0] or before[2] == after[1] for before, after in zip(asked, asked[1:]))  # noqa: B905


def test_bins_count_documents_and_tokens():
    documents = random_documents(np.random.default_rng(0), 500)
    folder = MemoryFolder()
    runs = write(folder, documents, run_bytes=4000)
    assert len(runs) > 5
    histogram = add_up_bins(folder, runs)
    bins = [int.from_bytes(key[:2], "big") for key, _, _ in documents]
    np.testing.assert_array_equal(histogram[:, 0], np.bincount(bins, minlength=NUM_BINS))
    tokens = np.bincount(bins, weights=[len(tokens) for _, _, tokens in documents], minlength=NUM_BINS)
    np.testing.assert_array_equal(histogram[:, 1], tokens)


def test_many_runs_are_found_in_groups(monkeypatch):
    """The plan of more runs than are held at a time, of which a shard reads its own rows."""
    monkeypatch.setattr(ranges, "GROUP", 40)
    generator = np.random.default_rng(3)
    folder, work = MemoryFolder(), MemoryFolder()
    documents = random_documents(generator, 110)
    runs = [run for portion, document in enumerate(documents) for run in write(folder, [document], portion=portion)]
    options = dataclasses.replace(BuildOptions(), shards=ShardOptions(num_shards=20))
    tasks = plan_tasks(add_up_bins(folder, runs), options=options, token_bytes=2)
    write_ranges(work, folder, runs, tasks=tasks)
    found = []
    for task in sorted(tasks, key=lambda task: task.first_bin):
        work.asked.clear()
        parts = read_ranges(work, task)
        assert sum(stop - start for _, start, stop in work.asked) == 8 + 16 * len(runs)
        found += as_rows(read_runs(folder, parts, first_bin=task.first_bin, last_bin=task.last_bin, dtype=U2))
    assert found == wanted_rows(documents)


def test_no_documents_no_run(tmp_path):
    assert write(LocalFolder(tmp_path), []) == []
    assert list(tmp_path.iterdir()) == []
    assert len(read_runs(LocalFolder(tmp_path), [], first_bin=0, last_bin=9, dtype=U2)) == 0


@settings(max_examples=60)
@given(data=st.data(), cut=st.booleans())
def test_any_damage_of_a_run_is_found(data, cut):
    folder = MemoryFolder()
    runs = write(folder, random_documents(np.random.default_rng(2), 20))
    name = whole(runs[0]).name
    content = bytearray(folder.files[name])
    place = data.draw(st.integers(0, len(content) - 1))
    if cut:
        folder.write(name, bytes(content[:place]))
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        folder.write(name, bytes(content))
    with pytest.raises(OutputError, match=r"\.run|memory.*--overwrite"):
        read_all(folder, runs)


def test_another_part_of_a_run_is_found(tmp_path):
    folder = LocalFolder(tmp_path)
    runs = write(folder, random_documents(np.random.default_rng(2), 200))
    with pytest.raises(OutputError, match="other key bins"):
        read_runs(folder, [whole(runs[0])], first_bin=0, last_bin=NUM_BINS // 2, dtype=U2)
    with pytest.raises(OutputError, match="do not add up"):
        read_all(folder, runs, dtype=U4)
    with pytest.raises(OutputError, match="damaged"):
        start = RunPart(whole(runs[0]).name, 4, runs[0].num_bytes)
        read_runs(folder, [start], first_bin=0, last_bin=NUM_BINS, dtype=U2)


def test_damaged_bins_and_plans_are_found(tmp_path):
    folder = LocalFolder(tmp_path)
    runs = write(folder, random_documents(np.random.default_rng(2), 200), run_bytes=4000)
    tasks = plan_tasks(add_up_bins(folder, runs), options=BuildOptions(), token_bytes=2)
    with pytest.raises(OutputError, match=r"128\.places.*--overwrite"):
        read_ranges(folder, tasks[0])
    write_ranges(folder, folder, runs, tasks=tasks)
    places = tmp_path / "ranges" / "128.places"
    places.write_bytes(places.read_bytes()[:-4])
    with pytest.raises(OutputError, match=r"128\.places.*--overwrite"):
        for task in tasks:
            read_ranges(folder, task)
    (tmp_path / runs[1].bins_name).write_bytes((tmp_path / runs[0].bins_name).read_bytes())
    with pytest.raises(OutputError, match=r"00000-0001\.npz.*--overwrite"):
        write_ranges(folder, folder, runs, tasks=tasks)
    path = tmp_path / runs[0].bins_name
    content = bytearray(path.read_bytes())
    content[200] ^= 16
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"00000-0000\.npz.*--overwrite"):
        add_up_bins(folder, runs)
