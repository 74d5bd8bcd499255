"""What format a file has, told by its first bytes, and by its name only where these leave it open."""

from __future__ import annotations

import codecs
import io
import itertools
import json
import logging
import posixpath
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from bertdata.config import MIB
from bertdata.decompress import BZ2_START, BZ2_START_BYTES, iter_chunks_of
from bertdata.errors import InputError
from bertdata.inputs import InputFile, open_input
from bertdata.marks import PAGE, PARQUET, WRITTEN_TAG
from bertdata.uris import is_uri

__all__ = ["check_compression", "detect_compression", "detect_format", "iter_heads"]

_LOG = logging.getLogger(__name__)

_HEAD_BYTES = MIB // 4  # a dump's header, with all its namespaces, has about 10 KB
_COMPRESSED_BYTES = MIB  # of an object; a block of bz2 may have this many
_FETCHED_AT_ONCE = 64

# File types that would otherwise be read as broken text.
_NOT_READ = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"\xfd7zXZ\x00": "xz-compressed; unpack it first, or compress it with bzip2, gzip or zstd",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\xff\xfe": "UTF-16 text; convert it first: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it first: iconv -f UTF-16 -t UTF-8",
}

_MAGIC = {"bz2": b"BZh", "gz": b"\x1f\x8b", "zst": b"\x28\xb5\x2f\xfd"}
_ZSTD_SKIPPED = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a frame without data, which may come first
_TAR, _TAR_PLACE = b"ustar", 257
_LINES_LOOKED_AT = 20


def iter_heads(files: Sequence[InputFile]) -> Iterator[tuple[str, bytes]]:
    """Looks once into each file, for how it is compressed and its first 256 KiB, decompressed.

    Yields:
        none, bz2, gz or zst; and the bytes: fewer, with a warning, where they are damaged.

    Raises:
        InputError: A file cannot be read.
    """
    for bucket, group in itertools.groupby(files, key=lambda file: is_uri(file.path) and urlsplit(file.path)[:2]):
        if not bucket:
            yield from (_read_head(file.path) for file in group)
            continue
        from bertdata.remote_inputs import iter_parts

        while batch := list(itertools.islice(group, _FETCHED_AT_ONCE)):
            stored = list(iter_parts([(file.path, 0, _HEAD_BYTES) for file in batch]))
            for file, data in zip(batch, stored, strict=True):
                yield _read_head(file.path, stored=data, is_all=len(data) == file.num_bytes)


def _read_head(path: str, *, stored: bytes | None = None, is_all: bool = False) -> tuple[str, bytes]:
    """Returns compression and head of a file; of an object, `stored` are the first bytes, or all."""
    if stored is not None and (is_all or detect_compression(stored) == "none"):
        opened: io.BufferedIOBase = io.BytesIO(stored)
    elif stored is not None:
        opened = open_input(path, stop=_COMPRESSED_BYTES)
    else:
        opened = open_input(path, buffer_bytes=_HEAD_BYTES)
    head = b""
    with opened as file:
        compression = detect_compression(file.read(BZ2_START_BYTES))
        file.seek(0)
        try:
            for chunk in iter_chunks_of(file, path, compression=compression, start=0, stop=_HEAD_BYTES):
                head += chunk.data
                if len(head) >= _HEAD_BYTES:
                    break
        except InputError as error:
            # Only a warning: the worker that reads this split meets the damage again, and fails there.
            _LOG.warning("%s", error)
    return compression, head[:_HEAD_BYTES]


def detect_compression(head: bytes) -> str:
    """Tells by a file's first bytes, ten or more, how it is compressed: none, bz2, gz or zst."""
    if BZ2_START.match(head):  # "BZh" alone may begin a text
        return "bz2"
    if head.startswith(_MAGIC["gz"]):
        return "gz"
    return "zst" if head.startswith(_MAGIC["zst"]) or _ZSTD_SKIPPED.match(head) else "none"


def check_compression(path: str, *, compression: str, head: bytes) -> None:
    """Refuses a file that is named as compressed, and neither is so nor is text: its first bytes are damaged.

    Args:
        path: The file.
        compression: What its first bytes tell.
        head: Its first bytes, decompressed.

    Raises:
        InputError: It is such a file.
    """
    suffix = posixpath.splitext(path)[1]
    magic = _MAGIC.get(suffix.removeprefix("."))
    if compression != "none" or magic is None:
        return
    try:
        is_text = not head.startswith(magic[: len(head)])
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise InputError(
            f"{path} is named {suffix}, but does not begin like such a file, nor is it text: it is damaged; fetch or "
            "compress it again, or leave it out of the input"
        )


def detect_format(path: str, head: bytes) -> str:
    """Returns mediawiki, jsonl, parquet, wikiextractor or text.

    Args:
        path: The file.
        head: Its first bytes, decompressed.

    Raises:
        InputError: It is of a kind that is not read.
    """
    for magic, what in _NOT_READ.items():
        if head.startswith(magic):
            raise InputError(f"{path} is {what}")
    if head[_TAR_PLACE:].startswith(_TAR):
        raise InputError(f"{path} is a tar archive; unpack it first, or if it is a shard of a data set, leave it out")
    if head.startswith(PARQUET):
        return "parquet"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"<mediawiki", PAGE)):
        return "mediawiki"
    if start.startswith((b"<?xml", b"<!--", b"<!DOCTYPE")) and b"<mediawiki" in start:
        return "mediawiki"
    if start.startswith(b"<?xml"):
        raise InputError(f"{path} is XML, but not a MediaWiki dump; --format text reads it as it stands")
    if start.startswith(b"<") and PAGE in start and b"<revision>" in start:
        raise InputError(
            f"{path} looks like a MediaWiki dump whose beginning is damaged; fetch it again, or read its pages with "
            "--format mediawiki"
        )
    if b"<doc id=" in start and WRITTEN_TAG.search(start):
        return "wikiextractor"
    if _has_json_lines(path, start, is_cut=len(head) == _HEAD_BYTES):
        return "jsonl"
    if start.startswith((b"{", b"[")) and re.search(r"\.json\b[^/]*$", path, re.IGNORECASE):
        raise InputError(f"{path} does not have one JSON object per line; rewrite it so, or read it with --format text")
    return "text"


def _has_json_lines(path: str, start: bytes, *, is_cut: bool) -> bool:
    """Returns whether a file is JSONL by its name, or by most of its first lines; the last one may be cut."""
    if re.search(r"\.(jsonl|ndjson)\b[^/]*$", path, re.IGNORECASE):
        return True
    lines = [line for line in start.split(b"\n")[: _LINES_LOOKED_AT + 1] if line.strip()]
    if len(lines) > 1:
        del lines[_LINES_LOOKED_AT:]
    elif is_cut:
        return start.startswith(b"{")
    return len(lines) > 0 and 2 * sum(map(_is_json_object, lines)) >= len(lines)


def _is_json_object(line: bytes) -> bool:
    if b"{" not in line:  # which is quicker to see: there may be a hundred thousand files
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
