"""What lies in the folder of a cache, and in which order it makes room; see `bertdata.cache_folder`."""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from bertdata.file_locks import remove_if_unlocked
from bertdata.shards import SHARD_NAME

__all__ = ["Entry", "entries_in", "in_order_of_eviction"]

_LOG = logging.getLogger(__name__)

_DATA_SET = re.compile(r"[0-9a-f]{16}")
_SHARD = re.compile(r"([0-9a-f]{16}-)?" + SHARD_NAME.pattern)  # see `ShardCache.path_of`
_MAX_AWAITED_SECONDS = 3600.0  # what a job that is gone had fetched ahead is not kept for ever


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the cache.

    Attributes:
        path: Where it lies.
        num_bytes: Its size; of a partial file, that of the whole one.
        used: When it was used last, or came, in seconds since 1970.
        is_awaited: Whether it was fetched ahead, and not used yet.
    """

    path: Path
    num_bytes: int
    used: float
    is_awaited: bool


def entries_in(cache: Path) -> list[Entry]:
    """Returns what lies in a cache, without partial files of processes that are gone, which it removes."""
    entries = []
    for folder in (child for child in cache.iterdir() if _DATA_SET.fullmatch(child.name)):
        for child in os.scandir(folder):
            path = Path(child.path)
            if child.name.endswith(".part") and remove_if_unlocked(path):
                _LOG.info("%s is left over; removed", path)
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # somebody else tidies up
                continue
            is_awaited = status.st_atime == 0 and status.st_mtime > time.time() - _MAX_AWAITED_SECONDS
            entries.append(Entry(path, status.st_size, used=status.st_mtime, is_awaited=is_awaited))
    return entries


def in_order_of_eviction(entries: list[Entry], *, kept: set[Path], is_ahead: bool) -> list[Entry]:
    """Returns what may make room, for something that is fetched ahead or now."""
    shards = [entry for entry in entries if _SHARD.fullmatch(entry.path.name)]
    used = [entry for entry in shards if not entry.is_awaited and entry.path not in kept]
    used.sort(key=lambda entry: entry.used)
    if is_ahead:
        return used
    parts = [entry for entry in entries if entry.path.suffix == ".part" and entry.is_awaited]
    awaited = [entry for entry in shards if entry.is_awaited or entry.path in kept]
    return [*used, *(entry for some in (parts, awaited) for entry in sorted(some, key=lambda entry: -entry.used))]
