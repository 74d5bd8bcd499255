"""Fetching a dump from Wikimedia's server or one of its mirrors: resumed after a break, and checked.

    https://dumps.wikimedia.org/
    └── simplewiki/
        ├── 20261101/
        │   ├── dumpstatus.json                                            which jobs are done; sizes and SHA-1
        │   ├── simplewiki-20261101-sha1sums.txt                           the same sums, for mirrors without the former
        │   └── simplewiki-20261101-pages-articles-multistream.xml.bz2
        └── latest/ ...

While a file is fetched it is called `.<name>.<SHA-1>.part`; it gets its name when its SHA-1 is right.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bertdata.byte_progress import ByteProgress
from bertdata.config import DEFAULT_MIRROR, LATEST
from bertdata.errors import DownloadError, OutputError
from bertdata.web import Http, NotFoundError, check_address

__all__ = ["DumpFile", "database_name", "fetch_file", "find_dump"]

_LOG = logging.getLogger(__name__)

_WIKI = re.compile(r"[a-z][a-z0-9_-]{0,60}")
_PROJECT = re.compile(r"wik(i|tionary|iquote|isource|inews|ibooks|iversity|ivoyage)$")
_DATE_LINK = re.compile(r'href="(?:[^"]*/)?(\d{8})/"')
_SHA1 = re.compile(r"[0-9a-f]{40}")
_READ_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class DumpFile:
    """A file of a dump.

    Attributes:
        name: Its name.
        url: Where it lies.
        sha1: What the dump says its SHA-1 is, in hexadecimal.
        num_bytes: How large the dump says it is, if it does.
    """

    name: str
    url: str
    sha1: str
    num_bytes: int | None


def database_name(wiki: str) -> str:
    """Returns the name of a wiki's database.

    Args:
        wiki: A language code, which means its Wikipedia (simple, zh-min-nan); or a database (enwiki, dewiktionary).

    Raises:
        DownloadError: It can be no such name.
    """
    if not _WIKI.fullmatch(wiki):
        raise DownloadError(f"--wiki is {wiki!r}; it must be a language code such as simple, or a name such as enwiki")
    name = wiki.replace("-", "_")
    return name if _PROJECT.search(name) else f"{name}wiki"


def find_dump(wiki: str, *, date: str, mirror: str, http: Http) -> list[DumpFile]:
    """Finds the files of a wiki's articles: one, or several where a large wiki has no whole one.

    Args:
        wiki: See `database_name`.
        date: Eight digits, or "latest" for the newest dump that is complete.
        mirror: Address of the folder that holds the wikis' folders.
        http: What addresses are opened with.

    Raises:
        DownloadError: There is no such wiki or dump, or it is not complete.
    """
    database = database_name(wiki)
    mirror = mirror.rstrip("/")
    check_address(mirror)
    if date != LATEST:
        if not re.fullmatch(r"\d{8}", date):
            raise DownloadError(f"--date is {date!r}; it must be eight digits such as 20261101, or {LATEST}")
        if files := _files_of(database, date, mirror=mirror, http=http):
            return files
        raise DownloadError(f"{mirror}/{database}/{date}/ has no complete multistream dump; try another --date")
    try:
        listing = http.read(f"{mirror}/{database}/").decode("utf-8", "replace")
    except NotFoundError as error:
        raise DownloadError(
            f"{mirror} has no wiki {database!r} ({error}); {DEFAULT_MIRROR}/backup-index.html lists the names"
        ) from error
    for found in sorted(set(_DATE_LINK.findall(listing)), reverse=True):
        if files := _files_of(database, found, mirror=mirror, http=http):
            return files
        _LOG.info("%s of %s is not complete; trying the one before", database, found)
    raise DownloadError(f"{mirror}/{database}/ has no complete multistream dump; try another --mirror")


def _files_of(database: str, date: str, *, mirror: str, http: Http) -> list[DumpFile]:
    """Returns the files of one dump; none where it is not complete."""
    folder = f"{mirror}/{database}/{date}"
    # Only the jobs tell whether all parts are there.
    sums = _sums_of_jobs(f"{folder}/dumpstatus.json", http=http)
    has_jobs = sums is not None
    if sums is None or not all(sha1 for sha1, _ in sums.values()):
        published = _published_sums(f"{folder}/{database}-{date}-sha1sums.txt", http=http)
        sums = {
            name: (sha1, (sums or {}).get(name, ("", None))[1])
            for name, sha1 in published.items()
            if sums is None or name in sums
        }
    stem = re.escape(f"{database}-{date}-pages-articles-multistream")
    whole = [name for name in sums if re.fullmatch(rf"{stem}\.xml\.bz2", name)]
    parts = [name for name in sums if has_jobs and re.fullmatch(rf"{stem}\d+\.xml-p\d+p\d+\.bz2", name)]
    names = whole or sorted(parts, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    return [
        DumpFile(name=name, url=f"{folder}/{name}", sha1=sums[name][0], num_bytes=sums[name][1])
        for name in names
        if sums[name][0]
    ]


def _sums_of_jobs(url: str, *, http: Http) -> dict[str, tuple[str, int | None]] | None:
    """Returns SHA-1 (empty where it is not told) and size of the files of all jobs that are done; None without any."""
    try:
        status: Any = json.loads(http.read(url))
        jobs = status["jobs"].values()
        return {
            str(name): (str(facts.get("sha1", "")), facts.get("size"))
            for job in jobs
            if job["status"] == "done"
            for name, facts in job.get("files", {}).items()
        }
    except NotFoundError:
        return None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DownloadError(
            f"{url} is not what a dump's status looks like ({error!r}); try another --mirror"
        ) from error


def _published_sums(url: str, *, http: Http) -> dict[str, str]:
    try:
        lines = http.read(url).decode("utf-8", "replace").splitlines()
    except NotFoundError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2 and _SHA1.fullmatch(pair[0])}


def fetch_file(file: DumpFile, *, folder: Path, http: Http) -> Path:
    """Fetches a file, goes on where a fetch broke off before, and checks its SHA-1.

    Args:
        file: What to fetch.
        folder: Where it goes.
        http: What addresses are opened with.

    Returns:
        Its path.

    Raises:
        DownloadError: The server fails for good, or twice gave other bytes than its SHA-1 says.
        OutputError: There is no room for it, or another process is fetching it.
    """
    target, part = folder / file.name, folder / f".{file.name}.{file.sha1}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            with target.open("rb") as there:
                found = _sha1_of(there, name=file.name).hexdigest()
            if found == file.sha1:
                _LOG.info("%s is there already, and its SHA-1 is right", target)
                return target
            _LOG.warning("%s is there, but its SHA-1 is not that of the dump; fetching it again", target)
        with part.open("a+b", buffering=0) as out:
            _lock(out, file, folder)
            _fetch_checked(file, out, part=part, http=http)
            os.fsync(out.fileno())
            part.replace(target)
    except OSError as error:  # of the folder, not of the network
        raise OutputError(
            f"{error.filename or folder}: {error.strerror or error}; run the same command again to go on"
        ) from error
    return target


def _lock(out: BinaryIO, file: DumpFile, folder: Path) -> None:
    """Keeps other processes out of an unfinished file, and makes sure that there is room for the rest of it."""
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"another process is fetching {folder / file.name}; wait for it") from error
    missing, free = (file.num_bytes or 0) - os.fstat(out.fileno()).st_size, shutil.disk_usage(folder).free
    if missing > free:
        raise OutputError(f"{file.name} needs {missing:,} bytes more, and {folder} has {free:,} free; make room for it")


def _fetch_checked(file: DumpFile, out: BinaryIO, *, part: Path, http: Http) -> None:
    """Fetches what is missing; all of it once more where the SHA-1 is wrong then, and removes it if it still is."""
    found = _fetch(file, out, http=http)
    if found != file.sha1:
        _LOG.warning("the SHA-1 of %s is %s instead of %s; fetching it again", file.url, found, file.sha1)
        out.truncate(0)
        found = _fetch(file, out, http=http)
    if found != file.sha1:
        part.unlink()
        raise DownloadError(
            f"{file.url} came twice with a wrong SHA-1, {found}, where the dump says {file.sha1}; nothing is kept. "
            "Try another --mirror"
        )


def _new_sha1() -> hashlib._Hash:
    return hashlib.sha1(usedforsecurity=False)


def _sha1_of(file: BinaryIO, *, name: str) -> hashlib._Hash:
    """Returns the SHA-1 of a file from its beginning on, to be continued."""
    digest = _new_sha1()
    file.seek(0)
    with ByteProgress(f"checking {name}", total=os.fstat(file.fileno()).st_size) as progress:
        while data := file.read(_READ_BYTES):
            digest.update(data)
            progress.advance(len(data))
    return digest


def _fetch(file: DumpFile, out: BinaryIO, *, http: Http) -> str:
    """Appends what is missing, and returns the SHA-1 of all."""
    position = os.fstat(out.fileno()).st_size
    digest = _sha1_of(out, name=file.name) if position else _new_sha1()
    with ByteProgress(file.name, total=file.num_bytes, initial=position) as progress:
        for start, data in http.iter_bytes(file.url, start=position, num_bytes=file.num_bytes):
            if start != position:  # the server cannot go on where we were
                digest = _new_sha1()
                out.truncate(start)
                progress.advance(start - position)
                position = start
            out.write(data)
            digest.update(data)
            position += len(data)
            progress.advance(len(data))
    return digest.hexdigest()
