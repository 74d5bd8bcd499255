import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertdata.errors import OutputError
from bertdata.spill import (
    BIN_BITS,
    RunWriter,
    concatenate_documents,
    document_key,
    gather_spans,
    key_bins,
    offsets_of,
    read_run,
)
from bertdata.storage import LocalFolder

NUM_BINS = 1 << BIN_BITS


def random_documents(generator, count):
    """Returns (key, lengths of sentences, tokens) of each document."""
    documents = []
    for _ in range(count):
        lengths = generator.integers(1, 9, generator.integers(1, 7))
        documents.append((generator.bytes(16), lengths, generator.integers(0, 60000, lengths.sum()).astype("<u2")))
    return documents


def read(run, *, first_bin=0, last_bin=NUM_BINS):
    return read_run(LocalFolder(run.parent), run.name, first_bin=first_bin, last_bin=last_bin)


def write(folder, documents, *, run_bytes=1 << 20):
    writer = RunWriter(LocalFolder(folder), stem="00000", dtype=np.dtype("<u2"), run_bytes=run_bytes)
    for key, lengths, tokens in documents:
        writer.add(key, tokens=tokens, num_tokens=lengths)
    return writer.close(), [folder / name for name in writer.names]


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


@given(seed=st.integers(0, 2**32), count=st.integers(1, 300), cut=st.lists(st.integers(0, NUM_BINS), max_size=3))
def test_runs_give_back_any_key_range(tmp_path_factory, seed, count, cut):
    documents = random_documents(np.random.default_rng(seed), count)
    folder = tmp_path_factory.mktemp("runs")
    _, (run,) = write(folder, documents)
    found = []
    bounds = sorted({0, *cut, NUM_BINS})
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        part = read(run, first_bin=first, last_bin=last)
        assert ((key_bins(part.keys) >= first) & (key_bins(part.keys) < last)).all()
        found += as_rows(part)
    assert found == wanted_rows(documents)


def test_small_runs_hold_the_same_documents(tmp_path):
    documents = random_documents(np.random.default_rng(0), 500)
    histogram, runs = write(tmp_path, documents, run_bytes=2000)
    assert len(runs) > 5
    whole = concatenate_documents([read(run, first_bin=0, last_bin=NUM_BINS) for run in runs])
    assert as_rows(whole) == wanted_rows(documents)
    assert histogram.sum(axis=0).tolist() == [
        500,
        sum(len(lengths) for _, lengths, _ in documents),
        sum(len(tokens) for _, _, tokens in documents),
    ]
    np.testing.assert_array_equal(histogram[:, 0], np.bincount(key_bins(whole.keys), minlength=NUM_BINS))


def test_take_gives_rows_in_the_order_asked(tmp_path):
    documents = random_documents(np.random.default_rng(1), 20)
    _, (run,) = write(tmp_path, documents)
    whole = read(run, first_bin=0, last_bin=NUM_BINS)
    rows = as_rows(whole)
    assert as_rows(whole.take(np.array([5, 0, 5]))) == [rows[5], rows[0], rows[5]]
    assert as_rows(whole.take(np.array([], dtype=int))) == []


def test_no_documents_no_run(tmp_path):
    histogram, runs = write(tmp_path, [])
    assert runs == []
    assert not histogram.any()


def test_damaged_run_is_named(tmp_path):
    _, (run,) = write(tmp_path, random_documents(np.random.default_rng(2), 20))
    run.write_bytes(run.read_bytes()[:-9])
    with pytest.raises(OutputError, match=r"00000-0000\.run.*--overwrite"):
        read(run, first_bin=0, last_bin=NUM_BINS)


def test_document_key_is_of_the_sentences():
    assert document_key(["a b", "c"]) == document_key(["a b", "c"])
    assert len({document_key(["a b", "c"]), document_key(["a", "b c"]), document_key(["a b c"])}) == 3
    assert document_key(["A cat."]).hex() == "9465fe4c9a5e9206a0e464c11ee7d81e"


def test_gather_spans():
    indices, offsets = gather_spans(np.array([5, 0, 7]), np.array([8, 0, 9]))
    assert indices.tolist() == [5, 6, 7, 7, 8]
    assert offsets.tolist() == [0, 3, 3, 5]
    assert offsets_of(np.array([2, 0, 1])).tolist() == [0, 2, 2, 3]
