"""Files on this machine on their way to an object store, and what is kept here of a build whose output lies there.

    TMPDIR/bertdata-1000/uploads/3f09c2...      a file that is being written or uploaded, locked by its process
    TMPDIR/bertdata-1000/1b7e44.../             of one output folder: what Beam printed, what its workers are at

A file that is not locked was left behind by a process that was killed, whichever build it belonged to.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bertdata.errors import OutputError
from bertdata.file_locks import LockedFile, remove_if_unlocked

__all__ = ["LAUNCHER_VARIABLE", "local_folder_of", "open_upload", "sweep_uploads"]

LAUNCHER_VARIABLE = "BERTDATA_LAUNCHER_TMPDIR"
"""Name of the environment variable that tells workers on this machine where the launcher has its temporary files."""


def _own_folder() -> Path:
    """Returns the folder for all that this user's builds keep here, which nobody else may write to.

    Raises:
        OutputError: It is another user's.
    """
    # Workers have a folder for temporary files of their own, which is no place to leave word in.
    path = Path(os.environ.get(LAUNCHER_VARIABLE, tempfile.gettempdir())) / f"bertdata-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid() or path.is_symlink():
        raise OutputError(f"{path} belongs to another user; set TMPDIR to a folder of your own")
    return path


def local_folder_of(location: str) -> Path:
    """Returns the folder for what is kept here of an output folder elsewhere; it need not be there yet."""
    return _own_folder() / hashlib.sha256(location.encode()).hexdigest()[:16]


@contextmanager
def open_upload() -> Iterator[tuple[BinaryIO, Path]]:
    """Opens a new file for reading and writing, and removes it at the end; yields it and its path."""
    folder = _own_folder() / "uploads"
    folder.mkdir(exist_ok=True)
    while True:
        path = folder / secrets.token_hex(16)
        with LockedFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as locked:
            locked.lock(exclusive=True)
            if not path.exists():
                continue  # it was swept before it was locked
            try:
                with open(locked.descriptor, "r+b", closefd=False) as file:
                    yield file, path
            finally:
                path.unlink(missing_ok=True)
            return


def sweep_uploads() -> None:
    """Removes the files that killed processes left."""
    for path in (_own_folder() / "uploads").glob("*"):
        remove_if_unlocked(path)
