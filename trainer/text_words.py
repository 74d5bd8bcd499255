"""The words of a text, for tags."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["find_words"]

_IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_IDEOGRAPH}]|[^\\s{_IDEOGRAPH}]+")


def find_words(text: str) -> list[tuple[int, int]]:
    r"""Returns where the words of a text begin and end.

    A word is what stands between white space, without the punctuation at its ends, each mark of which is a word of its
    own; so is an ideograph.

    >>> text = '"We\'re in St. Ives!"'
    >>> [text[start:stop] for start, stop in find_words(text)]
    ['"', "We're", 'in', 'St', '.', 'Ives', '!', '"']
    """
    words = []
    for found in _WORD.finditer(text):
        start, stop = found.span()
        while start < stop and _is_mark(text[start]):
            words.append((start, start + 1))
            start += 1
        after = []
        while start < stop and _is_mark(text[stop - 1]):
            after.append((stop - 1, stop))
            stop -= 1
        words += ([(start, stop)] if start < stop else []) + after[::-1]
    return words


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("P")
