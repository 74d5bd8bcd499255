"""The folder of a run: one run at a time writes to it, and all of the run's processes see the same one."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertdata.errors import OutputError, TrainingError
from bertdata.file_locks import LockedFile
from trainer.distributed import World

__all__ = ["LOCK", "hold_run_folder", "make_run_folder", "writing"]

LOCK = "lock"
"""Name of the file; it stays when the lock has gone."""

_LOCK_SECONDS = 2.0  # a run that was killed may have a moment left
_SEEN_SECONDS = 10.0  # network file systems keep what they have read of a folder for a while
_POLL_SECONDS = 0.1

_log = logging.getLogger(__name__)


@contextmanager
def writing(path: Path, *, also: type[Exception] = OSError) -> Iterator[None]:
    """While in use with `with`, an error of the disk is one that says what to do.

    Args:
        path: What is written.
        also: An error beside OSError that the disk may be the reason of.

    Raises:
        OutputError: Names the file and the error.
    """
    try:
        yield
    except (OSError, also) as error:
        raise OutputError(
            f"{path} cannot be written ({error}); make room and run the same command again, it continues from its "
            "newest checkpoint"
        ) from error


def make_run_folder(out: Path) -> None:
    """Makes the folder of a run, if it is not there.

    Raises:
        OutputError: It cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written to ({error}); give another folder") from error


@contextmanager
def hold_run_folder(out: Path, *, world: World) -> Iterator[None]:
    """Makes the folder of a run and keeps other runs out of it while the context lasts.

    The lock is the first process's, and goes with it however it ends.

    Raises:
        OutputError: Another run holds it, or it cannot be written to.
        TrainingError: Another process of this run sees another folder.
    """
    if not world.is_main:
        _check_is_shared(out, mark=json.loads(world.gather("")[0]), world=world)
        yield
        return
    make_run_folder(out)
    try:
        file = LockedFile(out / LOCK)
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written to ({error}); give another folder") from error
    with file:
        _take(file, out)
        mark = {"host": platform.node(), "process": os.getpid(), "run": secrets.token_hex(8)}
        os.ftruncate(file.descriptor, 0)
        os.pwrite(file.descriptor, json.dumps(mark).encode(), 0)
        os.fsync(file.descriptor)
        world.gather(json.dumps(mark))
        world.gather("")
        yield


def _take(file: LockedFile, out: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        while not file.try_lock(exclusive=True):
            if time.monotonic() > deadline:
                try:
                    mark = json.loads(os.pread(file.descriptor, 4096, 0))
                    owner = f" (process {mark['process']} on {mark['host']})"
                except (ValueError, KeyError, TypeError):  # it is just being written
                    owner = ""
                raise OutputError(
                    f"another bert-train{owner} is training into {out}; wait for it, stop it, or give another --out"
                )
            time.sleep(_POLL_SECONDS)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        _log.warning("%s is on a file system without locks (%s); see that no second run writes to it", out, error)


def _check_is_shared(out: Path, *, mark: dict[str, str], world: World) -> None:
    """Waits until the first process's mark is seen in the folder."""
    deadline = time.monotonic() + _SEEN_SECONDS
    while not _holds(out / LOCK, mark):
        if time.monotonic() > deadline:
            raise TrainingError(
                f"--out {out} is another folder here than where rank 0 runs; it must be one that all machines share"
            )
        time.sleep(_POLL_SECONDS)
    world.gather("")


def _holds(path: Path, mark: dict[str, str]) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == mark)
    except (OSError, ValueError):
        return False
