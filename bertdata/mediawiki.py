"""MediaWiki XML export (versions 0.3 to 0.11): from the bytes of a dump to the wikitext of its articles.

A dump is not parsed as one document: `<page>` ... `</page>` are found as bytes, so that reading can start anywhere,
and each page is parsed by itself. Wikitext is escaped in a dump, so those bytes mean nothing else. A page by itself
has no DOCTYPE and can define no entities; a dump that has one is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from xml.etree import ElementTree

from bertdata.decompress import Chunk
from bertdata.dump_header import BESIDE_PAGES
from bertdata.errors import InputError
from bertdata.marks import PAGE, PAGE_END
from bertdata.splits import Split

__all__ = ["Article", "iter_articles", "iter_pages"]

_ROOT_END = b"</mediawiki>"
_SPACES = re.compile(rb"\s*")
_TAIL_BYTES = 4096  # kept of what has no page in it, to see the closing tag

# `#REDIRECT [[target]]`, in any language; a numbered list has a space after its mark.
_REDIRECT = re.compile(r"\s*#[^\W\d]+ ?:?\s*\[\[")

# For a page without <ns> (before version 0.6) in a dump without <namespaces>.
_ENGLISH_NAMESPACES = (
    *(
        ("Media", -2),
        ("Special", -1),
        ("Talk", 1),
        ("User", 2),
        ("User talk", 3),
        ("Wikipedia", 4),
        ("Wikipedia talk", 5),
    ),
    *(("Image", 6), ("Image talk", 7), ("File", 6), ("File talk", 7), ("MediaWiki", 8), ("MediaWiki talk", 9)),
    *(
        ("Template", 10),
        ("Template talk", 11),
        ("Help", 12),
        ("Help talk", 13),
        ("Category", 14),
        ("Category talk", 15),
    ),
    *(("Portal", 100), ("Portal talk", 101)),
)


class Article(NamedTuple):
    """A page of a wiki; its text is None where it is too large to be read."""

    title: str
    text: str | None


class _Window:
    """The part of a dump that is held in memory, sliding over its chunks."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = iter(chunks)
        self._owned_bytes = 0  # at the front of data: where a page of this split may begin
        self._last_owned = True
        self.data = bytearray()
        self.offset = 0  # of data in the decompressed bytes
        self.position = 0  # in the file as stored, up to which it was read

    def _extend(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self.data += chunk.data
        self.position = chunk.position
        self._last_owned = chunk.owned
        if chunk.owned:
            self._owned_bytes = len(self.data)
        return True

    def _drop(self, num_bytes: int) -> None:
        del self.data[:num_bytes]
        self._owned_bytes = max(0, self._owned_bytes - num_bytes)
        self.offset += num_bytes

    def skip_to(self, tag: bytes) -> tuple[bool, bool]:
        """Drops what stands before the next `tag`; returns (whether one begins in the split, whether the file ends)."""
        while (found := self.data.find(tag)) < 0:
            if not self._last_owned and len(self.data) - len(tag) + 1 >= self._owned_bytes:
                return False, False
            self._drop(max(0, len(self.data) - _TAIL_BYTES))
            if not self._extend():
                return False, True
        if found >= self._owned_bytes:
            return False, False
        self._drop(found)
        return True, False

    def starts_with(self, tags: tuple[bytes, ...]) -> bool:
        """Returns whether one of `tags`, or nothing at all, follows after white space, which is dropped."""
        longest = max(map(len, tags))
        while True:
            self._drop(_count_spaces(self.data))
            if len(self.data) >= longest or not self._extend():
                return not self.data or self.data.startswith(tags)

    def take_through(self, tag: bytes, *, max_bytes: int) -> tuple[bytes, bool] | None:
        """Removes what ends with the next `tag`; returns (its bytes up to `max_bytes`, whether these are all)."""
        searched = 0
        head: bytes | None = None
        while (found := self.data.find(tag, searched)) < 0:
            searched = max(0, len(self.data) - len(tag) + 1)
            if len(self.data) > max_bytes:
                head = head or bytes(self.data[:max_bytes])
                self._drop(searched)
                searched = 0
            if not self._extend():
                return None
        end = found + len(tag)
        taken = bytes(self.data[: min(end, max_bytes)]) if head is None else head
        complete = head is None and end <= max_bytes
        self._drop(end)
        return taken, complete


def _count_spaces(data: bytearray) -> int:
    """Returns how much white space stands in front. The match must not live on: data cannot be cut while it does."""
    spaces = _SPACES.match(data)
    return spaces.end() if spaces is not None else 0


def iter_articles(
    split: Split, chunks: Iterable[Chunk], *, max_page_bytes: int, counts: Counter[str]
) -> Iterator[Article]:
    """Yields the articles whose `<page>` begins in the split, and counts all pages.

    Args:
        split: Part of a dump.
        chunks: Its bytes, and what follows.
        max_page_bytes: A longer page is not parsed; it comes without text.
        counts: Gets pages = articles + redirects + other_namespaces + other_models.

    Raises:
        InputError: The dump ends inside a page or before its closing tag, or a page is not well-formed XML.
    """
    for kind, article in iter_pages(split, chunks, max_page_bytes=max_page_bytes):
        counts["pages"] += 1
        counts[kind] += 1
        if kind == "articles":
            yield article


def iter_pages(split: Split, chunks: Iterable[Chunk], *, max_page_bytes: int) -> Iterator[tuple[str, Article]]:
    """Yields all pages that begin in a split with their kind: articles, redirects, other_namespaces or other_models.

    Args and errors are those of `iter_articles`.
    """
    window = _Window(chunks)
    numbers = {name.casefold(): number for name, number in split.namespaces or _ENGLISH_NAMESPACES}
    remedy = "fetch the dump again, or leave it out of the input"
    ended = False
    while not ended:
        found, ended = window.skip_to(PAGE)
        if not found:
            break
        where = f"{split.path}: the <page> at byte {split.start + window.offset:,}"
        if split.compression != "none":
            where = f"{split.path}: a <page> before byte {window.position:,} of the compressed file"
        taken = window.take_through(PAGE_END, max_bytes=max_page_bytes)
        if taken is None:
            raise InputError(f"{where} has no end: the dump is cut off; {remedy}")
        data, complete = taken
        if not complete:
            data = data.partition(b"<revision>")[0] + PAGE_END
        try:
            page = ElementTree.fromstring(data)
        except ElementTree.ParseError as error:
            raise InputError(f"{where} is not well-formed XML ({error}); {remedy}") from error
        kind, article = _classify(page, numbers)
        yield kind, article if complete else Article(article.title, None)
        # Else a damaged tag would take its page away in silence. The end of the file is checked below.
        if not window.starts_with((PAGE, *BESIDE_PAGES)):
            raise InputError(
                f"{where} is followed by {bytes(window.data[:20])!r} instead of a <page>: the dump is damaged; {remedy}"
            )
    # A split of a few bytes may begin inside the closing tag.
    whole_tag_read = split.start == 0 or window.offset + len(window.data) >= _TAIL_BYTES
    if ended and split.closing_tag and whole_tag_read and _ROOT_END not in window.data:
        raise InputError(
            f"{split.path} ends at byte {window.position:,} without </mediawiki>: the dump is cut off; {remedy}"
        )


def _classify(page: ElementTree.Element, numbers: dict[str, int]) -> tuple[str, Article]:
    title = page.findtext("title", "")
    namespace = page.findtext("ns")
    if namespace is None:
        prefix, colon, _ = title.partition(":")
        namespace = str(numbers.get(prefix.replace("_", " ").casefold(), 0)) if colon else "0"
    revisions = page.findall("revision")
    text = (revisions[-1].findtext("text") or "") if revisions else ""
    article = Article(title, text)
    if namespace.strip() != "0":
        return "other_namespaces", article
    if page.find("redirect") is not None or _REDIRECT.match(text):
        return "redirects", article
    if revisions and revisions[-1].findtext("model", "wikitext") != "wikitext":
        return "other_models", article
    return "articles", article
