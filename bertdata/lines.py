"""Lines and paragraphs of a text file: which of them belong to a split, and how hard-wrapped ones are joined.

A line or paragraph belongs to the split in which its first byte lies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BufferedIOBase

from bertdata.characters import clean_characters, collapse_spaces
from bertdata.decompress import iter_chunks
from bertdata.inputs import open_input
from bertdata.splits import Split

__all__ = [
    "is_blank",
    "iter_lines",
    "iter_lines_from_before",
    "iter_paragraphs",
    "join_lines",
    "name_place",
    "read_whole",
]

# A line that begins with another byte is not blank; the last four begin U+0085 and U+00A0, U+1680, U+2000 to U+205F and
# U+3000.
_FIRST_BYTES_OF_SPACES = frozenset(b" \t\r\v\f\x1c\x1d\x1e\x1f\xc2\xe1\xe2\xe3")
_BACK_BYTES = 1 << 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def iter_lines(split: Split, *, max_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    """Yields the lines that begin in a split, without their ends.

    Args:
        split: Where to read.
        max_bytes: A longer line is not held in memory; None comes in its place.

    Yields:
        (where it is, for messages; its bytes), in the order of the file.

    Raises:
        InputError: The file is damaged or cut off.
    """
    for number, offset, line in iter_lines_from_before(split, max_bytes=max_bytes):
        if split.is_past(offset):
            return
        if offset >= split.start:
            yield name_place(split, number, offset), line


def iter_paragraphs(split: Split, *, max_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    """Yields the paragraphs that begin in a split: runs of lines that are not blank.

    Args:
        split: Where to read.
        max_bytes: A longer paragraph is not held in memory; None comes in its place.

    Yields:
        (where it is, for messages; its bytes), in the order of the file.

    Raises:
        InputError: The file is damaged or cut off.
    """
    lines: list[bytes] = []
    where, num_bytes, inside = "", 0, False
    too_large = own = False
    for number, offset, line in iter_lines_from_before(split, max_bytes=max_bytes):
        if line is not None and is_blank(line):
            if own and inside:
                yield where, None if too_large else b"\n".join(lines)
            inside = own = too_large = False
            lines, num_bytes = [], 0
            continue
        if not inside:
            if split.is_past(offset):
                return
            inside = True
            own = offset >= split.start
            where = name_place(split, number, offset)
        num_bytes += len(line or b"") + 1
        too_large = too_large or line is None or num_bytes > max_bytes
        if own and not too_large:
            lines.append(line or b"")
    if own and inside:
        yield where, None if too_large else b"\n".join(lines)


def is_blank(line: bytes) -> bool:
    """Returns whether there is nothing but white space in a line, of any kind (Chinese text has U+3000)."""
    if not line or line.isspace():
        return True
    return line[0] in _FIRST_BYTES_OF_SPACES and line.decode("utf-8", "replace").isspace()


def read_whole(split: Split, *, max_bytes: int) -> bytes | None:
    """Returns the bytes of a file that is one split, without its byte order mark; None for more than `max_bytes`."""
    parts: list[bytes] = []
    num_bytes = 0
    for chunk in iter_chunks(split.path, compression=split.compression, start=split.start, stop=split.stop):
        parts.append(chunk.data)
        num_bytes += len(chunk.data)
        if num_bytes > max_bytes:
            return None
    return b"".join(parts).removeprefix(_BYTE_ORDER_MARK)


def name_place(split: Split, number: int, offset: int) -> str:
    """Returns where a line is, for messages: its number where that is known, else its first byte."""
    return f"line {number:,}" if split.start == 0 else f"byte {offset:,}"


def iter_lines_from_before(split: Split, *, max_bytes: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yields (number, offset, line without its end) from the line before the split to the end of the file.

    Args:
        split: Where to read.
        max_bytes: A longer line is not held in memory; None comes in its place.

    Raises:
        InputError: The file is damaged or cut off.
    """
    start = split.start
    if start > 0:
        with open_input(split.path) as file:
            start = _line_start(file, start - 1)
    parts: list[bytes] = []
    number, offset, num_bytes = 1, start, 0
    for chunk in iter_chunks(split.path, compression=split.compression, start=start, stop=split.stop):
        first, *others = chunk.data.split(b"\n")
        ends_line = bool(others)
        num_bytes += len(first)
        if num_bytes <= max_bytes:
            parts.append(first)
        else:
            parts = []
        if not ends_line:
            continue
        yield number, offset, _join_line(parts, offset) if num_bytes <= max_bytes else None
        number, offset = number + 1, offset + num_bytes + 1
        last = others.pop()
        for line in others:
            yield number, offset, line
            number, offset = number + 1, offset + len(line) + 1
        parts, num_bytes = [last], len(last)
    if num_bytes:
        yield number, offset, _join_line(parts, offset) if num_bytes <= max_bytes else None


def _line_start(file: BufferedIOBase, place: int) -> int:
    """Returns where the line begins that a byte belongs to."""
    stop = place
    while stop > 0:
        start = max(0, stop - _BACK_BYTES)
        file.seek(start)
        data = file.read(stop - start)
        if (found := data.rfind(b"\n")) >= 0:
            return start + found + 1
        stop = start
    return 0


def _join_line(parts: list[bytes], offset: int) -> bytes:
    line = b"".join(parts)
    return line.removeprefix(_BYTE_ORDER_MARK) if offset == 0 else line


# A line of usual page width that does not end a sentence, before a line that is not blank.
_WRAPPED_LINE = re.compile(r"\n[^\n]{50,100}(?<![.!?:;。！？…”\"»])(?=\n[^\n])")
_HYPHEN_BREAK = re.compile(r"(?<=[^\W\d_][-‐])\n(?=[^\W\d_])")
_BLANK_LINES = re.compile(r"\n\s*\n\s*")


def join_lines(text: str) -> str:
    r"""Returns text with one paragraph per line: hard-wrapped lines joined, no blank lines, spaces normal.

    Text counts as hard-wrapped where more than half of the line breaks inside paragraphs come after 50 to 100
    characters that end no sentence.
    """
    text = clean_characters(text)
    if "\n" in text:
        paragraphs = _BLANK_LINES.split(text)
        num_breaks = sum(paragraph.count("\n") for paragraph in paragraphs)
        if num_breaks and 2 * len(_WRAPPED_LINE.findall("\n" + text)) > num_breaks:
            text = "\n".join(_HYPHEN_BREAK.sub("", paragraph).replace("\n", " ") for paragraph in paragraphs)
    text = collapse_spaces(text).replace(" \n", "\n").replace("\n ", "\n")
    while "\n\n" in text:
        text = text.replace("\n\n", "\n")
    return text.strip()
