"""Input files, local or in an object store: which ones are meant, their state, and opening them.

An input may be as large as a year's crawl, and a build of it takes days, in which somebody may touch a file. So each
file's size and time of change are those of one look at the beginning; they are looked at again before and after each
part is read.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import unquote

from bertdata.errors import ChangedInputError, InputError
from bertdata.uris import is_uri, location_of

__all__ = [
    "InputFile",
    "check_unchanged",
    "file_name",
    "find_inputs",
    "input_facts",
    "open_input",
]

_BUFFER_BYTES = 1 << 16


class InputFile(NamedTuple):
    """An input file as it was found.

    Attributes:
        path: Its absolute path, or its URI.
        num_bytes: Bytes as stored.
        version: Time of its last change in nanoseconds.
    """

    path: str
    num_bytes: int
    version: int


def open_input(path: str, *, stop: int | None = None, buffer_bytes: int = _BUFFER_BYTES) -> io.BufferedIOBase:
    """Opens an input file for reading, buffered, from any place on.

    Args:
        path: Its path or URI.
        stop: About where reading on and on will end; None for a file that is read here and there. Decides how much of
            an object is fetched by a request, and whether the next bytes are fetched ahead.
        buffer_bytes: What is read of a file at once, where less is asked for.

    Raises:
        ChangedInputError: A local file is not there any more.
        InputError: It cannot be read.
    """
    if is_uri(path):
        from bertdata.remote_inputs import RemoteFile

        return io.BufferedReader(RemoteFile(path, stop=stop), buffer_bytes)  # type: ignore[type-var]
    try:
        return io.BufferedReader(io.FileIO(path), buffer_bytes)
    except FileNotFoundError as error:
        raise ChangedInputError.missing(path) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; leave it out of the input") from error


def input_facts(path: str) -> tuple[int, int]:
    """Returns the size of an input file and the time of its last change, as they are now.

    Raises:
        ChangedInputError: It is not there any more.
        InputError: It cannot be read.
    """
    if is_uri(path):
        from bertdata.remote_inputs import object_facts

        facts = object_facts(path)
        if facts is None:
            raise ChangedInputError.missing(path)
        return facts.num_bytes, facts.modified_ns
    try:
        status = os.stat(path)  # noqa: PTH116
    except FileNotFoundError as error:
        raise ChangedInputError.missing(path) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; leave it out of the input") from error
    return status.st_size, status.st_mtime_ns


def check_unchanged(path: str, *, num_bytes: int, version: int) -> None:
    """Looks whether an input file is what it was when the build began.

    Raises:
        ChangedInputError: It is not.
    """
    now_bytes, now_version = input_facts(path)
    if (now_bytes, now_version) != (num_bytes, version):
        raise ChangedInputError.between(path, before=num_bytes, now=now_bytes)


def file_name(path: str) -> str:
    """Returns the name of an input file without its folder."""
    return posixpath.basename(unquote(location_of(path))) if is_uri(path) else os.path.basename(path)  # noqa: PTH119


def find_inputs(paths: Sequence[str], *, out: Path | str | None = None) -> list[InputFile]:
    """Lists the files that are meant by `paths`.

    Args:
        paths: Files, folders (searched to any depth, also through links; hidden files and folders are skipped) and glob
            patterns; or URIs of s3:// and gs://.
        out: Folder that the build writes to, which is skipped when it lies in one of them.

    Returns:
        The files, sorted by path; a file that has several names once.

    Raises:
        InputError: A path names no file, or one that may not be read; or it is the output folder.
    """
    files: set[str] = set()
    remote: dict[str, InputFile] = {}
    skipped = os.path.realpath(out) if out is not None and not is_uri(out) else None
    for path in paths:
        if is_uri(path):
            remote.update(_find_remote(path, skipped=str(out) if is_uri(out) else None))
            continue
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
    found_files = [InputFile(path, *input_facts(path)) for path in by_target.values()]
    return sorted([*found_files, *remote.values()])


def _find_remote(uri: str, *, skipped: str | None) -> dict[str, InputFile]:
    """Returns the objects that a URI means, by their URIs."""
    from bertdata.remote_inputs import find_objects

    found = find_objects(uri, skipped=skipped)
    if not found:
        raise InputError(f"--input {uri}: no such object; give an object, a folder with objects in it, or a pattern")
    return {facts.name: InputFile(facts.name, facts.num_bytes, facts.modified_ns) for facts in found}


def _target(file: str, folders: dict[str, str]) -> str:
    """Returns the path of a file without links; that of its folder is known, as there may be many files in one."""
    folder, name = os.path.split(file)
    return os.path.realpath(file) if os.path.islink(file) else os.path.join(folders[folder], name)  # noqa: PTH114, PTH118


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
