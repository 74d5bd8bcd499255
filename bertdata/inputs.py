"""Input files: which ones are meant, how large they are, and in which state they were found."""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from bertdata.errors import InputError

__all__ = ["InputFile", "find_inputs"]


class InputFile(NamedTuple):
    """An input file as it was found.

    Attributes:
        path: Its absolute path.
        num_bytes: Bytes as stored.
        version: Changes with its content: time of its last change in nanoseconds.
    """

    path: str
    num_bytes: int
    version: int | str


def find_inputs(paths: Sequence[str], *, out: Path | None = None) -> list[InputFile]:
    """Lists the files that are meant by `paths`.

    Args:
        paths: Files, folders (searched to any depth, also through links; hidden files and folders are skipped) and glob
            patterns.
        out: Folder that the build writes to, which is skipped when it lies in one of them.

    Returns:
        The files, sorted by path; a file that has several names once.

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
    folders = {folder: os.path.realpath(folder) for folder in {os.path.split(file)[0] for file in files}}
    by_target = {_target(file, folders): file for file in sorted(files, key=lambda file: (-len(file), file))}
    return [_local_file(path) for path in sorted(by_target.values())]


def _target(file: str, folders: dict[str, str]) -> str:
    """Returns the path of a file without links; that of its folder is known, as there may be many files in one."""
    folder, name = os.path.split(file)
    return os.path.realpath(file) if os.path.islink(file) else os.path.join(folders[folder], name)  # noqa: PTH114, PTH118


def _local_file(path: str) -> InputFile:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; leave it out of the input") from error
    return InputFile(path, status.st_size, status.st_mtime_ns)


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
            if name.startswith("."):
                continue
            file = os.path.join(folder, name)  # noqa: PTH118 - Path takes longer than all else, for many files
            try:
                is_file = stat.S_ISREG(os.stat(file).st_mode)  # noqa: PTH116
            except FileNotFoundError as error:
                raise InputError(f"{file} is a link to nothing; remove it, or leave it out of the input") from error
            except OSError as error:
                if error.errno == errno.ELOOP:  # a link that leads back to itself, of which `**` makes long paths
                    continue
                _refuse_folder(error)
            if is_file:
                yield file


def _refuse_folder(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}; leave it out of the input") from error
