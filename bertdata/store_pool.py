"""The processes that talk to one bucket of an object store, and what becomes of a request that fails."""

from __future__ import annotations

import json
import os
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bertdata.errors import ConfigError, DownloadError
from bertdata.retries import Retries, WrongSizeError
from bertdata.store_client import StoreError, StoreProcess
from bertdata.uris import ADVICE, ADVICE_IF_REFUSED, location_of, options_in
from bertdata.web import NotFoundError

__all__ = ["StorePool"]

Result = TypeVar("Result")

_MAX_FAILURES_AT_FIRST = 2  # before the server has answered at all: its name may be wrong
_ALLOWED = {
    "s3": ("endpoint_override", "scheme", "region", "anonymous"),
    "gs": ("endpoint_override", "scheme", "anonymous"),
}


class StorePool:
    """Lends processes to threads; see `bertdata.object_stores.ObjectFolder` for its arguments.

    Attributes:
        location: The folder's URI without what may be a secret.
        folder: The bucket, and the path of the folder in it.
        was_answered: Whether the server has ever answered.
    """

    def __init__(
        self, uri: str, *, timeout: float, max_failures: int, sleep: Callable[[float], None], piece_bytes: int
    ) -> None:
        parts = urllib.parse.urlsplit(uri)
        if "@" in parts.netloc or not parts.netloc:
            raise ConfigError(
                f"{location_of(uri)}: it must be {parts.scheme}://bucket/folder; credentials come from the environment"
            )
        self.location = location_of(uri)
        self._scheme, self._bucket = parts.scheme, parts.netloc
        self.folder = f"{parts.netloc}/{urllib.parse.unquote(parts.path).strip('/')}".rstrip("/")
        self._options = options_in(uri, allowed=_ALLOWED[parts.scheme])
        self._timeout = timeout
        self._max_failures = max_failures
        self._sleep = sleep
        self._piece_bytes = piece_bytes
        self.was_answered = False
        self._idle: list[StoreProcess] = []
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def run(self, name: str, attempt: Callable[[StoreProcess], Result], *, advice: str = ADVICE_IF_REFUSED) -> Result:
        """Returns what an attempt returns, tried again."""
        retries = self.retries(self.where(name))
        while True:
            try:
                with self.process() as process:
                    result = attempt(process)
                self.was_answered = True
                return result
            except StoreError as error:
                self.raise_if_permanent(error, where=retries.where, advice=advice)
                self.wait(retries, error)

    def where(self, name: str) -> str:
        """Returns what an object is called in messages."""
        return f"{self.location}/{name}" if name else self.location

    def retries(self, where: str) -> Retries:
        """Returns a new count of tries."""
        return Retries(where=where, max_failures=self._max_failures, advice=ADVICE, sleep=self._sleep)

    def wait(self, retries: Retries, error: StoreError) -> None:
        """Waits after a try that failed; raises DownloadError when there were too many."""
        retries.wait(str(error), max_failures=None if self.was_answered else _MAX_FAILURES_AT_FIRST)

    def raise_if_permanent(self, error: StoreError, *, where: str, advice: str = ADVICE_IF_REFUSED) -> None:
        """Raises DownloadError for what another try does not change."""
        if not error.has_bucket:
            raise NotFoundError(f"{where}: there is no bucket {self._bucket}; {advice}") from error
        if error.is_missing:
            raise NotFoundError(f"{where}: nothing is there") from error
        if error.kind == "EOFError":
            raise WrongSizeError(f"{where}: {error}") from error
        if error.is_refusal:
            raise DownloadError(f"{where}: access is refused ({error}); {advice}") from error

    @contextmanager
    def process(self) -> Iterator[StoreProcess]:
        """Lends a process; it is ended where an answer was not taken to its end."""
        with self._lock:
            if self._owner != os.getpid():  # a fork has none of them
                self._idle, self._owner = [], os.getpid()
            process = self._idle.pop() if self._idle else None
        process = process or self._start()
        is_whole = False
        try:
            yield process
            is_whole = True
        except StoreError as error:
            is_whole = error.is_answer
            raise
        finally:
            if is_whole:
                with self._lock:
                    self._idle.append(process)
            else:
                process.kill()

    def _start(self) -> StoreProcess:
        options = self._options | {
            "scheme_of_store": self._scheme,
            "bucket": self._bucket,
            "timeout": self._timeout,
            "piece_bytes": self._piece_bytes,
        }
        # S3's client has a time-out of its own, for bytes that come; here whole pieces are waited for.
        seconds = self._timeout * 2 + 10 if self._scheme == "s3" else self._timeout
        return StoreProcess(json.dumps(options), timeout=seconds)

    def close(self) -> None:
        """Ends the processes that wait for something to do."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.kill()
