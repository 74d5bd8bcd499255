"""Fetching shards before they are needed, in a few threads in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from bertdata.cache_folder import NoPart, PartFile
from bertdata.manifest import ShardEntry

__all__ = ["DroppedError", "Prefetcher"]

_LOG = logging.getLogger(__name__)

_POLL_SECONDS = 0.1  # other processes do not tell when they leave room


class DroppedError(Exception):
    """A fetch is given up, since somebody needs its room now."""


class Prefetcher:
    """Fetches what is wished for, in order.

    Args:
        reserve: Makes a partial file for a shard, or says why there is none.
        fetch: Fills it and gives it its name.
        is_room_wanted: Whether somebody waits for room.
        num_threads: How many shards are fetched at the same time at most.
    """

    def __init__(
        self,
        *,
        reserve: Callable[[ShardEntry], PartFile | NoPart],
        fetch: Callable[[ShardEntry, PartFile], None],
        is_room_wanted: Callable[[], bool],
        num_threads: int,
    ) -> None:
        self._reserve = reserve
        self._fetch = fetch
        self._is_room_wanted = is_room_wanted
        self._num_threads = num_threads
        self._changed = threading.Condition()
        self._turn = threading.Lock()  # one reserves at a time, so that shards come in order
        self._wishes: list[ShardEntry] = []
        self._awaited: dict[str, ShardEntry] = {}
        self._threads = 0
        self._is_closed = False

    def wish(self, shards: Sequence[ShardEntry]) -> None:
        """Replaces what is wished for."""
        with self._changed:
            self._wishes = list(shards)
            self._awaited = {shard.name: shard for shard in shards}
            self._is_closed = False
            while self._threads < min(self._num_threads, len(shards)):
                self._threads += 1
                threading.Thread(target=self._run, daemon=True, name="prefetch").start()
            self._changed.notify_all()

    def awaited(self) -> list[ShardEntry]:
        """Returns what was wished for and not used since."""
        with self._changed:
            return list(self._awaited.values())

    @property
    def is_closed(self) -> bool:
        """Whether nothing is to be fetched any more."""
        return self._is_closed

    def used(self, shard: ShardEntry) -> None:
        """Takes note that a shard is there and used; it makes room for others."""
        if shard.name in self._awaited:
            with self._changed:
                self._awaited.pop(shard.name, None)
                self._wishes = [wish for wish in self._wishes if wish.name != shard.name]
                self._changed.notify_all()

    def close(self) -> None:
        """Ends all threads, as soon as they notice."""
        with self._changed:
            self._is_closed = True
            self._wishes = []
            self._changed.notify_all()

    def _run(self) -> None:
        while chosen := self._choose():
            shard, part = chosen
            try:
                self._fetch(shard, part)
            except DroppedError:
                with self._changed:
                    if shard.name in self._awaited and not self._is_closed:
                        self._wishes.insert(0, shard)
            except Exception as error:
                # Who needs the shard fetches it again, and raises what is wrong.
                _LOG.debug("%s was not fetched ahead: %s", shard.name, error)

    def _choose(self) -> tuple[ShardEntry, PartFile] | None:
        """Returns the next wish with a partial file for it; None where there is no wish, and the thread ends."""
        with self._turn:
            while True:
                with self._changed:
                    if not self._wishes:
                        self._threads -= 1
                        return None
                    shard = self._wishes[0]
                try:
                    found = NoPart.NO_ROOM if self._is_room_wanted() else self._reserve(shard)
                except Exception as error:
                    _LOG.debug("%s was not fetched ahead: %s", shard.name, error)
                    found = NoPart.IS_THERE
                with self._changed:
                    if found is NoPart.NO_ROOM:
                        self._changed.wait(timeout=_POLL_SECONDS)
                        continue
                    self._wishes = [wish for wish in self._wishes if wish.name != shard.name]
                if isinstance(found, PartFile):
                    return shard, found
