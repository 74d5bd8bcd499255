import numpy as np

from bertdata.spans import gather_spans, offsets_of


def test_offsets_of_gives_where_each_begins_and_the_last_ends():
    assert offsets_of(np.array([2, 0, 1])).tolist() == [0, 2, 2, 3]
    assert offsets_of(np.array([], dtype=np.uint8)).tolist() == [0]


def test_gather_spans_lays_spans_end_to_end():
    indices, offsets = gather_spans(np.array([5, 0, 7]), np.array([8, 0, 9]))
    assert indices.tolist() == [5, 6, 7, 7, 8]
    assert offsets.tolist() == [0, 3, 3, 5]
