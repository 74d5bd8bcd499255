"""The shards of a remote data set, fetched whole into a local folder when they are needed or shortly before."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from bertdata.cache_folder import CacheFolder, NoPart, PartFile
from bertdata.errors import OutputError, ShardError
from bertdata.file_locks import LockedFile
from bertdata.manifest import ShardEntry
from bertdata.prefetching import DroppedError, Prefetcher
from bertdata.remote import RemoteFolder, open_remote
from bertdata.retries import WrongSizeError
from bertdata.uris import location_of
from bertdata.web import NotFoundError

__all__ = ["ShardCache"]

_LOG = logging.getLogger(__name__)

_NUM_THREADS = 4
_MAX_FAILURES_AHEAD = 2
_MAX_DISCARDS = 4  # of a shard by one process; then it is the source that is damaged
_MAX_WAIT_SECONDS = 600.0  # for room, and then for who holds it
_PAUSE_SECONDS = 0.1
_POLL_SECONDS = 0.01  # other processes do not tell when they leave room


class ShardCache:
    """Fetches shards and keeps them, see `bertdata.shard_files.ShardFiles` and `bertdata.cache_folder`.

    It may be shared by threads, forked and pickled: a process opens anew what it needs.

    Args:
        uri: Where the data set lies.
        fingerprint: That of its manifest.
        folder: Folder of the cache.
        max_bytes: What it may hold; None as in `CacheOptions`.
        timeout: Seconds without a byte after which a connection is given up.
        sleep: Waits for some seconds between tries.
    """

    def __init__(
        self,
        uri: str,
        *,
        fingerprint: str,
        folder: Path,
        max_bytes: int | None,
        timeout: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.uri = uri
        self.max_bytes = CacheFolder(folder, max_bytes=max_bytes).max_bytes
        self.folder = folder / fingerprint[:16]
        self._timeout = timeout
        self._sleep = sleep
        self._processes: dict[int, _Process] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_processes": {}}

    @property
    def num_fetched(self) -> int:
        """Shards that this process fetched."""
        return self._process.counts["shards now"] + self._process.counts["shards ahead"]

    @property
    def num_fetched_ahead(self) -> int:
        """Those of them that were fetched before they were needed."""
        return self._process.counts["shards ahead"]

    @property
    def bytes_fetched(self) -> int:
        """Bytes of the shards that this process fetched."""
        return self._process.counts["bytes"]

    @property
    def num_evicted(self) -> int:
        """Shards that this process removed to make room."""
        return self._process.folder.num_evicted

    @property
    def _process(self) -> _Process:
        """What belongs to this process; after a fork, to the child."""
        pid = os.getpid()
        # In one step: several threads may come here first, and no lock outlives a fork.
        return self._processes.get(pid) or self._processes.setdefault(pid, _Process(self))

    def open_remote(self, *, is_ahead: bool = False) -> RemoteFolder:
        """Opens where the data set lies."""
        if not is_ahead:
            return open_remote(self.uri, timeout=self._timeout, sleep=self._sleep)
        return open_remote(self.uri, timeout=self._timeout, max_failures=_MAX_FAILURES_AHEAD, sleep=self._pause)

    def _pause(self, seconds: float) -> None:
        """Waits between tries to fetch ahead, which are given up where somebody waits for room."""
        while seconds > 0:
            if self._process.prefetcher.is_closed or self._process.folder.is_room_wanted():
                raise DroppedError
            self._sleep(min(seconds, _PAUSE_SECONDS))
            seconds -= _PAUSE_SECONDS

    def path_of(self, shard: ShardEntry) -> Path:
        """Returns where a shard lies when it is there."""
        name = PurePosixPath(shard.name).name
        # Shards of a merged data set lie in several folders, and may have equal names.
        return self.folder / (name if name == shard.name else f"{shard.sha256[:16]}-{name}")

    @contextmanager
    def open(self, shard: ShardEntry) -> Iterator[Path]:
        """Gives the file of a shard, fetched if need be; it is not evicted while the context lasts.

        Raises:
            ShardError: It is missing, or has another size than the manifest says.
            DownloadError: The server refuses it, or fails for good.
            OutputError: The cache is too small for it, or its disk is full.
        """
        process, path = self._process, self.path_of(shard)
        file = self._pin(shard, path) or self._fetch_now(shard, path)
        try:
            process.opened[shard.name] = os.fstat(file.descriptor).st_ino
            process.prefetcher.used(shard)
            yield path
        finally:
            file.close()

    def _pin(self, shard: ShardEntry, path: Path) -> LockedFile | None:
        """Returns the file of a shard, locked against eviction; None where it is not there, or has the wrong size."""
        try:
            file = LockedFile(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        file.lock(exclusive=False)
        status = os.fstat(file.descriptor)
        if status.st_nlink and status.st_size == shard.num_bytes:
            os.utime(file.descriptor)
            return file
        file.close()
        if status.st_nlink:
            _LOG.warning("%s has %d bytes, not %d; fetching it again", path, status.st_size, shard.num_bytes)
            self._process.folder.remove(path, inode=status.st_ino)
        return None

    def _fetch_now(self, shard: ShardEntry, path: Path) -> LockedFile:
        """Fetches a shard, or waits until another thread or process has; returns it as `_pin` does."""
        process = self._process
        while True:
            part = process.folder.reserve(path, shard.num_bytes, kept=self._kept())
            if part is NoPart.NO_ROOM:
                part = self._wait_for_room(shard, path)
            if isinstance(part, PartFile):
                self._fetch(shard, part)
                file = process.folder.commit(part)
                if file is not None:
                    process.count("shards now")
                    process.count("bytes", shard.num_bytes)
                    return file
            if part is NoPart.IS_FETCHED:
                _wait_for_part(path.with_name(f".{path.name}.part"))
            file = self._pin(shard, path)
            if file is not None:
                return file

    def _wait_for_room(self, shard: ShardEntry, path: Path) -> PartFile | NoPart:
        """Waits until there is room; what is read is in use for a moment only."""
        folder, end = self._process.folder, time.monotonic() + _MAX_WAIT_SECONDS
        with folder.wanting_room():
            while (part := folder.reserve(path, shard.num_bytes, kept=self._kept())) is NoPart.NO_ROOM:
                if time.monotonic() > end:
                    raise OutputError(
                        f"{shard.name} needs {shard.num_bytes:,} bytes, and the {self.max_bytes:,} that the cache "
                        f"{folder.path} may hold were all in use for {_MAX_WAIT_SECONDS:.0f} s; give a larger "
                        "--cache-size"
                    )
                time.sleep(_POLL_SECONDS)
        return part

    def _kept(self) -> list[Path]:
        return [self.path_of(shard) for shard in self._process.prefetcher.awaited()]

    def _fetch(self, shard: ShardEntry, part: PartFile, *, is_ahead: bool = False) -> None:
        """Fills a partial file; removes it where that fails, for the reasons that `open` names."""
        process = self._process
        remote = process.remote_ahead if is_ahead else process.remote
        try:
            for start, data in remote.iter_bytes(shard.name, num_bytes=shard.num_bytes):
                if is_ahead and (part.is_revoked or process.prefetcher.is_closed):
                    raise DroppedError
                part.write(data, start)
        except BaseException as error:
            process.folder.drop(part)
            if isinstance(error, (NotFoundError, WrongSizeError)):
                raise ShardError(f"{error}; copy the data set there again") from error
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise process.folder.is_full(shard.name, shard.num_bytes) from error
            raise

    def _reserve_ahead(self, shard: ShardEntry) -> PartFile | NoPart:
        folder = self._process.folder
        return folder.reserve(self.path_of(shard), shard.num_bytes, kept=self._kept(), is_ahead=True)

    def _fetch_ahead(self, shard: ShardEntry, part: PartFile) -> None:
        process = self._process
        self._fetch(shard, part, is_ahead=True)
        file = process.folder.commit(part, is_ahead=True)
        if file is None:
            raise DroppedError
        file.close()
        process.count("shards ahead")
        process.count("bytes", shard.num_bytes)

    def discard(self, shard: ShardEntry) -> bool:
        """Removes the copy that this thread opened last; it is fetched again a few times, then the source is bad."""
        process = self._process
        if process.count(f"discarded {shard.name}") > _MAX_DISCARDS:
            return False
        process.folder.remove(self.path_of(shard), inode=process.opened.get(shard.name))
        return True

    def check(self, shards: Sequence[ShardEntry]) -> None:
        """Removes what is there of `shards` and has the wrong size.

        Raises:
            OutputError: One of the shards is larger than the cache may be.
        """
        folder, missing = self._process.folder, []
        for shard in shards:
            path = self.path_of(shard)
            num_bytes = path.stat().st_size if path.exists() else None
            if num_bytes != shard.num_bytes:
                missing.append(shard)
                if num_bytes is not None:
                    _LOG.warning("%s has %d bytes, not %d; removed", path, num_bytes, shard.num_bytes)
                    folder.remove(path)
        if not missing:
            return
        largest = max(missing, key=lambda shard: shard.num_bytes)
        folder.check_fits(largest.name, largest.num_bytes)
        _LOG.info(
            "%s: %d of %d shards (%.1f MB) are not in %s yet and are fetched when they are needed; it may hold %.1f MB",
            *(location_of(self.uri), len(missing), len(shards), sum(shard.num_bytes for shard in missing) / 1e6),
            *(self.folder.parent, self.max_bytes / 1e6),
        )

    def prefetch(self, shards: Sequence[ShardEntry]) -> None:
        """Fetches shards in the background, in order; instead of those that were wished for before."""
        prefetcher, names = self._process.prefetcher, {shard.name for shard in shards}
        for shard in prefetcher.awaited():
            if shard.name not in names:
                self._process.folder.mark_used(self.path_of(shard))
        prefetcher.wish(shards)

    def close(self) -> None:
        """Ends what goes on in the background; what comes after starts it anew."""
        if process := self._processes.get(os.getpid()):
            self.prefetch([])
            process.prefetcher.close()
            process.remote.close()
            process.remote_ahead.close()


class _Process:
    """What a cache has in one process: its threads, and what is open."""

    def __init__(self, cache: ShardCache) -> None:
        self.folder = CacheFolder(cache.folder.parent, max_bytes=cache.max_bytes)
        self.remote = cache.open_remote()
        self.remote_ahead = cache.open_remote(is_ahead=True)
        self.prefetcher = Prefetcher(
            reserve=cache._reserve_ahead,
            fetch=cache._fetch_ahead,
            is_room_wanted=self.folder.is_room_wanted,
            num_threads=_NUM_THREADS,
        )
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._thread = threading.local()

    @property
    def opened(self) -> dict[str, int]:
        """Inodes of the files that this thread opened last, by name of the shard."""
        found: dict[str, int] = self._thread.__dict__
        return found

    def count(self, what: str, number: int = 1) -> int:
        """Counts, and returns how many there are now."""
        with self._lock:
            self.counts[what] += number
            return self.counts[what]


def _wait_for_part(part: Path) -> None:
    """Waits until a partial file is whole, given up, revoked, or that of a process that is gone."""
    try:
        with LockedFile(part, os.O_RDONLY) as file:
            while os.fstat(file.descriptor).st_nlink and not file.try_lock(exclusive=False):
                time.sleep(_POLL_SECONDS)
    except FileNotFoundError:
        pass
