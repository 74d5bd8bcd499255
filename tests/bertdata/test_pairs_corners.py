"""Corner cases of pairs, in every mode: extreme documents, and sentences without a token through a build."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tokenizers import Tokenizer, normalizers

from bertdata.config import ShardOptions, TokenizerOptions
from bertdata.pairs import Pairs
from bertdata.spans import gather_spans
from bertdata.spill import Documents
from tests.bertdata.pair_corpora import MODES, PAIR_MODES, documents_of, pairs_of, prepared, varied_lengths
from tests.bertdata.small_builds import build, counts_of, samples_of, write_jsonl

OTHER = [[4, 5, 6]] * 3

# Lengths of the sentences of each document; max_seq_length.
CORNERS = {
    "one document": ([[5, 3, 8, 2, 7, 4, 6, 9, 1, 5] * 4], 32),
    "one document of one sentence": ([[5]], 32),
    "one document of two sentences": ([[5, 3]], 32),
    "documents of one sentence": ([[5], [1], [90], [31], [2]], 32),
    "one sentence in one of the documents": ([[5], [2, 3, 4], [8, 8]], 32),
    "a sentence longer than a sample": ([[3, 400, 3], [700, 2], [1, 33], *OTHER], 32),
    "a thousand sentences of one token": ([[1] * 1000] * 10, 128),
    "the shortest samples": ([[1, 4, 2, 3, 1, 1], [2, 9], [1, 1], [1] * 30], 8),
    "two documents": ([[1] * 3, [2] * 5], 16),
}


def as_built(documents: Documents, mode: str, *, max_seq_length: int) -> Documents:
    """The documents that a build would give to `build_pairs`."""
    return prepared(documents, max_seq_length=max_seq_length) if mode in ("balanced", "sop") else documents


def check_samples(documents: Documents, pairs: Pairs, mode: str, *, max_seq_length: int, passes: int) -> None:
    """What holds for any documents."""
    length_a, length_b = pairs.a_stop - pairs.a_start, pairs.b_stop - pairs.b_start
    assert (length_a > 0).all()
    assert (length_b == 0).all() if mode == "none" else (length_b > 0).all()
    assert (length_a + length_b <= max_seq_length - (2 if mode == "none" else 3)).all()
    bounds = documents.token_offsets[documents.sentence_offsets]
    for rows, start, stop in zip(
        pairs.documents.T, (pairs.a_start, pairs.b_start), (pairs.a_stop, pairs.b_stop), strict=True
    ):
        assert (bounds[rows] <= start).all()
        assert (stop <= bounds[rows + 1]).all()
    assert set(pairs.documents[:, 0].tolist()) == set(range(len(documents)))
    # A pass shows a token once at most, but in B of a random next; without truncation, exactly once.
    own = (pairs.next_sentence_label == 0) | (mode == "sop")
    shown = np.bincount(gather_spans(pairs.a_start, pairs.a_stop)[0], minlength=len(documents.tokens))
    shown += np.bincount(gather_spans(pairs.b_start[own], pairs.b_stop[own])[0], minlength=len(documents.tokens))
    assert (shown <= passes).all()
    if mode == "none":
        assert (shown == passes).all()
        assert not pairs.next_sentence_label.any()
    if mode == "balanced":
        assert ((pairs.documents[:, 0] != pairs.documents[:, 1]) == (pairs.next_sentence_label == 1)).all()
    if mode in ("sop", "none"):
        assert (pairs.documents[:, 0] == pairs.documents[:, 1]).all()
    if mode == "sop":
        assert ((pairs.a_start > pairs.b_start) == (pairs.next_sentence_label == 1)).all()
        assert not pairs.is_forced.any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("short_seq_prob", [0.1, 1.0])
@pytest.mark.parametrize("corner", CORNERS)
def test_build_pairs_of_a_corner_case(corner, mode, short_seq_prob):
    lengths, max_seq_length = CORNERS[corner]
    documents = as_built(documents_of(lengths), mode, max_seq_length=max_seq_length)
    passes = 8 if len(documents.tokens) < 1000 else 1
    pairs = pairs_of(documents, mode, max_seq_length=max_seq_length, short_seq_prob=short_seq_prob, dupe_factor=passes)
    assert len(pairs) >= passes * len(documents)
    check_samples(documents, pairs, mode, max_seq_length=max_seq_length, passes=passes)


@pytest.mark.parametrize("mode", ["balanced", "sop"])
def test_build_pairs_of_one_document_has_only_actual_nexts(mode):
    documents = documents_of(varied_lengths(1, most_sentences=40, least=40, most_tokens=12, seed=14))
    pairs = pairs_of(documents, mode, dupe_factor=5)
    assert len(pairs) > 20
    assert not pairs.is_forced.any()
    assert (pairs.documents == 0).all()
    assert pairs.next_sentence_label.any() == (mode == "sop")


@pytest.mark.parametrize("lengths", [[[30] * 5, [2, 3]], [[2, 3], [4, 2], [3, 30]]])
def test_build_pairs_balanced_with_only_one_other_document(lengths):
    documents = documents_of(lengths)
    pairs = pairs_of(documents, "balanced", max_seq_length=16, dupe_factor=200)
    check_samples(documents, pairs, "balanced", max_seq_length=16, passes=200)
    assert 0 < pairs.next_sentence_label.mean() < 1


def test_build_pairs_google_of_one_document_draws_from_itself():
    pairs = pairs_of(documents_of([[5] * 40]), "google", dupe_factor=10)
    assert 0.4 < pairs.next_sentence_label.mean() < 0.8
    assert (pairs.documents == 0).all()


def test_build_pairs_google_of_one_sentence_documents_forces_a_random_next():
    pairs = pairs_of(documents_of([[5], [1], [90]]), "google", dupe_factor=4)
    assert len(pairs) == 12
    assert pairs.next_sentence_label.all()
    assert pairs.is_forced.all()


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_of_no_documents_gives_no_samples(mode):
    pairs = pairs_of(documents_of([]), mode)
    assert len(pairs) == 0
    assert pairs.documents.shape == (0, 2)
    wanted = pairs_of(documents_of([[1, 2], [2, 1]]), mode)
    for name in Pairs.__slots__:
        assert getattr(pairs, name).dtype == getattr(wanted, name).dtype, name


@pytest.mark.parametrize("mode", PAIR_MODES)
def test_build_pairs_of_sentences_longer_than_a_sample(mode):
    documents = documents_of([[400, 300], [1, 700], [900, 1]])
    pairs = pairs_of(documents, mode, max_seq_length=16, short_seq_prob=0.0, dupe_factor=50)
    length_a, length_b = pairs.a_stop - pairs.a_start, pairs.b_stop - pairs.b_start
    assert (length_a + length_b <= 13).all()
    assert set(length_a.tolist()) <= {1, 6, 7, 12}
    assert {1, 6} <= set(length_a.tolist()) | set(length_b.tolist())


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_at_the_shortest_length(mode):
    documents = documents_of(varied_lengths(300, most_sentences=6, least=2, most_tokens=5, seed=15))
    pairs = pairs_of(documents, mode, max_seq_length=8, short_seq_prob=1.0)
    length = pairs.a_stop - pairs.a_start + pairs.b_stop - pairs.b_start
    assert set(length.tolist()) == ({1, 2, 3, 4, 5, 6} if mode == "none" else {2, 3, 4, 5})


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_of_the_shortest_target(mode):
    # Targets are uniform on 2 to 5 (none: 6), and with sentences of one token, a chunk has its target.
    documents = documents_of([[1] * 1000] * 40)
    pairs = pairs_of(documents, mode, max_seq_length=8, short_seq_prob=1.0)
    most = 6 if mode == "none" else 5
    check_samples(documents, pairs, mode, max_seq_length=8, passes=1)
    length = pairs.a_stop - pairs.a_start + pairs.b_stop - pairs.b_start
    if mode == "google":  # one target per document
        targets = {row: set(length[pairs.documents[:, 0] == row].tolist()) for row in range(40)}
        assert all(max(found) in range(2, most + 1) for found in targets.values())
        assert {max(found) for found in targets.values()} == {2, 3, 4, 5}
        return
    seen = np.maximum(pairs.a_start, pairs.b_start - (mode == "none")) % 1000 < 980  # not at an end
    own = (pairs.next_sentence_label == 0) | (mode == "sop")
    found = np.bincount(length[seen & own], minlength=most + 1)
    assert found.sum() == found[2:].sum()
    assert stats.chisquare(found[2:]).pvalue > 0.001
    if mode != "none":
        of_two = own & (length == 2)
        first, second = np.sort([pairs.a_start[of_two], pairs.b_start[of_two]], axis=0)
        assert (second == first + 1).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("others", [[], OTHER])
def test_build_pairs_of_a_huge_document(mode, others):
    documents = documents_of([[2] * 50_000, *others])
    start = time.process_time()
    pairs = pairs_of(documents, mode, max_seq_length=512, short_seq_prob=0.0)
    assert time.process_time() - start < 20
    assert len(pairs) >= 100_000 // 512
    check_samples(documents, pairs, mode, max_seq_length=512, passes=1)


# Sentences without a letter; and a letter that the tokenizer's normalizer deletes.

EMPTY_SENTENCES = {"sentences_without_letters": "\u0301", "sentences_without_tokens": "Ω"}


@pytest.fixture
def deleting_tokenizer(tmp_path, tokenizer_file) -> Path:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("Ω", ""), tokenizer.normalizer])
    tokenizer.save(str(tmp_path / "deleting.json"))
    return tmp_path / "deleting.json"


@pytest.mark.parametrize("count", EMPTY_SENTENCES)
@pytest.mark.parametrize("mode", MODES)
def test_build_drops_empty_sentences_before_pairs_are_made(tmp_path, small_options, deleting_tokenizer, mode, count):
    empty = EMPTY_SENTENCES[count]
    texts = [[f"The river {number}", empty, "a town", empty, empty, "by the bridge"] for number in range(60)]
    texts += [[empty, f"The old miller {number}"] for number in range(20)] + [[empty], [empty, empty]]
    options = dataclasses.replace(
        small_options,
        pairs=dataclasses.replace(small_options.pairs, next_sentence=mode, dupe_factor=1, short_seq_prob=0.0),
        shards=ShardOptions(eval_fraction=0),
        tokenizer=TokenizerOptions(path=str(deleting_tokenizer)),
    )
    folder = build(tmp_path / "out", write_jsonl(tmp_path / "a.jsonl", texts), options=options)
    counts = counts_of(folder)
    assert counts[count] == 60 * 3 + 20 + 3
    assert counts["sentences"] == 60 * 3 + 20
    assert counts["documents_without_tokens"] == 2
    one_sentence = 20 if mode in ("balanced", "sop") else 0
    assert counts["documents_kept"] == 80 - one_sentence
    samples = samples_of(folder)
    for sample in samples:
        length_a = sample.segment_ids.count(0) - 2
        assert length_a > 0
        assert sample.segment_ids.count(1) - 1 > 0 or mode == "none"
    if mode == "none":  # every document is a sample
        assert len(samples) == 80
        assert sum(len(sample.tokens) - 2 for sample in samples) == counts["tokens"]
