"""What the page that follows a document shows of its text: which sample, which excerpts, which sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bertdata.errors import ConfigError
from bertdata.walk import Walk, WalkedSample

__all__ = [
    "Excerpt",
    "SentenceRow",
    "choose_sample",
    "excerpt_of_source",
    "excerpt_of_text",
    "is_wikitext",
    "sentence_rows",
]

_EASY_TOKENS = 64  # more are hard to take in at a glance
_FEW_PREDICTIONS = 3
_EXCERPT_CHARS = 1400
_CHARS_BEFORE = 250
_MAX_ROWS = 16
_MARGIN = 2000  # of source around an excerpt in which markup is looked for, since it may begin or end outside
_MARKUP = re.compile(
    r"""
    \{\{ (?: [^{}] | \{\{[^{}]*\}\} )* \}\}            # templates, with others inside
    | \{\| .*? \n\|\}                                  # tables
    | \[\[ (?:File|Image): (?: [^\[\]] | \[\[[^\[\]]*\]\] )* \]\]
    | \[\[ (?: [^\[\]|]* \| )? | \]\]                  # links, but for their words
    | <ref .*? (?: </ref> | /> ) | <!-- .*? --> | <[^<>]*>
    | '{2,} | ={2,}
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """A part of a text.

    Attributes:
        parts: Its text in parts, each with what it is: "A", "B" or "AB" for segments, "markup", or "" for none.
        before: Characters of the whole that come before it.
        after: Characters that come after it.
    """

    parts: tuple[tuple[str, str], ...]
    before: int
    after: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SentenceRow:
    """A sentence as the page lists it.

    Attributes:
        number: Its number in the document, from 1 on.
        text: Its text.
        num_tokens: Its tokens.
        segment: "A", "B", "AB" where it is cut between the two, or "" for neither.
        note: Why it was dropped, or in how many pieces it was cut; empty where neither is so.
    """

    number: int
    text: str
    num_tokens: int
    segment: str
    note: str


def choose_sample(walk: Walk, number: int | None = None) -> int:
    """Returns the place among a walk's samples of the one to follow.

    Args:
        walk: The walk of a document with at least one sample.
        number: The sample that was asked for, from 1 on; None for one that is easy to follow: of two segments, short,
            with several predictions, not cut, both of the document, and near its beginning.

    Raises:
        ConfigError: There is no sample of that number.
    """
    total = len(walk.samples)
    if number is not None and not 1 <= number <= total:
        raise ConfigError(f"--sample is {number:,}; the document has the samples 1 to {total:,}")
    if number is not None:
        return number - 1
    return min(range(total), key=lambda place: _difficulty(walk, walk.samples[place]))


def _difficulty(walk: Walk, sample: WalkedSample) -> float:
    """Returns how hard a sample is to follow; about as much as being so many hundred tokens into the document."""
    content, alignment = sample.found.content, sample.alignment
    segments = [segment for segment in (alignment.a, alignment.b) if segment is not None]
    is_cut = any(segment.front_cut + segment.back_cut for segment in segments)
    in_parts = any("." in walk.sentence_names[end] for segment in segments for end in (segment.first, segment.last))
    return (
        100 * (1 not in content.segment_ids)
        + 50 * (len(content.mask_sets[0][0]) < _FEW_PREDICTIONS)
        + max(0, len(content.tokens) - _EASY_TOKENS) / 4
        + 8 * is_cut
        + 8 * in_parts
        + 8 * (alignment.b is None)
        + alignment.a.start / 100
    )


def _segments_by_sentence(walk: Walk, sample: WalkedSample) -> dict[int, str]:
    """Returns which sentences of the document a sample holds, by their numbers: in "A", "B" or, in parts, "AB"."""
    found: dict[int, str] = {}
    for name, segment in (("A", sample.alignment.a), ("B", sample.alignment.b)):
        pieces = range(segment.first, segment.last + 1) if segment is not None else ()
        for number in dict.fromkeys(int(walk.sentence_names[piece].partition(".")[0]) for piece in pieces):
            found[number] = "".join(sorted(found.get(number, "") + name))
    return found


def sentence_rows(walk: Walk, sample: WalkedSample) -> list[SentenceRow]:
    """Returns the sentences that a sample is made of, and some around them."""
    segments = _segments_by_sentence(walk, sample)
    first = max(0, min(segments) - 3)
    chosen = walk.sentences[first : max(max(segments) + 2, first + 6)][:_MAX_ROWS]
    return [
        SentenceRow(
            number=sentence.number,
            text=sentence.text,
            num_tokens=len(sentence.tokens),
            segment=segments.get(sentence.number, ""),
            note=sentence.dropped or (f"cut into {len(sentence.pieces)}" if len(sentence.pieces) > 1 else ""),
        )
        for sentence in chosen
    ]


def excerpt_of_text(walk: Walk, sample: WalkedSample) -> Excerpt:
    """Returns the part of a document's plain text that a sample is made of, with its segments marked."""
    assert walk.record.document is not None
    text = walk.record.document.text
    spans = list(_spans(text, walk, _segments_by_sentence(walk, sample)))
    start = _begin(text, spans[0][0] if spans else 0)
    stop = _end(text, start)
    parts, place = [], start
    for begin, end, name in spans:
        if begin >= stop:
            break
        parts += [(text[place:begin], ""), (text[begin : min(end, stop)], name)]
        place = min(end, stop)
    parts.append((text[place:stop], ""))
    return Excerpt(parts=tuple(part for part in parts if part[0]), before=start, after=len(text) - stop)


def _spans(text: str, walk: Walk, segments: dict[int, str]) -> Iterator[tuple[int, int, str]]:
    """Yields where the sentences of the sample stand in the text; those that are not found as they are, are left out.

    Neighbouring ones of a segment are one span.
    """
    place = 0
    last: tuple[int, int, str] | None = None
    for sentence in walk.sentences:
        begin = text.find(sentence.text, place)
        if begin < 0:
            continue
        place = begin + len(sentence.text)
        name = segments.get(sentence.number, "")
        if not name:
            continue
        if last is not None and last[2] == name and not text[last[1] : begin].strip():
            last = (last[0], place, name)
            continue
        if last is not None:
            yield last
        last = (begin, place, name)
    if last is not None:
        yield last


def is_wikitext(walk: Walk) -> bool:
    """Returns whether a document's source has links as wikis write them."""
    return walk.record.raw is not None and "[[" in walk.record.raw


def excerpt_of_source(walk: Walk, sample: WalkedSample) -> Excerpt:
    """Returns the part of a document's source in which the first words of a sample stand, as far as they are found."""
    source = walk.record.raw or ""
    numbers = _segments_by_sentence(walk, sample)
    words = walk.sentences[min(numbers) - 1].text.split()
    start = _begin(source, _find_words(source, words))
    stop = _end(source, start)
    parts = tuple(_marked(source, start, stop)) if is_wikitext(walk) else ((source[start:stop], ""),)
    return Excerpt(parts=parts, before=start, after=len(source) - stop)


def _marked(source: str, start: int, stop: int) -> Iterator[tuple[str, str]]:
    """Yields a stretch of a source in parts, the most frequent kinds of wiki markup among them."""
    place = start
    for match in _MARKUP.finditer(source, max(0, start - _MARGIN), stop + _MARGIN):
        begin, end = max(match.start(), start), min(match.end(), stop)
        if begin >= end:
            continue
        if begin > place:
            yield source[place:begin], ""
        yield source[begin:end], "markup"
        place = end
    if place < stop:
        yield source[place:stop], ""


def _find_words(source: str, words: Sequence[str]) -> int:
    """Returns where the longest beginning of a run of words stands that is found in a source as it is; else 0.

    Markup stands between words, so fewer and fewer of them are looked for, from one place of the run after the other.
    """
    for size in (8, 6, 4, 3):
        for first in range(max(1, min(len(words), 12) - size + 1)):
            place = source.find(" ".join(words[first : first + size]))
            if place >= 0 and len(words) >= size:
                return place
    return 0


def _end(text: str, start: int) -> int:
    """Returns where an excerpt ends, between words where there are any."""
    stop = start + _EXCERPT_CHARS
    if stop >= len(text):
        return len(text)
    gap = max(text.rfind(" ", start, stop), text.rfind("\n", start, stop))
    return gap if gap > start else stop


def _begin(text: str, place: int) -> int:
    """Returns where an excerpt begins that shows a place: with the text where that is near or all fits, or a line."""
    if place <= _CHARS_BEFORE or len(text) <= _EXCERPT_CHARS:
        return 0
    line = text.rfind("\n", 0, place) + 1
    return line if place - line <= _CHARS_BEFORE else text.rfind(" ", 0, place - _CHARS_BEFORE // 2) + 1
