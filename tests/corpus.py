"""A corpus that needs no file: sentences of few words, drawn by the project's own hash, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from bertdata.seeds import below_int, hash64_int, stage_key

WORDS = [
    *("the", "a", "of", "and", "in", "on", "to", "by", "with", "from", "river", "town", "bridge", "miller", "baker"),
    *("fisher", "stone", "water", "bread", "wheel", "boat", "market", "old", "new", "small", "great", "green", "grey"),
    *("early", "late", "quiet", "busy", "walks", "carries", "builds", "sells", "finds", "keeps", "mends", "counts"),
    *("opens", "morning", "evening", "winter", "summer", "road", "field", "tower", "garden", "letter", "basket"),
    *("candle", "lantern", "window", "door", "table", "apple"),
]

_KEY = stage_key(0, "test corpus")


def _draw(bound: int, *numbers: int) -> int:
    return below_int(hash64_int(_KEY, *numbers), bound)


def sentence(document: int, number: int) -> str:
    """Returns a sentence of 3 to 22 words."""
    length = 3 + _draw(20, document, number, 0)
    words = [WORDS[_draw(len(WORDS), document, number, 1, place)] for place in range(length)]
    return " ".join(words).capitalize() + "."


def iter_texts(num_documents: int) -> Iterator[str]:
    """Yields documents of 2 to 30 sentences, a paragraph each five."""
    for document in range(num_documents):
        sentences = [sentence(document, number) for number in range(2 + _draw(29, document))]
        paragraphs = [" ".join(sentences[start : start + 5]) for start in range(0, len(sentences), 5)]
        yield "\n\n".join(paragraphs)


def article(title: str, text: str, *, namespace: int = 0, redirect: str | None = None) -> str:
    """Returns a page of a MediaWiki dump."""
    target = f'<redirect title="{escape(redirect)}" />' if redirect else ""
    return (
        f"<page><title>{escape(title)}</title><ns>{namespace}</ns><id>1</id>{target}<revision><id>1</id>"
        f'<model>wikitext</model><text xml:space="preserve">{escape(text)}</text></revision></page>\n'
    )
