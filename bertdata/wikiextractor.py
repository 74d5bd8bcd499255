"""WikiExtractor's output: articles of plain text between <doc> tags, many in a file.

    <doc id="12" url="https://en.wikipedia.org/wiki?curid=12" title="Anarchism">
    Anarchism

    Anarchism is a political philosophy ...
    </doc>

The first line repeats the title. "&", "<" and ">" are escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bertdata.errors import InputError
from bertdata.lines import is_blank, iter_lines_from_before, name_place
from bertdata.marks import ARTICLE, ARTICLE_END, ARTICLE_TAG
from bertdata.splits import Split

__all__ = ["Extract", "is_extracted_record", "iter_extracts", "unescape"]


class Extract(NamedTuple):
    """What stands between two tags; or lines that stand between no tags.

    Attributes:
        where: The title, or the place of the lines.
        text: The article, still encoded and escaped; None where it is too large.
        problem: Empty, or what is wrong with the tags.
    """

    where: str
    text: bytes | None
    problem: str = ""


def iter_extracts(split: Split, *, max_bytes: int) -> Iterator[Extract]:
    """Yields the articles whose <doc> begins in a split, and stray lines after them.

    Args:
        split: Where to read.
        max_bytes: A longer article is not held in memory; it comes without text.

    Raises:
        InputError: The file is damaged, or ends inside an article.
    """
    lines: list[bytes] = []
    num_bytes = 0
    where, title = "", b""
    inside = is_torn = False
    # Lines before the first tag belong to an article of the split before, unless there is none.
    between = split.start == 0
    for number, offset, line in iter_lines_from_before(split, max_bytes=max_bytes):
        opened = ARTICLE_TAG.fullmatch(line) if line is not None and line.startswith(ARTICLE) else None
        if opened:
            if lines or inside:
                problem = "<doc> without </doc>" if inside else "text outside of <doc>"
                yield Extract(where, b"\n".join(lines), problem)
            lines, num_bytes = [], 0
            if split.is_past(offset):
                return
            inside, between, is_torn = offset >= split.start, False, False
            title = opened[1]
            where = title.decode("utf-8", "replace")
        elif inside and line is not None and line.rstrip() == ARTICLE_END:
            text = None if num_bytes > max_bytes else b"\n".join(_without_title(lines, title))
            yield Extract(where, text, "a tag inside of <doc>" if is_torn else "")
            lines, num_bytes = [], 0
            inside, between = False, True
        elif inside or (between and (line is None or not is_blank(line))):
            if not inside and not lines:
                where = name_place(split, number, offset)
            is_torn = is_torn or (line is not None and (ARTICLE_END in line or b'<doc id="' in line))
            num_bytes += len(line) + 1 if line is not None else max_bytes + 1
            if num_bytes <= max_bytes or not lines:
                lines.append(line or b"")
    if inside:
        raise InputError(
            f"{split.path} ends inside the <doc> {where!r}: the file is cut off; extract it again, or leave it out of "
            "the input"
        )
    if lines:
        yield Extract(where, b"\n".join(lines), "text outside of <doc>")


def _without_title(lines: list[bytes], title: bytes) -> list[bytes]:
    return lines[1:] if lines and lines[0].strip() in (title.strip(), _escape(title.strip())) else lines


def _escape(data: bytes) -> bytes:
    return data.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")


def unescape(text: str) -> str:
    """Brings back the three characters that WikiExtractor escapes."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") if "&" in text else text


def is_extracted_record(record: dict[str, object]) -> bool:
    """Returns whether a JSON object was written by `wikiextractor --json`, so that its text is escaped."""
    url = record.get("url")
    return "title" in record and "id" in record and isinstance(url, str) and "?curid=" in url
