"""HTTP as a download needs it: tried again when the server or the way to it fails, and continued where it broke off."""

from __future__ import annotations

import http.client
import importlib.metadata
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message

from bertdata.errors import ConfigError, DownloadError
from bertdata.retries import Retries, WrongSizeError

__all__ = ["Http", "NotFoundError", "check_address"]

_PAGE = "https://pypi.org/project/bertdata"
_READ_BYTES = 1 << 16
_MAX_FAILURES_AT_FIRST = 2  # before the server has answered at all: its name may be wrong
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/")
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


def check_address(url: str, *, option: str = "--mirror") -> None:
    """Raises DownloadError for what is no address of a server; `option` is how it was given."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address or re.search(r"\s", url):
        raise DownloadError(f"{option} is {url!r}; it must be an address that begins with https:// or http://")


class NotFoundError(DownloadError):
    """There is nothing at the address."""


class Http:
    """Opens addresses.

    Args:
        timeout: Seconds without a byte after which a connection is given up.
        max_failures: How many tries may fail before another MiB has come.
        contact: Who fetches: a mail address or a page. Wikimedia asks tools for it, and turns away those without.
        advice: What to do when all tries failed, for messages.
        advice_if_refused: What to do when the server says no; None for what to do about a dump.
        sleep: Waits for some seconds between them.
    """

    def __init__(
        self,
        *,
        contact: str | None = None,
        timeout: float = 60.0,
        max_failures: int = 8,
        sleep: Callable[[float], None] = time.sleep,
        advice: str = "What came is kept; run the same command again to go on, or try another --mirror",
        advice_if_refused: str | None = None,
    ) -> None:
        if contact is not None and not re.fullmatch(r"[!-'*-~ ]+", contact):
            raise ConfigError(f"--contact is {contact!r}; it must be a mail address or the address of a page")
        version = importlib.metadata.version("bertdata")
        self._user_agent = f"bertdata/{version} ({contact or _PAGE}) Python-urllib"
        self._was_answered = False
        self._timeout = timeout
        self._max_failures = max_failures
        self._sleep = sleep
        self._advice = advice
        self._advice_if_refused = advice_if_refused

    def read(self, url: str) -> bytes:
        """Returns all that is at an address.

        Raises:
            NotFoundError: Nothing is.
            DownloadError: The server refuses it, or fails for good.
        """
        data = b""
        for start, part in self.iter_bytes(url, start=0, num_bytes=None):
            data = data[:start] + part
        return data

    def iter_bytes(self, url: str, *, start: int, num_bytes: int | None) -> Iterator[tuple[int, bytes]]:
        """Yields the bytes at an address from `start` on, over as many connections as it takes.

        Args:
            url: The address.
            start: How many bytes are at hand already.
            num_bytes: How many there are in all; None to believe the server.

        Yields:
            (place of the first byte, bytes). A place other than the expected one means that the server cannot continue:
            what came from there on is void.

        Raises:
            NotFoundError: Nothing is there.
            DownloadError: The server refuses it, or fails for good.
        """
        shown = url.partition("?")[0]  # what follows may be a secret
        retries = Retries(
            where=shown, start=start, max_failures=self._max_failures, advice=self._advice, sleep=self._sleep
        )
        position = start
        while num_bytes is None or position < num_bytes:
            problem, asked, kind = "", 0.0, DownloadError
            try:
                with self._open(url, position) as response:
                    self._was_answered = True
                    begins, total = _range_of(response)
                    if begins != position:
                        if begins != 0:
                            raise DownloadError(f"{shown}: asked for byte {position:,} and got {begins:,}")
                        position = 0
                    num_bytes = num_bytes if num_bytes is not None else total
                    while data := response.read(_READ_BYTES):
                        yield position, data
                        position += len(data)
                        retries.came_to(position)
                if num_bytes is None:
                    return
                problem = f"the connection ended at byte {position:,} of {num_bytes:,}"
                kind = WrongSizeError if total == position else DownloadError
            except urllib.error.HTTPError as error:
                self._was_answered = True
                with error:
                    if error.code == 416 and position > 0:  # nothing comes after what we have
                        if _total_of(error.headers) == position:
                            return
                        position = 0  # we have more than there is, so it is not the same
                    elif error.code not in _TRANSIENT:
                        raise _refusal(shown, error, advice=self._advice_if_refused) from error
                    problem = f"status {error.code}"
                    asked = _retry_after(error.headers)
            except (OSError, http.client.HTTPException) as error:
                problem = f"{error or type(error).__name__}"
            if num_bytes is not None and position >= num_bytes:
                return
            most = None if self._was_answered else _MAX_FAILURES_AT_FIRST
            retries.wait(problem, seconds=asked, max_failures=most, error=kind)

    def _open(self, url: str, position: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity"}
        if position:
            headers["Range"] = f"bytes={position}-"
        request = urllib.request.Request(url, headers=headers)
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self._timeout)
        return response


def _range_of(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Returns the place of a response's first byte in the whole, and how many bytes the whole has, if it says so."""
    if response.status == 206 and (match := _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))):
        return int(match[1]), _total_of(response.headers)
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _total_of(headers: Message) -> int | None:
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _retry_after(headers: Message) -> float:
    """Returns for how many seconds the server wants to be left alone."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


def _refusal(url: str, error: urllib.error.HTTPError, *, advice: str | None) -> DownloadError:
    if error.code == 404:
        return NotFoundError(f"{url}: nothing is there (status 404)")
    if advice is None:
        advice = "try another --mirror"
        if error.code == 403:
            advice = f"say who you are with --contact, or {advice}"
    return DownloadError(f"{url}: the server refuses it (status {error.code}, {error.reason}); {advice}")
