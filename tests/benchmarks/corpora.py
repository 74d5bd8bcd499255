"""Dumps of any size out of few real pages: the same mix of pages at each size, no article twice.

Articles are cut at their headings into pages of the usual length. In every few words of a page's running text one is a
*slot*; each copy of the page fills its slots with other words out of the same slots of all pages, so that words keep
their frequencies, and every 16th slot with a word that was never there before, so that new words never end, as in real
text.

    page   ... that advocates [    ] societies based on [     ] institutions. These are often [     ] as ...
    copy 0                     zamoriku                  public                              seen
    copy 1                     belatodu                  great                               given
"""

from __future__ import annotations

import bz2
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import numpy as np

from bertdata.wikitext import clean_wikitext
from tests.benchmarks.texts import BOOKS
from tests.corpus import article, iter_texts

__all__ = ["PageMill", "iter_prose", "write_dump", "write_dump_with_long_article", "write_packed_dump", "write_prose"]

DUMP = BOOKS.with_name("enwiki-106-articles.xml.bz2")
PAGE_BYTES = 6000  # of wikitext at least, where a long article is cut
NEW_WORD_EVERY = 16  # slots; about one word in a hundred is new
_POOL_WORDS = 1 << 18
_POOL_STEP = 0x9E37  # any odd number: words in a row in the pool go to another page each time
_WRITE_PAGES = 100
_MULTIPLIER = 0x9E3779B1  # odd, so that numbers of new words stay distinct
_PIECES = [b"".join(pair) for pair in itertools.product([c + v for c in (b"b", b"d", b"k", b"l", b"m", b"r", b"t", b"z")
                                                         for v in (b"a", b"e", b"i", b"o", b"u", b"ai", b"ei", b"ou")],
                                                        repeat=2)]  # fmt: skip

# A word of running text: no name, no link, no part of a template's name or of a tag.
_SLOT = re.compile(rb"(?<=[a-z,] )(?<!\{\{cite )[a-z]{4,}(?= [a-z]+[ ,.])")
_PAGE = re.compile(rb"<page>.*?</page>\n?", re.DOTALL)
_TEXT = re.compile(rb"(<text[^>]*>)(.*?)(</text>)", re.DOTALL)
_MARKS = re.compile(rb"(<title>)(.*?)(</title>)|(<id>)(\d+)(</id>)", re.DOTALL)
_HEADING = re.compile(rb"\n(?===[^=])")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Template:
    """A page with slots: fixed bytes, N + 1 of them, around N slots, of which the first two are title and id."""

    fixed: tuple[bytes, ...]


class PageMill:
    """Makes pages without end out of real ones.

    Args:
        dump: A dump in bz2 with the real ones; where it is not there, they are made up.
    """

    def __init__(self, dump: Path = DUMP) -> None:
        self.header, pages = _load_pages(dump)
        cut = [piece for page in pages for piece in _cut_page(page)]
        words: list[bytes] = []
        self._templates = [_make_template(page, words) for page in cut]
        order = np.random.default_rng(0).integers(0, len(words), _POOL_WORDS)
        pool = [words[number] for number in order.tolist()]
        longest = max(len(template.fixed) for template in self._templates)
        self._pool = pool + pool[:longest]
        self._templates = [template for number, template in enumerate(self._templates) if self._varies(number)]

    def _varies(self, number: int) -> bool:
        """Returns whether copies of a page have other prose each, or none; a list of links would be dropped as a copy."""
        one, other = (_prose(self.page(number + copy * len(self._templates))) for copy in (0, 1))
        return one != other or not one

    def page(self, number: int) -> bytes:
        """Returns a page; its article is another one for each number."""
        fixed = self._templates[number % len(self._templates)].fixed
        num_slots = len(fixed) - 1
        start = number * _POOL_STEP % _POOL_WORDS
        words = self._pool[start : start + num_slots]
        first = number << 10
        for place in range(2, num_slots, NEW_WORD_EVERY):
            words[place] = _new_word(first + place)
        words[0], words[1] = b"Page %d" % number, b"%d" % (number + 1)
        parts: list[bytes] = [b""] * (2 * num_slots + 1)
        parts[0::2] = fixed
        parts[1::2] = words
        return b"".join(parts)

    def long_article(self, num_bytes: int) -> bytes:
        """Returns one page of `num_bytes` of prose, about."""
        parts: list[str] = []
        size = 0
        for number in itertools.count():
            if size >= num_bytes:
                return article("A long article", "\n\n".join(parts)).encode()
            parts.append(_prose(self.page(number)))
            size += len(parts[-1].encode()) + 2
        raise AssertionError

    def iter_dump(self, num_bytes: int, *, inserted: bytes = b"") -> Iterator[bytes]:
        """Yields the pieces of a dump of `num_bytes`, about; `inserted` is put in the middle of it, on top."""
        yield self.header
        size = number = 0
        while size < num_bytes:
            piece = b"".join(map(self.page, range(number, number + _WRITE_PAGES)))
            piece = _cut_at_page(piece, num_bytes - size)
            if inserted and size >= num_bytes // 2:
                yield inserted
                inserted = b""
            yield piece
            size += len(piece)
            number += _WRITE_PAGES
        yield inserted + b"</mediawiki>\n"


def _cut_at_page(pages: bytes, num_bytes: int) -> bytes:
    """Returns whole pages of at least `num_bytes`, or all."""
    end = pages.find(b"<page>", num_bytes) if num_bytes < len(pages) else -1
    return pages if end < 0 else pages[:end]


def _new_word(number: int) -> bytes:
    mixed = number * _MULTIPLIER & 0xFFFFFFFFF
    return b"".join((_PIECES[mixed >> 24], _PIECES[mixed >> 12 & 0xFFF], _PIECES[mixed & 0xFFF]))


def _load_pages(dump: Path) -> tuple[bytes, list[bytes]]:
    """Returns the head of a dump and its pages."""
    if dump.exists():
        data = bz2.decompress(dump.read_bytes())
        return data[: data.index(b"<page>")], _PAGE.findall(data)
    pages = [article(f"Page {number}", text).encode() for number, text in enumerate(iter_texts(300))]
    return b'<mediawiki version="0.11" xml:lang="en">\n', pages


def _cut_page(page: bytes) -> Iterator[bytes]:
    """Yields a page's sections, some together, each as a page with the head of the whole."""
    found = _TEXT.search(page)
    assert found is not None
    head, tail = page[: found.end(1)], page[found.start(3) :]
    kept: list[bytes] = []
    for section in _HEADING.split(found[2]):
        kept.append(section)
        text = b"\n".join(kept)
        if len(text) >= PAGE_BYTES:
            yield head + text + tail
            kept = []
    if kept:
        yield head + b"\n".join(kept) + tail


def _prose(page: bytes) -> str:
    found = _TEXT.search(page)
    assert found is not None
    wikitext = unescape(found[2].decode())
    return "" if wikitext.startswith("#") else clean_wikitext(wikitext)  # a redirect has none


def iter_prose() -> Iterator[str]:
    """Yields the prose of each of the real articles, or of made-up ones where there are none."""
    return filter(None, map(_prose, _load_pages(DUMP)[1]))


def _make_template(page: bytes, words: list[bytes]) -> _Template:
    """Returns a page as a template, and adds the words that it has in its slots to `words`."""
    fixed, position = [], 0
    for found in itertools.islice(_MARKS.finditer(page), 2):
        group = 2 if found[2] is not None else 5
        fixed.append(page[position : found.start(group)])
        position = found.end(group)
    text = _TEXT.search(page)
    assert text is not None
    for found in _SLOT.finditer(page, text.start(2), text.end(2)):
        fixed.append(page[position : found.start()])
        words.append(found[0])
        position = found.end()
    return _Template(fixed=(*fixed, page[position:]))


def _write(path: Path, pieces: Iterable[bytes]) -> Path:
    """Writes a file under its name only when it is whole, so that one that is there need not be made again."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("wb") as file:
        file.writelines(pieces)
    return unfinished.rename(path)


@functools.lru_cache(maxsize=1)
def _mill() -> PageMill:
    return PageMill()


def write_dump(folder: Path, *, num_bytes: int) -> Path:
    """Writes a dump of `num_bytes` of XML, where it is not there yet, and returns its path."""
    return _write(folder / f"dump-{num_bytes}.xml", _mill().iter_dump(num_bytes))


def write_packed_dump(folder: Path, *, num_bytes: int) -> Path:
    """Writes `num_bytes` of XML as a single bz2 stream, which no two workers can share."""

    def packed() -> Iterator[bytes]:
        stream = bz2.BZ2Compressor(1)  # the fastest to write; reading takes the same
        for piece in _mill().iter_dump(num_bytes):
            yield stream.compress(piece)
        yield stream.flush()

    return _write(folder / f"single-stream-{num_bytes}.xml.bz2", packed())


def write_dump_with_long_article(folder: Path, *, num_bytes: int, article_bytes: int) -> Path:
    """Writes a dump of ordinary pages, `num_bytes` of them, and one article of `article_bytes` of prose among them."""
    mill = _mill()
    name = f"long-article-{num_bytes}-{article_bytes}.xml"
    return _write(folder / name, mill.iter_dump(num_bytes, inserted=mill.long_article(article_bytes)))


def write_prose(folder: Path, *, num_bytes: int) -> Path:
    """Writes the articles' text alone, as plain text with a blank line after each; `num_bytes` of it, about."""

    def documents() -> Iterator[bytes]:
        size = 0
        for number in itertools.count():
            if size >= num_bytes:
                return
            text = "\n".join(line for line in _prose(_mill().page(number)).splitlines() if line)
            if text:
                data = f"{text}\n\n".encode()
                size += len(data)
                yield data

    return _write(folder / f"prose-{num_bytes}.txt", documents())
