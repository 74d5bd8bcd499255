"""Alignment is checked against what builds know: where in its document each segment was taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata.alignment import Segment, align
from bertdata.blocks import Sample
from bertdata.errors import ShardError
from tests.bertdata.pair_corpora import MODES, documents_of, pairs_of, prepared

CLS, SEP = 10**6, 10**6 + 1


def sample_of(a, b=(), *, label=0, keys=(1, 1)) -> Sample:
    tokens = [CLS, *a, SEP, *([*b, SEP] if len(b) else [])]
    num_b = len(b) + 1 if len(b) else 0
    return Sample(
        tokens=tokens,
        segment_ids=[0] * (len(tokens) - num_b) + [1] * num_b,
        next_sentence_label=label,
        document_keys=keys,
        mask_sets=[],
    )


@st.composite
def built_samples(draw, *, num_distinct=None):
    """(mode, documents, pairs); each token is its own place, or one of a few that come again and again."""
    mode = draw(st.sampled_from(MODES))
    lengths = draw(st.lists(st.lists(st.integers(1, 20), min_size=2, max_size=12), min_size=1, max_size=5))
    tokens = None
    if num_distinct is not None:
        total = sum(map(sum, lengths))
        tokens = draw(st.lists(st.integers(0, num_distinct - 1), min_size=total, max_size=total))
    documents = documents_of(lengths, tokens=tokens)
    max_seq_length = draw(st.integers(8, 40))
    if mode in ("balanced", "sop"):
        documents = prepared(documents, max_seq_length=max_seq_length)
    seed = draw(st.integers(0, 1000))
    return mode, documents, pairs_of(documents, mode, seed=seed, max_seq_length=max_seq_length, short_seq_prob=0.3)


def iter_aligned(mode, documents, pairs):
    """Yields (alignment, offsets and tokens of A's document, sample, where A and B are in that document)."""
    columns = [pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop, pairs.next_sentence_label]
    for rows, *spans, label in zip(pairs.documents.tolist(), *(column.tolist() for column in columns), strict=True):
        document = documents.take(np.array(rows[:1]))
        start = int(documents.token_offsets[documents.sentence_offsets[rows[0]]])
        a, b = (documents.tokens[slice(*span)].tolist() for span in (spans[:2], spans[2:]))
        sample = sample_of(a, b, label=label, keys=tuple(rows))
        found = align(sample, tokens=document.tokens, offsets=document.token_offsets, next_sentence=mode)
        yield found, document, sample, [place - start for place in spans]


@settings(max_examples=100, deadline=None)
@given(built_samples())
def test_segments_are_found_where_they_were_taken(built):
    for found, _, sample, spans in iter_aligned(*built):
        assert (found.a.start, found.a.stop) == tuple(spans[:2])
        if sample.document_keys[0] != sample.document_keys[1] or 1 not in sample.segment_ids:
            assert found.b is None
        else:
            assert (found.b.start, found.b.stop) == tuple(spans[2:])


@settings(max_examples=100, deadline=None)
@given(built_samples(num_distinct=3))
def test_explanation_gives_the_tokens_back_where_they_are_ambiguous(built):
    """Made of the explanation alone: sentences, less what is cut off the first and the last one."""
    mode = built[0]
    for found, document, sample, spans in iter_aligned(*built):
        parts = [found.a] if found.b is None else [found.a, found.b]
        for part in parts:
            assert 0 <= part.front_cut < np.diff(document.token_offsets)[part.first]
            assert 0 <= part.back_cut < np.diff(document.token_offsets)[part.last]
        made = sample_of(*(rebuilt(part, document) for part in parts), label=sample.next_sentence_label)
        assert made.tokens == sample.tokens[: len(made.tokens)]
        assert len(made.tokens) == len(sample.tokens) or sample.document_keys[0] != sample.document_keys[1]
        if found.b is not None and (mode == "sop" or not sample.next_sentence_label):
            first, second = parts if not sample.next_sentence_label else parts[::-1]
            true_first, true_second = sorted((spans[:2], spans[2:]))
            assert first.stop <= second.start
            assert lost(first.start, second.stop, second.start - first.stop, document) <= lost(
                true_first[0], true_second[1], true_second[0] - true_first[1], document
            )
        else:
            assert lost(found.a.start, found.a.stop, 0, document) <= lost(*spans[:2], 0, document)


def rebuilt(segment: Segment, document) -> list[int]:
    sentences = np.split(document.tokens, document.token_offsets[1:-1])[segment.first : segment.last + 1]
    tokens = np.concatenate(sentences).tolist()
    return tokens[segment.front_cut : len(tokens) - segment.back_cut]


def lost(start, stop, between, document) -> int:
    """Tokens of the touched sentences that are not in a span from start to stop, less what is missing between."""
    offsets = document.token_offsets.tolist()
    before = max(offset for offset in offsets if offset <= start)
    after = min(offset for offset in offsets if offset >= stop)
    return start - before + after - stop + between


def aligned(a, b=(), **options):
    tokens, offsets = np.array([1, 1, 1, 2, 2, 2, 1, 3, 3]), np.array([0, 3, 6, 9])
    return align(sample_of(a, b, **options), tokens=tokens, offsets=offsets, next_sentence="balanced")


def test_place_with_the_fewest_tokens_cut_is_taken():
    assert aligned([1]).a == Segment(start=0, stop=1, first=0, last=0, front_cut=0, back_cut=2)
    found = aligned([1], [3, 3])
    assert found.a == Segment(start=6, stop=7, first=2, last=2, front_cut=0, back_cut=2)
    assert found.b == Segment(start=7, stop=9, first=2, last=2, front_cut=1, back_cut=0)
    assert aligned([1], [2, 2, 2]).a.start == 0
    assert aligned([2, 1]).a.start == 5


def test_segments_are_named_by_their_sentences():
    names = ["1", "2.1", "2.2"]
    found = aligned([1, 2, 2], [2, 1, 3], label=0).a
    assert (found.name(names), found.cuts) == ("1-2.1", "cut: 2 front, 1 back")
    assert (aligned([2, 2, 2]).a.name(names), aligned([2, 2, 2]).a.cuts) == ("2.1", "")
    assert aligned([1, 3]).a.cuts == "cut: 1 back"


def test_tokens_of_another_text_are_an_error():
    with pytest.raises(ShardError, match="holds tokens that the document does not"):
        aligned([3, 1])
    with pytest.raises(ShardError, match="holds tokens that the document does not"):
        aligned([1] * 10)
    with pytest.raises(ShardError, match="does not follow its first"):
        aligned([3, 3], [2, 2])
