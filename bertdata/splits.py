"""Which bytes of which file a worker reads: input files, their formats, and how they are cut into splits.

A record belongs to the split in which its first byte lies, so any way of cutting gives the same records. What can be
cut:

    plain XML, JSONL, text,    at any byte
    WikiExtractor's output
    Parquet                    where a row group starts
    .bz2 MediaWiki dump        where a bz2 stream starts (a "multistream" dump has one per 100 pages)
    everything else            not at all: one split per file
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bertdata.config import MIB, ReadOptions
from bertdata.decompress import detect_compression, find_bz2_stream
from bertdata.detect import check_compression, detect_format, read_head
from bertdata.dump_header import Header, read_header
from bertdata.errors import InputError
from bertdata.parquet import row_group_starts

__all__ = ["Split", "find_inputs", "plan_files", "plan_splits"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A byte range of one input file; `dataclasses.asdict` of it goes through JSON.

    Attributes:
        path: Absolute path of the file.
        start: First byte of the range, as stored (compressed where the file is).
        stop: The byte after the range.
        format: mediawiki, jsonl, parquet, wikiextractor or text; MODULE:FUNCTION for a reader of the user's own.
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


def find_inputs(paths: Sequence[str], *, out: Path | None = None) -> list[str]:
    """Lists the files that are meant by `paths`.

    Args:
        paths: Files, folders (searched to any depth, also through links; hidden files and folders are skipped) and glob
            patterns.
        out: Folder that the build writes to, which is skipped when it lies in one of them.

    Returns:
        Absolute paths, sorted; a file that has several names once.

    Raises:
        InputError: A path names no file, or one that may not be read; or it is the output folder.
    """
    files: set[str] = set()
    skipped = os.path.realpath(out) if out is not None else None
    for path in paths:
        if "://" in path:
            raise InputError(f"--input {path}: only local files are read; copy the data here first")
        names = [path] if os.path.lexists(path) else glob.glob(path, recursive=True)  # noqa: PTH207
        if any(os.path.realpath(name) == skipped for name in names):
            raise InputError(f"--input {path} is the output folder; give another --out")
        found = [file for name in names for file in _files_in(os.path.abspath(name), skipped=skipped)]  # noqa: PTH100
        if not found:
            raise InputError(
                f"--input {path}: no such file, or none that may be read; give files, folders with files in them, or "
                "glob patterns"
            )
        files.update(map(os.path.normpath, found))
    by_target = {os.path.realpath(file): file for file in sorted(files, key=lambda file: (-len(file), file))}
    return sorted(by_target.values())


def _is_output(folder: str) -> bool:
    """Returns whether a folder holds a build, finished or not, which may lie within the folder of its input."""
    has_work, has_manifest, has_index = (
        os.path.exists(os.path.join(folder, name))  # noqa: PTH110, PTH118 - Path's raises where it may not look
        for name in (".work", "manifest.json", "index.arrow")
    )
    return has_work or (has_manifest and has_index)


def _files_in(path: str, *, skipped: str | None) -> Iterator[str]:
    """Yields a file, or the files in a folder and below, but for those in the folder `skipped`."""
    if not Path(path).is_dir():
        if Path(path).is_file():
            yield path
        return
    passed = {skipped}  # and the folders seen, so that a link to one above it ends somewhere
    for folder, folders, names in os.walk(path, onerror=_refuse_folder, followlinks=True):
        passed.add(os.path.realpath(folder))
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".")
            and os.path.realpath(inner := os.path.join(folder, name)) not in passed  # noqa: PTH118
            and not _is_output(inner)
        ]
        for name in names:
            file = Path(folder, name)
            if name.startswith("."):
                continue
            try:
                is_file = stat.S_ISREG(file.stat().st_mode)
            except FileNotFoundError as error:
                raise InputError(f"{file} is a link to nothing; remove it, or leave it out of the input") from error
            except OSError as error:
                if error.errno == errno.ELOOP:  # a link that leads back to itself, of which `**` makes long paths
                    continue
                _refuse_folder(error)
            if is_file:
                yield str(file)


def _refuse_folder(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}; leave it out of the input") from error


def plan_splits(paths: Sequence[str], *, options: ReadOptions, split_bytes: int | None = None) -> list[Split]:
    """Cuts the input into splits of about equal size: `plan_files` of what `find_inputs` finds.

    Raises:
        InputError: No file, or one of a kind that is not read.
    """
    return plan_files(find_inputs(paths), options=options, split_bytes=split_bytes)


def plan_files(files: Sequence[str], *, options: ReadOptions, split_bytes: int | None = None) -> list[Split]:
    """Cuts files into splits of about equal size.

    Args:
        files: What `find_inputs` gives.
        options: How files are read.
        split_bytes: Bytes of a split as stored; None for the larger of 32 MiB and a 2,000th of the input.

    Returns:
        The splits, in the order of the files; empty files have none.

    Raises:
        InputError: A file of a kind that is not read.
    """
    total_bytes = sum(Path(file).stat().st_size for file in files)
    split_bytes = split_bytes or max(32 * MIB, total_bytes // 2000)
    return [split for file in files for split in _plan_file(file, options=options, split_bytes=split_bytes)]


def _plan_file(path: str, *, options: ReadOptions, split_bytes: int) -> list[Split]:
    size = Path(path).stat().st_size
    if size == 0:
        _LOG.warning("%s is empty", path)
        return []
    compression, file_format, header = "none", options.format, Header()
    if ":" not in file_format:
        compression = detect_compression(path)
        head = read_head(path, compression=compression, size=size)
        check_compression(path, compression=compression, head=head)
        file_format = options.format if options.format != "auto" else detect_format(path, head)
        if file_format == "mediawiki":
            header = read_header(path, head)
        if file_format == "parquet" and compression != "none":
            raise InputError(f"{path} is a Parquet file within {compression}; decompress it first")
    cuts = _cuts(path, compression=compression, file_format=file_format, options=options, split_bytes=split_bytes)
    if len(cuts) == 1 and size > split_bytes:
        _warn_of_one_split(path, compression=compression, file_format=file_format)
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


def _warn_of_one_split(path: str, *, compression: str, file_format: str) -> None:
    if file_format == "parquet":
        why, remedy = "one row group", "write it with smaller row groups"
    elif compression == "bz2" and file_format == "mediawiki":
        why = compression
        remedy = "use the multistream dump (pages-articles-multistream.xml.bz2), or decompress it"
    elif compression != "none":
        why, remedy = compression, "decompress it"
    else:
        return
    _LOG.warning("%s (%s) cannot be cut, so one worker reads all of it; %s", path, why, remedy)


def _cuts(path: str, *, compression: str, file_format: str, options: ReadOptions, split_bytes: int) -> list[int]:
    """Returns where the splits of a file start."""
    size = Path(path).stat().st_size
    if file_format == "parquet":
        try:
            return _coarsen(row_group_starts(path)[1:], split_bytes=split_bytes)
        except InputError:
            if not options.skip_bad_splits:
                raise
            return [0]  # the worker that reads it counts it
    if compression == "bz2" and file_format == "mediawiki":
        return [0, *_iter_bz2_starts(path, split_bytes=split_bytes)]
    is_whole = file_format == "text" and options.document_per == "file"
    if compression != "none" or ":" in file_format or is_whole:
        return [0]
    num_splits = -(-size // split_bytes)
    return [size * i // num_splits for i in range(num_splits)]


def _coarsen(starts: Sequence[int], *, split_bytes: int) -> list[int]:
    """Returns 0 and, for each whole multiple of `split_bytes`, the first of the places from there on."""
    cuts, wanted = [0], split_bytes
    for start in starts:
        if start >= wanted:
            cuts.append(start)
            wanted = (start // split_bytes + 1) * split_bytes
    return cuts


def _iter_bz2_starts(path: str, *, split_bytes: int) -> Iterator[int]:
    """Yields, for each whole multiple of `split_bytes`, the first start of a stream from there on."""
    with Path(path).open("rb") as file:
        wanted = split_bytes
        while (start := find_bz2_stream(file, start=wanted)) is not None:
            yield start
            wanted = (start // split_bytes + 1) * split_bytes
