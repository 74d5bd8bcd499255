"""Removing documents: the list of their keys, and which finished shards of a kept work folder no longer hold.

A document lies in the one shard whose range of keys holds its own. The ranges are planned from the counts of all
documents, the excluded ones too, so that with another list of exclusions all other shards keep their bytes:

    excluded before    7a01...  c3d2...
    excluded now       7a01...           e94b...
    shards             0000-5fff   6000-bfff   c000-ffff
                                               built again

Whatever is in the work folder holds for the exclusions that `build.json` names. Before it names others, the manifests
and the records of the shards that change are gone, so a build that is stopped at any moment goes on rightly, with
these exclusions or with others.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from bertdata.errors import ConfigError
from bertdata.manifest import MANIFEST
from bertdata.spill import BIN_BITS, parse_key
from bertdata.work import PLAN, Work, shard_record

__all__ = ["read_document_keys", "withdraw_changed_shards"]

_LOG = logging.getLogger(__name__)


def read_document_keys(path: Path) -> tuple[str, ...]:
    """Reads a list of document keys: one per line, 16 or 32 hexadecimal digits; what follows a # is a comment.

    Args:
        path: The file.

    Returns:
        The first 16 digits of each key, in lower case, sorted, each once.

    Raises:
        ConfigError: The file cannot be read, or a line holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigError(f"--exclude-documents {path} cannot be read: {error.strerror}") from error
    keys = set()
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.partition("#")[0].strip()
        key = parse_key(word)
        if key is not None:
            keys.add(key)
        elif word:
            raise ConfigError(
                f"--exclude-documents {path}, line {number}: {word[:50]!r} is no document key; give one of 16 or 32 "
                "hexadecimal digits per line, with comments after a #"
            )
    return tuple(sorted(keys))


def withdraw_changed_shards(work: Work, *, excluded: Sequence[str]) -> None:
    """Makes a build, finished or not, ready to go on with other documents excluded; finished portions stay done.

    Args:
        work: The build as its work folder has it.
        excluded: The documents that are to be excluded from now on, as `ShardOptions` has them.
    """
    before = work.options.shards.excluded_documents
    changed = sorted(int(key, 16) >> (64 - BIN_BITS) for key in {*excluded} ^ {*before})
    tasks = work.planned_shards() if work.has(PLAN) else []
    stale = [task for task in tasks if bisect_left(changed, task.first_bin) < bisect_left(changed, task.last_bin)]
    for folder in work.data_set_folders():
        folder.remove([MANIFEST])
    work.folder.remove(shard_record(task) for task in stale)
    if tasks:
        num_left = sum(not work.has(shard_record(task)) for task in tasks)
        _LOG.info("other documents are excluded than before: builds %d of %d shards again", num_left, len(tasks))
