import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata.blocks import iter_samples, make_block
from bertdata.config import BuildOptions, MaskOptions, PairOptions
from bertdata.pairs import Pairs, build_pairs
from bertdata.shards import FIELDS
from bertdata.spill import Documents
from bertdata.wordpiece import Vocabulary
from tests.bertdata.pair_corpora import documents_of

PAD, UNK, CLS, SEP, MASK = range(5)


def vocabulary_of(size, *, dtype="<u2") -> Vocabulary:
    return Vocabulary(
        size=size,
        roles={"pad": PAD, "unk": UNK, "cls": CLS, "sep": SEP, "mask": MASK},
        dtype=np.dtype(dtype),
        starts_word=np.ones(size, dtype=bool),
        marks_all_words=True,
        is_punctuation=np.zeros(size, dtype=bool),
        ordinary=np.arange(5, size),
    )


def options_of(*, max_seq_length=32, mode="balanced", num_mask_sets=3, dupe_factor=1, seed=0) -> BuildOptions:
    return BuildOptions(
        pairs=PairOptions(max_seq_length=max_seq_length, next_sentence=mode, dupe_factor=dupe_factor),
        masks=MaskOptions(num_mask_sets=num_mask_sets),
        max_seq_lengths=(max_seq_length,),
        seed=seed,
    )


def random_documents(lengths, *, seed=0, dtype=np.uint16) -> Documents:
    documents = documents_of(lengths)
    tokens = np.random.default_rng(seed).integers(5, 1000, len(documents.tokens)).astype(dtype)
    return dataclasses.replace(documents, tokens=tokens)


def pairs_at(spans, *, documents, labels) -> Pairs:
    columns = np.array(spans, dtype=np.int64).T
    return Pairs(
        **dict(zip(("a_start", "a_stop", "b_start", "b_stop"), columns, strict=True)),
        next_sentence_label=np.array(labels, dtype=np.uint8),
        documents=np.array(documents),
        is_forced=np.zeros(len(spans), dtype=bool),
        order=np.arange(len(spans), dtype=np.uint64),
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=2, max_size=8), max_size=6),
    st.sampled_from(("balanced", "google", "sop", "none")),
    st.integers(8, 40),
    st.integers(0, 3),
    st.integers(0, 100),
)
def test_make_block_equals_a_loop_over_samples(lengths, mode, max_seq_length, num_mask_sets, seed):
    documents = random_documents(lengths, seed=seed)
    options = options_of(max_seq_length=max_seq_length, mode=mode, num_mask_sets=num_mask_sets, seed=seed)
    pairs = build_pairs(documents, options=options.pairs, seed=options.seed)
    block = make_block(documents, pairs, options=options, vocabulary=vocabulary_of(1000))
    samples = list(iter_samples(block))
    assert block.num_samples == len(samples) == len(pairs)
    corpus, keys = documents.tokens.tolist(), documents.keys.tolist()
    end = 0
    for row, sample in enumerate(samples):
        a = corpus[pairs.a_start[row] : pairs.a_stop[row]]
        b = corpus[pairs.b_start[row] : pairs.b_stop[row]]
        second = [*b, SEP] if b else []
        assert sample.tokens == [CLS, *a, SEP, *second]
        assert sample.segment_ids == [0] * (len(a) + 2) + [1] * len(second)
        assert sample.next_sentence_label == pairs.next_sentence_label[row]
        assert sample.document_keys == tuple(keys[document][0] for document in pairs.documents[row])
        assert len(sample.tokens) <= max_seq_length
        assert len(sample.mask_sets) == num_mask_sets
        for positions, shown in sample.mask_sets:
            assert len(positions) == len(shown) > 0
            assert all(sample.tokens[position] not in (CLS, SEP) for position in positions)
        end += len(sample.tokens)
        assert block.token_offsets[row + 1] == end


def test_make_block_lays_out_two_samples():
    documents = random_documents([[2, 1, 2], [3]])
    tokens = documents.tokens.tolist()
    pairs = pairs_at([(0, 2, 2, 3), (3, 5, 5, 8)], documents=[(0, 0), (0, 1)], labels=[0, 1])
    block = make_block(documents, pairs, options=options_of(num_mask_sets=2), vocabulary=vocabulary_of(1000))
    assert block.tokens.tolist() == [CLS, *tokens[:2], SEP, tokens[2], SEP, CLS, *tokens[3:5], SEP, *tokens[5:8], SEP]
    assert block.token_offsets.tolist() == [0, 6, 14]
    assert block.segment_b.tolist() == [4, 4]
    assert block.next_sentence_label.tolist() == [0, 1]
    assert block.document_keys.tolist() == documents.keys[[[0, 0], [0, 1]], 0].tolist()
    assert block.num_predictions.tolist() == [[1, 1], [1, 1]]
    assert len(block.mask_positions) == len(block.mask_tokens) == 4


def test_make_block_of_one_segment_stores_the_length_as_the_start_of_b():
    documents = random_documents([[3], [1]])
    pairs = pairs_at([(0, 3, 3, 3), (3, 4, 4, 4)], documents=[(0, 0), (1, 1)], labels=[0, 0])
    block = make_block(documents, pairs, options=options_of(mode="none"), vocabulary=vocabulary_of(1000))
    tokens = documents.tokens.tolist()
    assert block.tokens.tolist() == [CLS, *tokens[:3], SEP, CLS, tokens[3], SEP]
    assert block.segment_b.tolist() == block.lengths.tolist() == [5, 3]
    assert [sample.segment_ids for sample in iter_samples(block)] == [[0] * 5, [0] * 3]


@pytest.mark.parametrize("num_mask_sets", [0, 2])
def test_make_block_of_no_pairs_is_empty(num_mask_sets):
    documents = random_documents([])
    options = options_of(num_mask_sets=num_mask_sets)
    pairs = build_pairs(documents, options=options.pairs, seed=0)
    block = make_block(documents, pairs, options=options, vocabulary=vocabulary_of(1000))
    assert block.num_samples == 0
    assert block.token_offsets.tolist() == [0]
    assert block.num_predictions.shape == (0, num_mask_sets)
    assert block.document_keys.shape == (0, 2)
    assert list(iter_samples(block)) == []


@pytest.mark.parametrize(("max_seq_length", "position"), [(8, "|u1"), (255, "|u1"), (256, "<u2"), (512, "<u2")])
@pytest.mark.parametrize("token", ["<u2", "<u4"])
@pytest.mark.parametrize("mode", ["balanced", "none"])
def test_make_block_has_the_dtypes_of_the_shard_format(max_seq_length, position, token, mode):
    documents = random_documents([[9] * 150] * 3, dtype=token)
    options = options_of(max_seq_length=max_seq_length, mode=mode)
    pairs = build_pairs(documents, options=options.pairs, seed=0)
    block = make_block(documents, pairs, options=options, vocabulary=vocabulary_of(1000, dtype=token))
    assert {name: getattr(block, name).dtype.str for name in FIELDS} == {
        "tokens": token,
        "token_offsets": "<u4",
        "segment_b": position,
        "next_sentence_label": "|u1",
        "document_keys": "<u8",
        "num_predictions": position,
        "mask_positions": position,
        "mask_tokens": token,
    }
    assert block.lengths.max() == max_seq_length
    if mode == "none":
        assert (block.segment_b == block.lengths).all()


def test_make_block_gives_a_sample_the_same_masks_in_any_block():
    documents = random_documents([[7, 5, 9, 4, 6]] * 20)
    options = options_of(dupe_factor=2)
    pairs = build_pairs(documents, options=options.pairs, seed=0)
    vocabulary = vocabulary_of(1000)
    whole = list(iter_samples(make_block(documents, pairs, options=options, vocabulary=vocabulary)))
    parts = []
    for start in range(0, len(pairs), 7):
        part = pairs.take(np.arange(start, min(start + 7, len(pairs))))
        parts += iter_samples(make_block(documents, part, options=options, vocabulary=vocabulary))
    assert parts == whole


def test_iter_samples_gives_back_every_field_of_a_block():
    documents = random_documents([[7, 5, 9, 4, 6]] * 20)
    options = options_of()
    pairs = build_pairs(documents, options=options.pairs, seed=0)
    block = make_block(documents, pairs, options=options, vocabulary=vocabulary_of(1000))
    samples = [dataclasses.asdict(sample) for sample in iter_samples(block)]
    sets = [mask_set for sample in samples for mask_set in sample["mask_sets"]]
    assert [token for sample in samples for token in sample["tokens"]] == block.tokens.tolist()
    assert [sample["segment_ids"].count(0) for sample in samples] == block.segment_b.tolist()
    assert [sample["next_sentence_label"] for sample in samples] == block.next_sentence_label.tolist()
    assert [list(sample["document_keys"]) for sample in samples] == block.document_keys.tolist()
    assert [len(positions) for positions, _ in sets] == block.num_predictions.ravel().tolist()
    assert [position for positions, _ in sets for position in positions] == block.mask_positions.tolist()
    assert [token for _, shown in sets for token in shown] == block.mask_tokens.tolist()
