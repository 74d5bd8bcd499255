"""Folders that lie elsewhere, by their URI.

    s3://bucket/folder                               credentials, region and endpoint from the environment or ~/.aws
    s3://bucket/folder?endpoint_override=host:9000&scheme=http&region=eu-west-1&anonymous=true
    gs://bucket/folder                               Google's application default credentials; anonymous, ... as above
    https://host/folder, http://host/folder          what follows ? is given with each file

AWS_ENDPOINT_URL names the server of a store that speaks S3's protocol, too.
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Protocol

from bertdata.errors import ConfigError, ShardError
from bertdata.retries import WrongSizeError
from bertdata.uris import ADVICE, ADVICE_IF_REFUSED, MAX_FAILURES, location_of, path_in
from bertdata.web import Http, check_address

__all__ = ["RemoteFolder", "open_remote", "read_remote"]


class RemoteFolder(Protocol):
    """A folder that lies elsewhere."""

    location: str  # its URI without what may be a secret

    def iter_bytes(self, name: str, *, num_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yields the bytes of a file, tried again where the server or the way to it fails.

        Args:
            name: Name of the file, or its path from the folder with forward slashes.
            num_bytes: How many there must be; None to believe the server.

        Yields:
            (place of the first byte, bytes). A place before the end of what came means that it came in vain.

        Raises:
            NotFoundError: Nothing is there.
            WrongSizeError: The file has another size.
            DownloadError: The server refuses it, or fails for good.
        """

    def close(self) -> None:
        """Ends what was started for it."""


def open_remote(
    uri: str, *, timeout: float = 60.0, max_failures: int = MAX_FAILURES, sleep: Callable[[float], None] = time.sleep
) -> RemoteFolder:
    """Opens the folder at a URI; nothing is fetched yet.

    Args:
        uri: See above.
        timeout: Seconds without a byte after which a connection is given up.
        max_failures: How many tries may fail before another MiB has come.
        sleep: Waits for some seconds between them.

    Raises:
        ConfigError: It is no such URI.
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return _WebFolder(uri, timeout=timeout, max_failures=max_failures, sleep=sleep)
    if parts.scheme in ("s3", "gs"):
        from bertdata.object_stores import ObjectFolder

        return ObjectFolder(uri, timeout=timeout, max_failures=max_failures, sleep=sleep)
    raise ConfigError(f"{location_of(uri)}: data sets are read from local folders, s3://, gs://, https:// and http://")


def read_remote(folder: RemoteFolder, name: str, *, max_bytes: int) -> bytes:
    """Returns the content of a small file.

    Raises:
        NotFoundError: It is not there.
        DownloadError: The server refuses it, or fails for good.
        ShardError: It has more than `max_bytes`.
    """
    data = bytearray()
    for start, part in folder.iter_bytes(name):
        del data[start:]
        data += part
        if len(data) > max_bytes:
            raise ShardError(f"{folder.location}/{name} has more than the {max_bytes:,} bytes that are allowed")
    return bytes(data)


class _WebFolder:
    """A folder on a web server."""

    def __init__(self, uri: str, *, timeout: float, max_failures: int, sleep: Callable[[float], None]) -> None:
        check_address(uri, option="the data set's address")
        parts = urllib.parse.urlsplit(uri)
        if "@" in parts.netloc:
            raise ConfigError(f"{location_of(uri)}: an address cannot hold a user name or password; leave them out")
        self.location = location_of(uri)
        self._parts = parts
        self._http = Http(
            timeout=timeout,
            max_failures=max_failures,
            sleep=sleep,
            advice=ADVICE,
            advice_if_refused=ADVICE_IF_REFUSED,
        )

    def iter_bytes(self, name: str, *, num_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
        """See `RemoteFolder.iter_bytes`."""
        # A query belongs to each file: it may be what gives access.
        path = path_in(self._parts.netloc + self._parts.path.rstrip("/"), urllib.parse.quote(name))
        url = f"{self._parts.scheme}://{path}" + (f"?{self._parts.query}" if self._parts.query else "")
        position = 0
        for start, data in self._http.iter_bytes(url, start=0, num_bytes=num_bytes):
            position = start + len(data)
            if num_bytes is not None and position > num_bytes:
                raise WrongSizeError(f"{self.location}/{name} has more than {num_bytes:,} bytes")
            yield start, data
        if num_bytes is not None and position != num_bytes:
            raise WrongSizeError(f"{self.location}/{name} has {position:,} bytes, not {num_bytes:,}")

    def close(self) -> None:
        """Does nothing: connections last for one file."""
