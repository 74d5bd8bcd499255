"""What a MediaWiki dump says before its first page: its language and the names of its namespaces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

from bertdata.errors import InputError

__all__ = ["Header", "read_header"]

_ROOT = re.compile(rb"<mediawiki\b[^>]*>")
_LANGUAGE = re.compile(rb"""\bxml:lang\s*=\s*["']([^"']*)""")
_NAMESPACE = re.compile(rb"""<namespace\b[^>]*?\bkey\s*=\s*["'](-?\d{1,9})["'][^>]*>([^<]+)</namespace>""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a dump says before its first page.

    Attributes:
        has_root: Whether it opens with <mediawiki>, and so has to close it.
        language: The root's xml:lang, if any.
        namespaces: Its namespaces as (name, number), without the main one, which has no name.
    """

    has_root: bool = False
    language: str | None = None
    namespaces: tuple[tuple[str, int], ...] = ()


def read_header(path: str, head: bytes) -> Header:
    """Reads what stands before the first page.

    Args:
        path: The dump, for the message.
        head: Its first bytes.

    Raises:
        InputError: The dump has a DOCTYPE, which an export never has and which could define entities.
    """
    before_pages = head.partition(b"<page>")[0]
    if b"<!DOCTYPE" in before_pages or b"<!ENTITY" in before_pages:
        raise InputError(
            f"{path} has a DOCTYPE, which a MediaWiki export never has; it is not read, as it may hold anything"
        )
    root = _ROOT.search(before_pages)
    if not root:
        return Header()
    language = _LANGUAGE.search(root[0])
    return Header(
        has_root=True,
        language=language[1].decode("ascii", "replace") if language else None,
        namespaces=tuple(
            (unescape(name.decode("utf-8", "replace")).strip(), int(number))
            for number, name in _NAMESPACE.findall(before_pages)
        ),
    )
