"""Clearing: what a build wrote is removed, and nothing else."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from bertdata.config import BuildOptions
from bertdata.index import INDEX
from bertdata.manifest import MANIFEST
from bertdata.rejects import REJECTS
from bertdata.statistics import STATISTICS
from bertdata.storage import open_folder
from bertdata.work import BUILD, WORK, data_set_places

__all__ = ["clear_work", "remove_build"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_SHARDS = ("train-*.tar", "eval-*.tar")
_WRITTEN = (MANIFEST, INDEX, STATISTICS, *TOKENIZER_FILES, REJECTS, *_SHARDS)  # by a build


def remove_build(out: str | Path, *, options: BuildOptions) -> None:
    """Removes a build, finished or not, and nothing else, from the folders that `options` write to; manifests first."""
    inner = [open_folder(place) for place in data_set_places(out, options=options) if place != str(out)]
    for folder in (open_folder(out), *inner):
        names = folder.names()
        for pattern in _WRITTEN:
            folder.remove(fnmatch.filter(names, pattern))
        folder.sweep()
    for folder in inner:
        folder.remove_if_empty()
    clear_work(out)


def clear_work(out: str | Path) -> None:
    """Empties the work folder in `out` but for the lock; `build.json` first, without which the rest is nobody's."""
    folder = open_folder(out).child(WORK)
    folder.remove([BUILD])
    folder.clear(keep=["lock"])
