"""Articles as long as Wikipedia's are, cut out of few long ones.

The articles at the head of a dump are the oldest and ten times as long as most; samples made of them are nearly all
full. English Wikipedia has about 660 words per article, and most have far fewer: words per article are drawn log-normal
here, so wide that 41 % of what Google's pairs make of them at 512 tokens is padding, and 37 % of what balanced pairs do:
less than the half that is published for the whole of Wikipedia.

Source: the mean, https://en.wikipedia.org/wiki/Wikipedia:Size_comparisons; the padding, Krell et al. 2021, "Efficient
Sequence Packing without Cross-contamination".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sentencex import segment

from tests.benchmarks.corpora import iter_prose
from tests.benchmarks.texts import write_documents

__all__ = ["write_articles"]

MEAN_WORDS = 660
SIGMA = 1.2  # of the natural logarithm


def write_articles(folder: Path) -> Path:
    """Writes documents of such lengths as JSONL, where they are not there yet, and returns the path."""
    path = folder / "articles.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_documents(list(_cut(iter_prose())), path)
    return path


def _cut(articles: Iterator[str]) -> Iterator[str]:
    """Yields whole sentences in a row, of the same article, until there are as many words as were drawn."""
    rng = np.random.default_rng(0)
    for article in articles:
        lines: list[str] = []
        left = _draw(rng)
        for line in article.splitlines():
            kept: list[str] = []
            for sentence in segment("en", line):
                kept.append(sentence)
                left -= len(sentence.split())
                if left <= 0:
                    yield "\n".join([*lines, "".join(kept)])
                    lines, kept, left = [], [], _draw(rng)
            lines.append("".join(kept))
        if any(lines):
            yield "\n".join(lines)


def _draw(rng: np.random.Generator) -> float:
    return float(rng.lognormal(np.log(MEAN_WORDS) - SIGMA**2 / 2, SIGMA))
