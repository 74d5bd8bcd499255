"""Wikitext to plain text, by regular expressions over the whole page.

The order of the steps is what matters: elements go before templates, since the braces of code are no templates;
templates before links, since a picture's caption may hold a template; and entities last, since escaped characters
count as text. Nested markup is resolved as `bertdata.nesting` tells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import unescape
from operator import ne
from unicodedata import normalize

from bertdata.characters import clean_characters, collapse_spaces
from bertdata.elements import drop_elements, drop_tags, restore_brackets
from bertdata.links import resolve_links, restore_bars
from bertdata.nesting import resolve_nested
from bertdata.templates import expand_template

__all__ = ["clean_wikitext"]


def clean_wikitext(text: str, *, media_names: Sequence[str] = ()) -> str:
    r"""Returns the prose of a page.

    Out go templates (but those that carry words), tables, references, comments, galleries, math, code, pictures with
    their captions, categories, magic words and headings. Link labels stay. A list item stays if it is a sentence,
    or several: it ends with terminal punctuation, or has a full stop inside; it has at least five words, not more than
    two thirds of them capitalized; and it does not look like an entry of a bibliography.

    Args:
        text: Wikitext, unescaped once, as an XML parser gives it.
        media_names: Names of the File and Category namespaces in the wiki's own language.

    Returns:
        Paragraphs in NFC, separated by "\n".
    """
    text = f"\n{text}\n"
    if "<" in text:
        text = drop_elements(text)
    text = _resolve_templates(text)
    if "__" in text:
        text = _MAGIC_WORD.sub("", text)
    text = _EXTERNAL_LINK_ITEM.sub("\n", text)
    text = resolve_links(text, media_names=tuple(media_names))
    if "<" in text:
        text = drop_tags(text)  # after the links, since a caption may hold a tag that begins a line
    text = _resolve_quotes(text)
    text = _HEADING.sub("\n\n", text)
    text = _TABLE_ROW.sub("", text)
    text = _LIST_ITEM.sub(_keep_sentence, text)
    if "&" in text:
        text = _unescape(_unescape(text.replace("&nbsp;", " ")))
    # A second time NFC: what was removed may have stood between a letter and its accent.
    return normalize("NFC", _tidy(clean_characters(restore_brackets(text))))


# ---- templates and tables --------------------------------------------------------------------------------------------

_TEMPLATE = re.compile(r"\{\{([^{}]*(?:(?:\{(?!\{)|\}(?!\}))[^{}]*)*)\}\}")
_PARAMETER = re.compile(r"\{\{\{[^{}]*\}\}\}")
_OPEN_TEMPLATE = re.compile(r"\{\{[^\n]*")
_TABLE = re.compile(r"\n[ \t:*#]*\{\|[^\n]*(?:\n(?![ \t:*#]*(?:\{\||\|\}))[^\n]*)*\n[ \t:*#]*\|\}")
_OPEN_TABLE = re.compile(r"\n[ \t:*#]*\{\|[^\n]*")
_VARIANT = re.compile(r"-\{([^{}\n]*)\}-")


def _resolve_templates(text: str) -> str:
    if "-{" in text:
        text = _VARIANT.sub(_choose_variant, text)
    # A substitution that finds nothing takes longer than a look: what is not there in the beginning never comes.
    has_parameters, has_tables = "{{{" in text, "{|" in text

    def resolve_innermost(text: str) -> str:
        if has_parameters:
            text = _PARAMETER.sub("", text)
        text = _TEMPLATE.sub(_expand_match, text)
        return _TABLE.sub("\n", text) if has_tables else text

    if has_tables or "{{" in text:
        text = resolve_nested(text, resolve_innermost)
        text = _OPEN_TEMPLATE.sub("", text)
        if has_tables:
            text = _OPEN_TABLE.sub("\n", text)
    return restore_bars(text).replace("}}", "")


def _expand_match(match: re.Match[str]) -> str:
    return expand_template(match[1])


def _choose_variant(match: re.Match[str]) -> str:
    """Returns the first of -{zh-hans:...; zh-hant:...}-, which Chinese and Serbian convert between."""
    flag, bar, rest = match[1].partition("|")
    if bar and flag.strip() not in ("A", "R", ""):
        return ""
    first = (rest if bar else flag).partition(";")[0]
    return first.rpartition(":")[2]


# ---- lines -----------------------------------------------------------------------------------------------------------

_MAGIC_WORD = re.compile(r"__[^\Wa-z_]+(?:_[^\Wa-z_]+)*__")
_QUOTES = re.compile("'''''|'''|''")
_POSSESSIVE = re.compile(r"'''s\b(?<=[^'\n]'''s)")
_ITALIC_POSSESSIVE = re.compile(r"(?<!')''([^'\n]+)'''s\b")
_HEADING = re.compile(r"\n=[^\n]*=[ \t]*(?=\n)|\n----+")
_TABLE_ROW = re.compile(r"\n[ \t]*[|!][^\n]*")
_LIST_ITEM = re.compile(r"\n[*#:;]+[ \t]*([^\n]*)")
_SENTENCE_ENDS = tuple(".!?…。！？।؟።")
_NO_SENTENCE_STARTS = ("–", "—", "-", ",", ";", ":", ". ")
_CLOSING_MARKS = "\"'”’»)]"
_INNER_SENTENCE_END = re.compile(r"\. (?<!\b\w\. )['\"“(]?[^\W\d_a-z]")  # not after an initial
# What entries of a bibliography have and sentences hardly ever: a book's number, pages, a publisher, authors and year
# before a title ("Cohen, J. (1988). Statistical"). Where more than half of the words are capitalized, less will do: a
# year after a comma or in brackets, a family name in front, a title in quotes, pages at the end.
_BOOK_NUMBERS = ("ISBN", "ISSN", "OCLC")
_PAGES = re.compile(r"pp\. ?\d")
_PUBLISHER = re.compile(r"University Press(?:[.)]|,? \(?\d)")
_AUTHORS_AND_YEAR = re.compile(
    r"(?:(?:[^\W\d_a-z][^\s()]*|&|and|et|al\.,?|eds?\.,?|de|der|van|von) +)+\(\d{4}[a-z]?\)[.,:] [\"“'A-Z]"
)
_CITATION_IN_CAPITALS = re.compile(
    r"[^\d,], \d{4}\b|[.:;] \d{4}[.,;)]|\(\d{4}[a-z]?\)[.:;]|^\W*[^\W\d]+, [A-Z]"
    r"|^[^.,\"“]{3,40}[,.] [\"“]|\d[-–]\d+\.?$"
)
_EXTERNAL_LINK_ITEM = re.compile(r"\n[*#:;]+[ \t'\"]*\[(?:https?:)?//[^\n]*")
_WORD = re.compile(r"[^\W\d_]+")


def _resolve_quotes(text: str) -> str:
    if _POSSESSIVE.search(text):
        text = _ITALIC_POSSESSIVE.sub(r"\1's", text)
    return _QUOTES.sub("", text)


def _keep_sentence(match: re.Match[str]) -> str:
    item = match[1].rstrip()
    ended = item.rstrip(_CLOSING_MARKS).endswith(_SENTENCE_ENDS)
    if not ended and not (". " in item and _INNER_SENTENCE_END.search(item)):
        return "\n"
    words = _WORD.findall(item)
    if len(words) < 5 and (len(item) < 10 or item.isascii() or "。" not in item):
        return "\n"
    in_capitals = sum(map(ne, words, map(str.lower, words))) / (len(words) or 1)
    if in_capitals > (0.67 if ended else 0.33) or item.startswith(_NO_SENTENCE_STARTS) or _is_citation(item):
        return "\n"
    if in_capitals > 0.5 and _CITATION_IN_CAPITALS.search(item):
        return "\n"
    return f"\n\n{item}\n\n"


def _is_citation(item: str) -> bool:
    return (
        any(number in item for number in _BOOK_NUMBERS)
        or _PAGES.search(item) is not None
        or _PUBLISHER.search(item) is not None
        or _AUTHORS_AND_YEAR.match(item) is not None
    )


# ---- what is left ----------------------------------------------------------------------------------------------------

# Unescaped twice, as &amp;nbsp; is found in dumps.
_ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,30}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")
_ELLIPSIS = ". . ."
# Brackets with nothing in them, or with what introduced a pronunciation: "(IPA: or )".
_EMPTY_BRACKETS = re.compile(r"\((?:[ ,;:،؛，；：、]|(?:or|and|IPA|pronounced|pronunciation)\b)*\)")
_BRACKET_START = re.compile(r"\([ ,;:،؛，；：、]+")
_WIDE_BRACKETS = re.compile(r"（[ ,;:，；：、]*）")
_WIDE_BRACKET_START = re.compile(r"（[ ,;:，；：、]+")
_WIDE_BRACKET_END = re.compile(r"[ ,;:，；：、]）")
_DOUBLED_COMMA = re.compile(r",(?=[,;)])")
_DOUBLED_SEMICOLON = re.compile(r";(?=[,;)])")
_SPACE_BEFORE: tuple[str, ...] = (" ,", " ;", " )")
_SPACE_BEFORE_POINT = (" . ", " .\n")
_SPACE_BEFORE_COLON = (" : ", " :\n")
_SOFT_BREAK = re.compile(r"\n(?<!\n\n)(?!\n)")
_BREAKS = re.compile(r"\n\n+")
# Short lines that are no sentence, mostly headings made of bold type; and lines without a letter.
_STUMP = re.compile(r"\n(?:[^\n]{1,24}(?<![.:!?…。！？।؟።\"'”’»)])|[^\s]{1,24}:|[^\w\n]+)(?=\n)")


def _unescape(text: str) -> str:
    return _ENTITY.sub(lambda match: _unescape_one(match[0]), text)


_unescape_one = lru_cache(maxsize=1024)(unescape)


def _tidy(text: str) -> str:
    """Mends what the removals left: empty brackets, spaces before punctuation, blank lines, stumps of lines."""
    text = _EMPTY_BRACKETS.sub("", text)
    text = _BRACKET_START.sub("(", text)
    if "（" in text:
        text = _WIDE_BRACKETS.sub("", text)
        text = _WIDE_BRACKET_START.sub("（", text)
        text = _WIDE_BRACKET_END.sub("）", text)
    text = collapse_spaces(text)
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    text = _SOFT_BREAK.sub(" ", text)
    spaces_before = _SPACE_BEFORE
    if " ." in text:
        text = text.replace(_ELLIPSIS, "...")
        spaces_before += _SPACE_BEFORE_POINT
    if " :" in text:
        spaces_before += _SPACE_BEFORE_COLON
    for space_before in spaces_before:
        text = text.replace(space_before, space_before[1:])
    text = _DOUBLED_COMMA.sub("", text)
    text = _DOUBLED_SEMICOLON.sub("", text)
    text = text.replace(":,", ":")
    text = _BREAKS.sub("\n", text)
    return _STUMP.sub("", f"\n{text.strip()}\n").strip()
