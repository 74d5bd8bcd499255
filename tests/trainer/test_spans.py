import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.spans import best_span, make_windows


@given(num_tokens=st.integers(1, 200), room=st.integers(1, 50), share=st.floats(0, 0.99))
def test_every_token_starts_spans_in_one_window(num_tokens: int, room: int, share: float) -> None:
    overlap = int(room * share)
    windows = make_windows(num_tokens, room=room, overlap=overlap, max_answer_tokens=1)
    assert [token for window in windows for token in range(window.first, window.end)] == list(range(num_tokens))
    for window, after in zip(windows, windows[1:], strict=False):
        assert window.stop - after.start == overlap
        # What lies nearer to the end of one window than to the beginning of the next is the next one's.
        assert 0 <= window.stop - window.end - (after.first - after.start) <= 1
    for window in windows:
        assert window.start <= window.first < window.end <= window.stop <= min(window.start + room, num_tokens)


@given(
    scores=st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=12),
    max_tokens=st.integers(1, 15),
    room=st.integers(3, 12),
)
def test_best_span_is_that_of_all_pairs(scores: list[tuple[float, float]], max_tokens: int, room: int) -> None:
    overlap = min(max_tokens, room - 1)
    windows = make_windows(len(scores), room=room, overlap=overlap, max_answer_tokens=max_tokens)
    parts = [torch.tensor(scores[window.start : window.stop], dtype=torch.float64) for window in windows]
    spans = {
        (first, last): scores[first][0] + scores[last][1]
        for window in windows
        for first in range(window.start, window.stop)
        for last in range(first, min(first + max_tokens, window.stop))
    }
    if overlap == max_tokens:
        assert len(spans) == sum(min(max_tokens, len(scores) - first) for first in range(len(scores)))
    found = best_span(windows, parts, max_tokens=max_tokens)
    best = max(spans.values())
    assert math.isclose(spans[found.first, found.last], best, abs_tol=1e-9)
    assert math.isclose(found.probability, 1 / sum(math.exp(one - best) for one in spans.values()), rel_tol=1e-9)
