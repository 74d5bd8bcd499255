"""A folder of fetched files that never holds more than it may, shared by threads and processes.

    ~/.cache/bertdata/
    ├── .lock                                  held while files are counted, made room for, named and removed
    ├── .wanted                                held by who needs a shard now and waits for room
    └── 3f9a0c77d1e2b450/                      one data set, by the first digits of its fingerprint
        ├── manifest.json, index.arrow ...     its small files
        ├── train-00000-of-00064.tar           a whole shard; locked (shared) while it is read
        └── .train-00001-of-00064.tar.part     one that is fetched; locked (exclusive) by who does

A partial file has its full size from the start, so the sizes of what lies there are the room that is taken, at every
moment and after any process was killed. A partial file without a lock is that of a process that is gone; who makes room
next removes it. Only shards are evicted, and never one that is locked: those used longest ago first.

What is fetched before it is needed has an access time of 0 until it is used. It makes room only for what is needed now,
and after all others: first partial files, whose process notices that they have no name any more, then whole ones, each
the latest first.
"""

from __future__ import annotations

import enum
import errno
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bertdata.errors import OutputError
from bertdata.eviction import Entry, entries_in, in_order_of_eviction
from bertdata.file_locks import LockedFile, remove_if_unlocked

__all__ = ["CacheFolder", "NoPart", "PartFile"]


class NoPart(enum.Enum):
    """Why there is no partial file to be filled."""

    IS_THERE = "the file is there already"
    IS_FETCHED = "another thread or process is fetching it"
    NO_ROOM = "all that lies there is in use, or kept"


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file that is being fetched, of its full size and locked."""

    path: Path
    target: Path
    file: LockedFile

    @property
    def is_revoked(self) -> bool:
        """Whether its room was taken for something that is needed now."""
        return os.fstat(self.file.descriptor).st_nlink == 0

    def write(self, data: bytes, position: int) -> None:
        """Writes bytes to their place."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.file.descriptor, view, position)
            view, position = view[written:], position + written


class CacheFolder:
    """The folder, and what may be done with it.

    Args:
        path: Where it is.
        max_bytes: What it may hold; None for nine tenths of what it holds and what is free on its disk.

    Raises:
        OutputError: It cannot be written to.
    """

    def __init__(self, path: Path, *, max_bytes: int | None) -> None:
        self.path = path
        with self._errors():
            self.path.mkdir(parents=True, exist_ok=True)
            if max_bytes is None:
                with self._lock():
                    held = sum(entry.num_bytes for entry in entries_in(self.path))
                max_bytes = (held + shutil.disk_usage(self.path).free) * 9 // 10
        self.max_bytes = max_bytes
        self.num_evicted = 0

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"the cache {self.path} cannot be used: {error.filename or ''} {error.strerror or error}; give another "
                "--cache"
            ) from error

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with LockedFile(self.path / ".lock") as file:
            file.lock(exclusive=True)
            yield

    def reserve(
        self,
        target: Path,
        num_bytes: int,
        *,
        kept: Collection[Path] = (),
        is_ahead: bool = False,
        replace: bool = False,
    ) -> PartFile | NoPart:
        """Makes room for a file that is to be fetched, and a partial file of its size.

        Args:
            target: What it is called when it is whole.
            num_bytes: Its size.
            kept: Files that are evicted last.
            is_ahead: Whether it is fetched before it is needed; what was fetched so and `kept` stays then.
            replace: Whether there may be a file of that name.

        Raises:
            OutputError: The folder can never hold it, the disk is full, or the folder cannot be written to.
        """
        with self._errors(), self._lock():
            target.parent.mkdir(exist_ok=True)
            if target.exists() and not replace:
                return NoPart.IS_THERE
            path = target.with_name(f".{target.name}.part")
            file = LockedFile(path)
            try:
                if not file.try_lock(exclusive=True):
                    file.close()
                    return NoPart.IS_FETCHED
                os.ftruncate(file.descriptor, 0)  # of a process that is gone
                if not self._make_room(num_bytes, name=target.name, kept=kept, is_ahead=is_ahead):
                    path.unlink()
                    file.close()
                    return NoPart.NO_ROOM
                self._allocate(file, num_bytes, name=target.name)
                _set_times(file, is_ahead=is_ahead)
            except BaseException:
                path.unlink(missing_ok=True)
                file.close()
                raise
            return PartFile(path, target, file)

    def _make_room(self, num_bytes: int, *, name: str, kept: Collection[Path], is_ahead: bool) -> bool:
        """Evicts shards until there is room, and returns whether there is."""
        entries = entries_in(self.path)
        missing = sum(entry.num_bytes for entry in entries) + num_bytes - self.max_bytes
        if missing <= 0:
            return True
        self._check_fits(name, num_bytes, entries)
        evictable = in_order_of_eviction(entries, kept=set(kept), is_ahead=is_ahead)
        if sum(entry.num_bytes for entry in evictable) < missing:
            return False
        for entry in evictable:
            if missing <= 0:
                break
            if entry.path.suffix == ".part":
                os.truncate(entry.path, 0)
                entry.path.unlink()
            elif not remove_if_unlocked(entry.path):
                continue
            self.num_evicted += entry.path.suffix == ".tar"
            missing -= entry.num_bytes
        return missing <= 0

    def check_fits(self, name: str, num_bytes: int) -> None:
        """Raises OutputError for a file that the folder cannot hold, whatever is evicted."""
        with self._errors(), self._lock():
            self._check_fits(name, num_bytes, entries_in(self.path))

    def _check_fits(self, name: str, num_bytes: int, entries: list[Entry]) -> None:
        stays = sum(entry.num_bytes for entry in entries if not entry.path.name.endswith((".tar", ".part")))
        if stays + num_bytes > self.max_bytes:
            others = f" beside {stays:,} bytes of small files" if stays else ""
            raise OutputError(
                f"{name} has {num_bytes:,} bytes{others}, and the cache {self.path} may hold {self.max_bytes:,}; give "
                "a larger --cache-size"
            )

    def _allocate(self, file: LockedFile, num_bytes: int, *, name: str) -> None:
        """Gives a file its size, and takes the room on the disk where the file system can."""
        try:
            if num_bytes:
                os.posix_fallocate(file.descriptor, 0, num_bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self.is_full(name, num_bytes) from error
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            os.ftruncate(file.descriptor, num_bytes)

    def is_full(self, name: str, num_bytes: int) -> OutputError:
        """Returns the error of a full disk."""
        free = shutil.disk_usage(self.path).free
        return OutputError(
            f"{name} needs {num_bytes:,} bytes, and the disk of {self.path} has {free:,} free; make room there, or "
            "give another --cache"
        )

    def commit(self, part: PartFile, *, is_ahead: bool = False) -> LockedFile | None:
        """Gives a file that is whole its name.

        Returns:
            It, locked (shared) against eviction; None where it was revoked.
        """
        with self._errors(), self._lock():
            if part.is_revoked:
                part.file.close()
                return None
            _set_times(part.file, is_ahead=is_ahead)
            part.path.replace(part.target)
            part.file.lock(exclusive=False)
        return part.file

    def drop(self, part: PartFile) -> None:
        """Removes a partial file."""
        with self._errors(), self._lock():
            if not part.is_revoked:  # else there may be another one of its name
                part.path.unlink()
            part.file.close()

    def mark_used(self, path: Path) -> None:
        """Makes a file that was fetched ahead like all others, also where it was not used."""
        with self._errors(), self._lock():
            if path.exists():
                status = path.stat()
                os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def remove(self, path: Path, *, inode: int | None = None) -> None:
        """Removes a file, whoever reads it; with `inode` only if it is still that one."""
        with self._errors(), self._lock():
            if path.exists() and inode in (None, path.stat().st_ino):
                path.unlink()

    @contextmanager
    def wanting_room(self) -> Iterator[None]:
        """Keeps those who fetch ahead from taking room while the context lasts."""
        with LockedFile(self.path / ".wanted") as file:
            file.lock(exclusive=True)
            yield

    def is_room_wanted(self) -> bool:
        """Returns whether somebody waits for room."""
        with LockedFile(self.path / ".wanted") as file:
            return not file.try_lock(exclusive=False)


def _set_times(file: LockedFile, *, is_ahead: bool) -> None:
    now = time.time()
    os.utime(file.descriptor, (0 if is_ahead else now, now))
