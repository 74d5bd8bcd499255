"""The prose of a page by mwparserfromhell's syntax tree: the oracle that the expressions of bertdata are held against.

What no reader takes for prose goes by rules of its own, on the tree, none of them those of bertdata: tables, pictures,
categories, references, headings, templates, sections that list works or links, and list items that are no sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import mwparserfromhell
from mwparserfromhell.nodes import Comment, Heading, Tag, Template, Wikilink
from mwparserfromhell.wikicode import Wikicode

__all__ = ["count_in_order", "oracle_words", "words_of"]

_GONE_TAGS = {"table", "ref", "references", "gallery", "math", "chem", "timeline", "syntaxhighlight", "source", "pre"}
_GONE_TAGS |= {"score", "imagemap", "code", "hiero", "graph", "templatestyles"}
_LIST_TAGS = {"li", "dd", "dt"}
_GONE_LINKS = ("file:", "image:", "category:")
_LIST_SECTION = re.compile(
    r"^ *see also|\b(?:references?|notes?|footnotes|citations|sources|bibliography|reading|external links"
    r"|works cited)\b *$|^ *(?:(?:selected )?works|videos?|publications) *$",
    re.IGNORECASE,
)
# What the parser gives as text where quotes or tags inside do not balance; nobody would read it as prose either.
_NOT_PARSED = re.compile(
    r"<ref\b[^>]*>(?:(?!\n\n).)*?</ref>|\{\|(?:(?!\n=).)*?\n\|\}|\[\[File:[^\n]*|</?blockquote>|__TOC__",
    re.DOTALL | re.IGNORECASE,
)
_HEADING = re.compile(r"(={1,6})([^=].*?)\1 *")
_ITEM = "\ue000"  # stands for the bullet of a list item
_SENTENCE_END = re.compile(r"(?:(?<!\b\w)\.|[!?])[\"')\]”’]*\s*$")
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """Returns the words of a text, in order."""
    return _WORD.findall(text)


def oracle_words(wikitext: str) -> list[str]:
    """Returns the words of a page's prose, in order."""
    text = _NOT_PARSED.sub("", "".join(_iter_text(mwparserfromhell.parse(wikitext))))
    return words_of("\n".join(_iter_prose(text.split("\n"))))


def _iter_text(code: Wikicode) -> Iterator[str]:
    """Yields the text of the tree, with headings as they stand, and list items behind a bullet."""
    for node in code.nodes:
        if isinstance(node, (Comment, Template)):
            continue
        if isinstance(node, Heading):
            yield str(node)
        elif isinstance(node, Wikilink):
            if not str(node.title).strip().lower().startswith(_GONE_LINKS):
                yield from _iter_text(node.title if node.text is None else node.text)
        elif isinstance(node, Tag):
            name = str(node.tag).strip().lower()
            if name in _LIST_TAGS and node.wiki_markup:
                yield _ITEM
            elif name not in _GONE_TAGS and node.contents is not None:
                yield from _iter_text(node.contents)
        else:
            yield node.__strip__(normalize=True, collapse=False) or ""


def _iter_prose(lines: Iterable[str]) -> Iterator[str]:
    """Yields the lines that are neither headings, nor in a section of lists, nor list items that are no sentence."""
    skipped_level: int | None = None  # of the heading of the section of lists that a line stands in
    for line in lines:
        heading = _HEADING.fullmatch(line)
        if heading is not None:
            if skipped_level is None or len(heading[1]) <= skipped_level:
                skipped_level = len(heading[1]) if _LIST_SECTION.search(heading[2]) else None
        elif skipped_level is None and (not line.startswith(_ITEM) or _is_sentence(line)):
            yield line


def _is_sentence(item: str) -> bool:
    # "W.A.S.P." ends with a point, but no sentence with it.
    return bool(_SENTENCE_END.search(item)) and len(words_of(item)) >= 5


def count_in_order(wanted: Sequence[str], given: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence (Myers 1986: fast where the two differ little)."""
    num_wanted, num_given = len(wanted), len(given)
    furthest = {1: 0}
    for num_edits in range(num_wanted + num_given + 1):
        for diagonal in range(-num_edits, num_edits + 1, 2):
            below, above = furthest.get(diagonal + 1, -1), furthest.get(diagonal - 1, -1)
            x = below if diagonal == -num_edits or (diagonal != num_edits and above < below) else above + 1
            y = x - diagonal
            while x < num_wanted and y < num_given and wanted[x] == given[y]:
                x, y = x + 1, y + 1
            furthest[diagonal] = x
            if x >= num_wanted and y >= num_given:
                return (num_wanted + num_given - num_edits) // 2
    raise AssertionError("two sequences always have a path between them")
