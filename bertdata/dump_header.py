"""What a MediaWiki dump says before its first page: its language and the names of its namespaces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from bertdata.errors import InputError
from bertdata.marks import PAGE

__all__ = ["BESIDE_PAGES", "Header", "read_header"]

_ROOT = re.compile(rb"<mediawiki\b[^>]*>")
_LANGUAGE = re.compile(rb"""\bxml:lang\s*=\s*["']([^"']*)""")
_SITEINFO, _SITEINFO_END = b"<siteinfo", b"</siteinfo>"
BESIDE_PAGES = (b"</mediawiki>", b"<logitem>", b"<!--")  # what may stand where a page could
_NAMESPACE_NUMBER = re.compile(r"-?\d{1,9}")


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
        InputError: It is damaged; or has a DOCTYPE, which an export never has and which could define entities.
    """
    before_pages = head.partition(PAGE)[0]
    if b"<!DOCTYPE" in before_pages or b"<!ENTITY" in before_pages:
        raise InputError(
            f"{path} has a DOCTYPE, which a MediaWiki export never has; it is not read, as it may hold anything"
        )
    root = _ROOT.search(before_pages)
    if not root:
        if PAGE not in head:
            raise InputError(f"{path} has neither <mediawiki> nor <page>: it is no MediaWiki dump, or damaged")
        return Header()
    siteinfo, end, rest = before_pages[root.end() :].partition(_SITEINFO_END)
    if _SITEINFO not in siteinfo:
        siteinfo, end, rest = b"", b"", before_pages[root.end() :]
    rest = rest.strip()
    try:
        info = ElementTree.fromstring(siteinfo + end) if siteinfo else None
    except ElementTree.ParseError as error:
        raise InputError(
            f"{path}: the <siteinfo> before its first page is damaged ({error}); fetch it again"
        ) from error
    if rest and not rest.startswith(BESIDE_PAGES):
        raise InputError(
            f"{path}: {rest[:20]!r} stands before its first <page>: the dump is damaged; fetch it again, or leave it "
            "out of the input"
        )
    language = _LANGUAGE.search(root[0])
    return Header(
        has_root=True,
        language=language[1].decode("ascii", "replace") if language else None,
        namespaces=tuple(
            (name.strip(), int(number))
            for element in (info.iter("namespace") if info is not None else ())
            if (name := element.text) and _NAMESPACE_NUMBER.fullmatch(number := element.get("key", ""))
        ),
    )
