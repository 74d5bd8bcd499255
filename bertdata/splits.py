"""Which bytes of which file a worker reads: input files, their formats, and how they are cut into splits.

A record belongs to the split in which its first byte lies, so any way of cutting gives the same records. What can be
cut:

    plain XML, JSONL, text     at any byte
    .bz2 MediaWiki dump        where a bz2 stream starts (a "multistream" dump has one per 100 pages)
    everything else            not at all: one split per file
"""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertdata.config import MIB, ReadOptions
from bertdata.decompress import detect_compression, find_bz2_stream, iter_chunks
from bertdata.dump_header import Header, read_header
from bertdata.errors import InputError

__all__ = ["Split", "find_inputs", "plan_splits"]

_LOG = logging.getLogger(__name__)

_HEAD_BYTES = MIB // 4  # read to tell a format; a dump's header, with all its namespaces, has about 10 KB

# File types that would otherwise be read as broken text.
_NOT_READ = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"\xfd7zXZ\x00": "xz-compressed; unpack it first, or compress it with bzip2, gzip or zstd",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"PAR1": "a Parquet file; write it as JSONL first",
    b"\xff\xfe": "UTF-16 text; convert it first: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it first: iconv -f UTF-16 -t UTF-8",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A byte range of one input file; `dataclasses.asdict` of it goes through JSON.

    Attributes:
        path: Absolute path of the file.
        start: First byte of the range, as stored (compressed where the file is).
        stop: The byte after the range.
        format: mediawiki, jsonl or text.
        compression: none, bz2, gz or zst.
        language: Language code that the file as a whole declares (a dump's xml:lang), if any.
        namespaces: MediaWiki only: the dump's namespaces as (name, number), which are in the wiki's language.
        closing_tag: MediaWiki only: the file opens with <mediawiki>, so it must close it.
    """

    path: str
    start: int
    stop: int
    format: str
    compression: str
    language: str | None
    namespaces: tuple[tuple[str, int], ...] = ()
    closing_tag: bool = False

    def __post_init__(self) -> None:
        # JSON knows lists only.
        object.__setattr__(self, "namespaces", tuple((str(name), int(number)) for name, number in self.namespaces))

    @property
    def name(self) -> str:
        """File name and byte range, for messages and progress."""
        return f"{Path(self.path).name}[{self.start:,}-{self.stop:,}]"


def find_inputs(paths: Sequence[str]) -> list[str]:
    """Lists the files that are meant by `paths`.

    Args:
        paths: Files, folders (searched to any depth; hidden files and folders are skipped) and glob patterns.

    Returns:
        Absolute paths, sorted, each once.

    Raises:
        InputError: A path names no file.
    """
    found: set[str] = set()
    for path in paths:
        if "://" in path:
            raise InputError(f"--input {path}: only local files are read; copy the data here first")
        names = [path] if os.path.lexists(path) else glob.glob(path, recursive=True)  # noqa: PTH207
        files = [file for name in names for file in _files_in(Path(name).absolute())]
        if not files:
            raise InputError(f"--input {path}: no such file; give files, folders with files in them, or glob patterns")
        found.update(map(os.path.normpath, files))
    return sorted(found)


def _is_output(folder: Path) -> bool:
    """Returns whether a folder holds a build, finished or not, which may lie within the folder of its input."""
    return (folder / ".work").exists() or ((folder / "manifest.json").exists() and (folder / "index.arrow").exists())


def _files_in(path: Path) -> Iterator[str]:
    if path.is_file():
        yield str(path)
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_output(Path(folder, name))]
        yield from (str(file) for name in names if not name.startswith(".") and (file := Path(folder, name)).is_file())


def plan_splits(paths: Sequence[str], *, options: ReadOptions, split_bytes: int | None = None) -> list[Split]:
    """Cuts the input into splits of about equal size.

    Args:
        paths: What `find_inputs` takes.
        options: How files are read.
        split_bytes: Bytes of a split as stored; None for the larger of 32 MiB and a 2,000th of the input.

    Returns:
        The splits, in the order of the files; empty files have none.

    Raises:
        InputError: No file, or one of a kind that is not read.
    """
    files = find_inputs(paths)
    total_bytes = sum(Path(file).stat().st_size for file in files)
    split_bytes = split_bytes or max(32 * MIB, total_bytes // 2000)
    return [split for file in files for split in _plan_file(file, options=options, split_bytes=split_bytes)]


def _plan_file(path: str, *, options: ReadOptions, split_bytes: int) -> list[Split]:
    size = Path(path).stat().st_size
    if size == 0:
        _LOG.warning("%s is empty", path)
        return []
    compression = detect_compression(path)
    head = _read_head(path, compression=compression, size=size)
    file_format = options.format if options.format != "auto" else _detect_format(path, head)
    header = read_header(path, head) if file_format == "mediawiki" else Header()
    cuts: list[int]
    if compression == "none" and not (file_format == "text" and options.document_per == "file"):
        num_splits = -(-size // split_bytes)
        cuts = [size * i // num_splits for i in range(num_splits)]
    elif compression == "bz2" and file_format == "mediawiki":
        cuts = _bz2_cuts(path, size=size, split_bytes=split_bytes)
    else:
        cuts = [0]
    if len(cuts) == 1 and size > split_bytes and compression != "none":
        remedy = "decompress it"
        if file_format == "mediawiki":
            remedy = "use the multistream dump (pages-articles-multistream.xml.bz2), or decompress it"
        _LOG.warning("%s (%s) cannot be cut, so one worker reads all of it; %s", path, compression, remedy)
    return [
        Split(
            path=path,
            start=start,
            stop=stop,
            format=file_format,
            compression=compression,
            language=header.language,
            namespaces=header.namespaces,
            closing_tag=header.has_root,
        )
        for start, stop in zip(cuts, [*cuts[1:], size], strict=True)
    ]


def _read_head(path: str, *, compression: str, size: int) -> bytes:
    head = b""
    try:
        for chunk in iter_chunks(path, compression=compression, start=0, stop=size):
            head += chunk.data
            if len(head) >= _HEAD_BYTES:
                break
    except InputError as error:
        # Only a warning: the worker that reads this split meets the damage again, and fails there.
        _LOG.warning("%s", error)
    return head[:_HEAD_BYTES]


def _detect_format(path: str, head: bytes) -> str:
    for magic, what in _NOT_READ.items():
        if head.startswith(magic):
            raise InputError(f"{path} is {what}")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"<mediawiki", b"<page>")):
        return "mediawiki"
    if start.startswith((b"<?xml", b"<!--", b"<!DOCTYPE")) and b"<mediawiki" in start:
        return "mediawiki"
    if start.startswith(b"<?xml"):
        raise InputError(f"{path} is XML, but not a MediaWiki dump; --format text reads it as it stands")
    if start.startswith(b"{"):
        first_line, newline, _ = start.partition(b"\n")
        cut_off = not newline and len(head) == _HEAD_BYTES
        if cut_off or _is_json_object(first_line) or re.search(r"\.(jsonl|ndjson)\b", Path(path).name):
            return "jsonl"
    if re.search(r"\.json\b", Path(path).name) and start.startswith((b"{", b"[")):
        raise InputError(f"{path} does not have one JSON object per line; rewrite it so, or read it with --format text")
    return "text"


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _bz2_cuts(path: str, *, size: int, split_bytes: int) -> list[int]:
    """Returns 0 and, for each whole multiple of `split_bytes`, the first stream start from there on."""
    cuts = [0]
    with Path(path).open("rb") as file:
        wanted = split_bytes
        while wanted < size and (start := find_bz2_stream(file, start=wanted)) is not None:
            cuts.append(start)
            wanted = (start // split_bytes + 1) * split_bytes
    return cuts
