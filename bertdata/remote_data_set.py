"""The small files of a remote data set: fetched into its folder in the cache each time it is opened."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from bertdata.cache_folder import CacheFolder, NoPart, PartFile
from bertdata.cache_options import CacheOptions
from bertdata.errors import DownloadError, OutputError, ShardError
from bertdata.index import INDEX, MAX_INDEX_BYTES
from bertdata.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from bertdata.remote import RemoteFolder, open_remote, read_remote
from bertdata.shard_cache import ShardCache
from bertdata.statistics import MAX_STATISTICS_BYTES, STATISTICS
from bertdata.web import NotFoundError
from bertdata.wordpiece import MAX_TOKENIZER_BYTES

__all__ = ["fetch_data_set"]

_REQUIRED = {"tokenizer.json": MAX_TOKENIZER_BYTES, INDEX: MAX_INDEX_BYTES}
_OPTIONAL = {"tokenizer_config.json": MAX_TOKENIZER_BYTES, STATISTICS: MAX_STATISTICS_BYTES}
_MAX_SECONDS = 60.0  # that others take to write the same small file


def fetch_data_set(
    uri: str, options: CacheOptions, *, sleep: Callable[[float], None] = time.sleep
) -> tuple[str, Manifest, ShardCache]:
    """Fetches all of a remote data set but its shards.

    Args:
        uri: See `bertdata.remote`.
        options: Where it is kept.
        sleep: Waits for some seconds between tries.

    Returns:
        What it is called in messages, its manifest, and the cache whose folder has its small files.

    Raises:
        ShardError: There is no manifest, or a file is missing or damaged.
        DownloadError: The server refuses it, or fails for good.
        OutputError: The cache cannot hold a shard, or cannot be written to.
    """
    with contextlib.closing(open_remote(uri, timeout=options.timeout, sleep=sleep)) as remote:
        try:
            text = read_remote(remote, MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
        except NotFoundError as error:
            raise ShardError(
                f"{remote.location} has no {MANIFEST}, so it is not a finished data set ({error}); look whether the "
                "address is that of the folder, and whether all of it was copied there"
            ) from error
        manifest = parse_manifest(text, where=f"{remote.location}/{MANIFEST}")
        cache = ShardCache(
            uri,
            fingerprint=manifest.fingerprint,
            folder=options.path,
            max_bytes=options.max_bytes,
            timeout=options.timeout,
            sleep=sleep,
        )
        folder = CacheFolder(options.path, max_bytes=cache.max_bytes)
        sums = manifest.files | {"tokenizer.json": manifest.tokenizer.sha256}
        _keep(folder, cache.folder / MANIFEST, text)
        for name, max_bytes in (_REQUIRED | _OPTIONAL).items():
            data = _fetch(remote, name, max_bytes=max_bytes, sha256=sums.get(name))
            if data is not None:
                _keep(folder, cache.folder / name, data)
    cache.check(manifest.shards)
    return remote.location, manifest, cache


def _fetch(remote: RemoteFolder, name: str, *, max_bytes: int, sha256: str | None) -> bytes | None:
    """Returns the content of a file, the second one where the SHA-256 of the first is wrong.

    Returns:
        It, or None where it need not be there and is not.
    """
    where = f"{remote.location}/{name}"
    for _ in range(2):
        try:
            data = read_remote(remote, name, max_bytes=max_bytes)
        except DownloadError as error:
            # Who may not list a folder is told that access is refused where there is nothing.
            if name in _OPTIONAL and sha256 is None:
                return None
            if isinstance(error, NotFoundError):
                raise ShardError(f"{error}, but a data set has it; copy the data set there again") from error
            raise
        if sha256 is None or hashlib.sha256(data).hexdigest() == sha256:
            return data
    raise ShardError(f"{where} is not the one that the manifest names; copy the data set there again")


def _keep(folder: CacheFolder, path: Path, data: bytes) -> None:
    """Writes a small file into the cache, unless it is there as it is."""
    end = time.monotonic() + _MAX_SECONDS
    while not (path.exists() and path.stat().st_size == len(data) and path.read_bytes() == data):
        part = folder.reserve(path, len(data), replace=True)
        if isinstance(part, PartFile):
            try:
                part.write(data, 0)
            except OSError as error:
                folder.drop(part)
                raise folder.is_full(path.name, len(data)) from error
            if file := folder.commit(part):
                file.close()
        elif time.monotonic() > end:
            reason = "all of it is in use" if part is NoPart.NO_ROOM else "another process does not finish"
            raise OutputError(f"{path} cannot be written: {reason}; end the other jobs, or give a larger --cache-size")
        else:
            time.sleep(0.01)
