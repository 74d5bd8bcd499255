"""The answer to a question as a span of its context, which may be longer than a model can read at once.

    context      c0 c1 c2 c3 c4 c5 c6 c7 c8 c9
    windows      c0 c1 c2 c3 c4 c5                  question and window are read together
                             c4 c5 c6 c7 c8 c9
    starts       0  0  0  0  0  1  1  1  1  1       the window whose spans may begin at a token

A span counts in one window, and each that is not too long in one that holds all of it. Its score is that of its first
token as a start and of its last as an end; its probability is the softmax of these scores over all spans of all windows
that are not too long. So the probabilities of all answers sum up to 1, which those of starts and ends, multiplied, do
not.

Source: overlapping windows and a longest answer, as in the published BERT's run_squad.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Span", "Window", "best_span", "make_windows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A part of a context, by its tokens.

    Attributes:
        start: The first.
        stop: The one after the last.
        first: The first at which an answer may begin that counts here.
        end: The one after the last of these.
    """

    start: int
    stop: int
    first: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """An answer.

    Attributes:
        first: Its first token in the context.
        last: Its last token.
        probability: Among all spans.
    """

    first: int
    last: int
    probability: float


def make_windows(num_tokens: int, *, room: int, overlap: int, max_answer_tokens: int) -> list[Window]:
    """Returns windows that cover a context.

    Args:
        num_tokens: Tokens of the context.
        room: Tokens of a window at most.
        overlap: Tokens that a window has in common with the one before; fewer than `room`.
        max_answer_tokens: Tokens of an answer at most. Where they are more than the overlap, there are answers that
            lie in no window.
    """
    starts = [0]
    while starts[-1] + room < num_tokens:
        starts.append(starts[-1] + room - overlap)
    # What begins in the first half of an overlap is the window before's, which shows more of what comes before it; but
    # only as far as the longest answer still ends there.
    lead = max(0, min(overlap // 2, overlap - max_answer_tokens))
    firsts = [0, *(start + lead for start in starts[1:]), num_tokens]
    return [
        Window(start=start, stop=min(start + room, num_tokens), first=first, end=end)
        for start, (first, end) in zip(starts, pairwise(firsts), strict=True)
    ]


def best_span(windows: Sequence[Window], scores: Sequence[Tensor], *, max_tokens: int) -> Span:
    """Returns the most probable span.

    Args:
        windows: The windows of a context.
        scores: For each float [tokens, 2], of each of its tokens as a start and as an end.
        max_tokens: Tokens of an answer at most.
    """
    found = []
    for window, scores_T2 in zip(windows, scores, strict=True):
        starts, ends = scores_T2.double().unbind(1)
        padded = torch.cat([ends, ends.new_full((max_tokens - 1,), float("-inf"))])
        spans = starts[:, None] + padded.unfold(0, max_tokens, 1)  # [tokens, max_tokens]
        found.append(spans[window.first - window.start : window.end - window.start])
    total = torch.logsumexp(torch.cat(found).flatten(), 0)
    number = max(range(len(found)), key=lambda one: float(found[one].max()))
    place = int(found[number].argmax())
    first = windows[number].first + place // max_tokens
    probability = float(torch.exp(found[number].max() - total))
    return Span(first=first, last=first + place % max_tokens, probability=probability)
