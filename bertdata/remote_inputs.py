"""Input files in object stores: which ones a URI means, and reading them by ranges.

    s3://bucket/dumps/wiki.xml.bz2         an object
    s3://bucket/dumps                      all objects in a folder and below, but for hidden ones
    s3://bucket/dumps/**/*-page?.bz2       no: what follows ? are options, see `bertdata.remote`
    s3://bucket/dumps/**/wiki-[0-9]*.bz2   a pattern: * is anything within a name, ** any folders

A path of an input is the URI of one object, options and all; they hold no credentials.
"""

from __future__ import annotations

import atexit
import io
import posixpath
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from bertdata.errors import ChangedInputError, ConfigError, DownloadError, InputError
from bertdata.object_stores import ObjectFacts, ObjectFolder
from bertdata.uris import location_of
from bertdata.web import NotFoundError

__all__ = ["RemoteFile", "close_buckets", "find_objects", "iter_parts", "object_facts"]

BLOCK_BYTES = 1 << 22  # of one request when a file is read on and on; the next one is fetched meanwhile
_FIRST_BYTES = 1 << 16  # of the first request after the end of a range: there is the rest of one record
_GLOB = re.compile(r"[*\[]")


_OPENED: dict[tuple[str, str, str], ObjectFolder] = {}  # buckets


@atexit.register
def close_buckets() -> None:
    """Ends the processes that were started for inputs."""
    while _OPENED:
        _OPENED.popitem()[1].close()


def _store_of(uri: str) -> tuple[ObjectFolder, str]:
    """Returns the bucket of a URI, and the name in it."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in ("s3", "gs"):
        raise ConfigError(
            f"--input {location_of(uri)}: input is read from local files, s3:// and gs://; copy it to one of these"
        )
    bucket = parts.scheme, parts.netloc, parts.query
    if bucket not in _OPENED:
        _OPENED[bucket] = ObjectFolder(urllib.parse.urlunsplit((*bucket[:2], "", bucket[2], "")))
    return _OPENED[bucket], urllib.parse.unquote(parts.path).strip("/")


def find_objects(uri: str, *, skipped: str | None = None) -> list[ObjectFacts]:
    """Lists the objects that are meant by a URI; their names are URIs, too.

    Args:
        uri: An object, a folder or a pattern.
        skipped: URI of a folder to be left out.

    Raises:
        InputError: The store refuses it, or fails for good.
        ConfigError: It is no such URI.
    """
    folder, name = _store_of(uri)
    pattern = urllib.parse.urlsplit(uri).path.strip("/") if _GLOB.search(name) else None
    try:
        if pattern is None:
            facts = folder.facts(name) if name else None
            if facts is not None:
                return [facts._replace(name=_uri_of(uri, name), etag="")]
            found, base = folder.list_objects(name), name
        else:
            base = posixpath.dirname(_GLOB.split(name)[0])
            regex = _regex_of(urllib.parse.unquote(pattern))
            found = [facts for facts in folder.list_objects(base) if regex.fullmatch(facts.name)]
    except DownloadError as error:
        raise InputError(f"--input {error}") from error
    left_out = _outputs_in([facts.name for facts in found], base=base)
    if skipped is not None and location_of(_uri_of(skipped, "")) == location_of(_uri_of(uri, "")):
        out = _store_of(skipped)[1]
        if name == out:
            raise InputError(f"--input {location_of(uri)} is the output folder; give another --out")
        left_out.add(out)
    return [
        facts._replace(name=_uri_of(uri, facts.name))
        for facts in found
        if not any(part.startswith(".") for part in facts.name[len(base) :].split("/"))
        and left_out.isdisjoint(_folders_of(facts.name))
    ]


def _uri_of(uri: str, name: str) -> str:
    """Returns the URI of an object in the same bucket."""
    parts = urllib.parse.urlsplit(uri)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, "/" + urllib.parse.quote(name), parts.query, ""))


def _folders_of(name: str) -> Iterator[str]:
    while name:
        name = posixpath.dirname(name)
        yield name


def _outputs_in(names: Sequence[str], *, base: str) -> set[str]:
    """Returns the folders below `base` that hold a build, finished or not."""
    by_end: dict[str, set[str]] = {"manifest.json": set(), "index.arrow": set()}
    found = set()
    for name in names:
        head, separator, _ = name.partition("/.work/")
        if separator:
            found.add(head)
        folder, end = posixpath.split(name)
        if end in by_end:
            by_end[end].add(folder)
    return (found | (by_end["manifest.json"] & by_end["index.arrow"])) - {base}


def _regex_of(pattern: str) -> re.Pattern[str]:
    """Returns what matches the names that a pattern means, and all in the folders that it means."""
    parts = re.split(r"(\*\*/|\*\*|\*|\[[^\]/]+\])", pattern)
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return re.compile(
        "".join(
            meanings.get(part) or (part.replace("[!", "[^") if part.startswith("[") else re.escape(part))
            for part in parts
        )
        + "(?:/.*)?"
    )


def object_facts(uri: str) -> ObjectFacts | None:
    """Returns facts about an object as it is now; None where it is not there.

    Raises:
        InputError: The store refuses it, or fails for good.
    """
    folder, name = _store_of(uri)
    try:
        return folder.facts(name)
    except DownloadError as error:
        raise InputError(str(error)) from error


def iter_parts(parts: Sequence[tuple[str, int, int]]) -> Iterator[bytes]:
    """Yields parts of objects of one bucket, several of which are fetched at once.

    Args:
        parts: (URI, first byte, byte after the last) of each; an object may end before.

    Raises:
        InputError: The store refuses one, or fails for good; or one is not there any more.
    """
    folder = _store_of(parts[0][0])[0]
    try:
        for _, data in folder.read_parts([(_store_of(uri)[1], start, stop) for uri, start, stop in parts], clip=True):
            yield data
    except DownloadError as error:
        raise InputError(str(error)) from error


class RemoteFile(io.RawIOBase):
    """An object as a file that can be read at any place.

    Args:
        uri: The object's URI.
        stop: Where reading on and on is about to end; up to there blocks of some MiB are fetched, one ahead, and from
            there on small ones that grow. None for a file that is read here and there: what is asked for is fetched.
    """

    def __init__(self, uri: str, *, stop: int | None = None) -> None:
        super().__init__()
        self._uri = uri
        self._folder, self._name = _store_of(uri)
        self._stop = stop
        self._position = 0
        self._block_start, self._block = 0, b""
        self._next_bytes = _FIRST_BYTES
        self._facts: ObjectFacts | None = None
        self._ahead: tuple[int, Future[bytes]] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        if whence == io.SEEK_END:
            offset += self._num_bytes()
        self._position = offset + (self._position if whence == io.SEEK_CUR else 0)
        return self._position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """See `io.RawIOBase`."""
        place = self._position - self._block_start
        if not 0 <= place < len(self._block):
            self._block = self._take_block(self._position, len(buffer))
            self._block_start, place = self._position, 0
        part = memoryview(self._block)[place : place + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _take_block(self, start: int, num_wanted: int) -> bytes:
        """Returns the bytes from a place on, and has the next ones fetched."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == start:
            block = ahead[1].result()
        else:
            block = self._fetch(start, self._block_end(start, num_wanted))
        assert self._facts is not None
        following = start + len(block)
        if self._stop is not None and following < min(self._stop, self._facts.num_bytes):
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
            end = self._block_end(following, 0)
            self._ahead = (following, self._thread.submit(self._fetch, following, end))
        return block

    def _block_end(self, start: int, num_wanted: int) -> int:
        if self._stop is None:
            return start + max(num_wanted, _FIRST_BYTES)
        if start < self._stop:
            return min(start + BLOCK_BYTES, self._stop)
        self._next_bytes = min(2 * self._next_bytes, BLOCK_BYTES)
        return start + self._next_bytes // 2

    def _fetch(self, start: int, stop: int) -> bytes:
        if self._facts is not None and start >= self._facts.num_bytes:
            return b""
        try:
            ((facts, data),) = self._folder.read_parts([(self._name, start, stop)], clip=True, keep=1)
        except NotFoundError as error:
            raise ChangedInputError.missing(self._uri) from error
        except DownloadError as error:
            raise InputError(str(error)) from error
        if self._facts is not None and self._facts != facts:
            raise ChangedInputError.between(self._uri, before=self._facts.num_bytes, now=facts.num_bytes)
        self._facts = facts
        return data

    def _num_bytes(self) -> int:
        if self._facts is None:
            self._fetch(0, 0)
        assert self._facts is not None
        return self._facts.num_bytes

    def close(self) -> None:
        """Lets what is fetched ahead come to its end, in vain."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None
        super().close()
