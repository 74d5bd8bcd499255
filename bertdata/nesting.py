"""Nested markup, resolved from the inside out.

Each regular expression matches only what has no opening of its own kind inside, and is applied until nothing changes,
a bounded number of times. So an expression never runs past the next opening: the time is linear in the page, and what
is left unclosed takes its line with it at most, not the rest of the page.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["resolve_nested"]

_MAX_DEPTH = 8  # of nested elements, templates, tables and links; what is deeper is cut out line by line


def resolve_nested(text: str, resolve_innermost: Callable[[str], str]) -> str:
    """Resolves markup level by level.

    Args:
        text: Wikitext.
        resolve_innermost: Resolves what has no markup of its own kind inside; it may give what is as long.

    Returns:
        The text after 8 levels, or earlier where a level changed nothing.
    """
    for _ in range(_MAX_DEPTH):
        before = text
        text = resolve_innermost(text)
        if text == before:
            break
    return text
