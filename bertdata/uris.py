"""What stands in the URIs of folders that lie elsewhere, and what is said where they cannot be reached."""

from __future__ import annotations

import posixpath
import re
import urllib.parse
from pathlib import Path

from bertdata.errors import ConfigError, ShardError

__all__ = ["ADVICE", "ADVICE_IF_REFUSED", "MAX_FAILURES", "is_uri", "location_of", "options_in", "path_in"]

ADVICE = "Look whether the server can be reached, and run the same command again to go on"
ADVICE_IF_REFUSED = "look whether the address is right, and whether you may read it with the credentials that are set"
MAX_FAILURES = 6  # in a row: waits of one minute in all

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_uri(folder: Path | str | None) -> bool:
    """Returns whether a folder is named by a URI, not by a path."""
    return isinstance(folder, str) and _URI.match(folder) is not None


def location_of(uri: str) -> str:
    """Returns what a remote folder is called in messages: its URI without user, query and last slash."""
    parts = urllib.parse.urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def path_in(folder: str, name: str) -> str:
    """Returns the path of a file by its path from a folder; a merged data set names those of folders beside it.

    Raises:
        ShardError: It leads out of what `folder` begins with.
    """
    path = posixpath.normpath(posixpath.join(folder, name))
    if path.partition("/")[0] != folder.partition("/")[0]:
        raise ShardError(f"{name[:200]!r} leads out of {folder}; copy the data set again, and what it is merged from")
    return path


def options_in(uri: str, *, allowed: tuple[str, ...]) -> dict[str, str]:
    """Returns the options in the query of a URI.

    Raises:
        ConfigError: One is not allowed.
    """
    options = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(uri).query, keep_blank_values=True))
    if unknown := options.keys() - set(allowed):
        raise ConfigError(f"{location_of(uri)}: unknown option {min(unknown)!r}; allowed are {', '.join(allowed)}")
    if options.get("anonymous", "true") not in ("true", "false"):
        raise ConfigError(f"{location_of(uri)}: anonymous is {options['anonymous']!r}; it must be true or false")
    if options.get("scheme", "https") not in ("http", "https"):
        raise ConfigError(f"{location_of(uri)}: scheme is {options['scheme']!r}; it must be https or http")
    return options
