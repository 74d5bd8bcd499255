"""Trying again: growing waits between tries that fail, and an end to them when nothing new comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bertdata.errors import DownloadError

__all__ = ["Retries", "WrongSizeError"]

_LOG = logging.getLogger(__name__)

_MILESTONE_BYTES = 1 << 20  # new ones; a server that always breaks off at the same place fails
MAX_WAIT_SECONDS = 120.0


class WrongSizeError(DownloadError):
    """What lies there has another size than it must have."""


@dataclass(kw_only=True, slots=True)
class Retries:
    """Counts the tries in a row that failed to fetch something.

    Attributes:
        where: What is fetched, for messages.
        start: Bytes that were at hand before.
        max_failures: How many tries may fail before another MiB has come.
        advice: What to do when they are used up; the end of the message.
        sleep: Waits for some seconds.
    """

    where: str
    max_failures: int
    advice: str
    start: int = 0
    sleep: Callable[[float], None] = time.sleep
    _failures: int = field(default=0, init=False)
    _milestone: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._milestone = self.start + _MILESTONE_BYTES

    def came_to(self, position: int) -> None:
        """Takes note of how many bytes are there now; after enough of them failures are forgotten."""
        if position >= self._milestone:
            self._failures, self._milestone = 0, position + _MILESTONE_BYTES

    def wait(
        self,
        problem: str,
        *,
        seconds: float = 0.0,
        max_failures: int | None = None,
        error: type[DownloadError] = DownloadError,
    ) -> None:
        """Waits after a try that failed, twice as long as the last time.

        Args:
            problem: What went wrong.
            seconds: For how long the server wants to be left alone.
            max_failures: How many tries may fail like this one, where it is another number.
            error: What is raised when they are used up.

        Raises:
            DownloadError: Too many tries in a row failed.
        """
        self._failures += 1
        if self._failures > (self.max_failures if max_failures is None else max_failures):
            raise error(f"{self.where}: {problem}, and {self._failures} tries in a row failed. {self.advice}")
        wait = max(min(seconds, MAX_WAIT_SECONDS), min(2.0 ** (self._failures - 1), MAX_WAIT_SECONDS))
        _LOG.info("%s: %s; trying again in %.0f s", self.where, problem, wait)
        self.sleep(wait)
