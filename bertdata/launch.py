"""Launching a build: what is there already, what may be written, and what is left when it is done."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bertdata.config import BuildOptions
from bertdata.errors import BertDataError, ConfigError, InputError, OutputError
from bertdata.manifest import MANIFEST
from bertdata.splits import find_inputs, plan_files
from bertdata.work import WORK, Lock, Work, data_set_folders, fingerprint_of, remove_build

__all__ = ["open_build"]

_LOG = logging.getLogger(__name__)


def _found_fingerprint(out: Path, *, options: BuildOptions) -> str | None:
    """Returns the fingerprint of the build that the folders of `options` hold, finished or not."""
    manifests = [folder / MANIFEST for folder in (out, *data_set_folders(out, options=options))]
    for path, field in [(out / WORK / "build.json", "fingerprint"), *((path, "build") for path in manifests)]:
        if path.exists():
            try:
                return str(json.loads(path.read_bytes())[field])
            except (ValueError, KeyError) as error:
                raise OutputError(f"{path} cannot be read ({error}); start anew with --overwrite") from error
    return None


def _ended_with_advice(out: Path) -> bool:
    """Returns whether an unfinished build ended because of its options or input, so that other ones may replace it."""
    path = out / WORK / "error.json"
    return path.exists() and json.loads(path.read_bytes())["kind"] in (ConfigError.__name__, InputError.__name__)


@contextmanager
def open_build(
    inputs: Sequence[str],
    *,
    out: Path,
    options: BuildOptions,
    overwrite: bool = False,
    split_bytes: int | None = None,
) -> Iterator[Work | None]:
    """Prepares a build and locks its output folder; removes the work folder when all is written.

    Args:
        inputs: Files, folders or globs.
        out: The output folder.
        options: What to build.
        overwrite: Remove another build that the folder holds.
        split_bytes: Bytes of a split as stored, instead of the usual size; changes no byte of the output.

    Yields:
        The build, new or to be continued; None where it is finished already.

    Raises:
        InputError: An input is missing or of a kind that is not read.
        OutputError: The folder holds another build, is in use, or cannot be written to.
    """
    files = find_inputs(inputs, out=out)
    splits = plan_files(files, options=options.read, split_bytes=split_bytes)
    if not splits:
        raise InputError("no document: all input files are empty; check --input")
    fingerprint = fingerprint_of(options, inputs=files)
    with Lock(out) as lock:
        found = _found_fingerprint(out, options=options)
        if found is not None and (overwrite or (found != fingerprint and _ended_with_advice(out))):
            remove_build(out, options=options)
            found = None
        if found not in (None, fingerprint):
            raise OutputError(
                f"{out} holds another build (fingerprint {found}, this one has {fingerprint}): its inputs, options or "
                "versions differ. Give another --out, or replace it with --overwrite."
            )
        work = Work(out=out, fingerprint=fingerprint, options=options, splits=(), lock=lock)
        if work.is_finished():
            shutil.rmtree(work.folder)
            yield None
            return
        if (work.folder / "build.json").exists():
            _LOG.info("%s holds this build unfinished; going on with it", out)
            work = dataclasses.replace(work, splits=Work.load(out).splits)
            work.sweep()
        else:
            work = dataclasses.replace(work, splits=tuple(splits))
        work.save()
        try:
            yield work
        except (ConfigError, InputError) as error:
            work.record_error(error)
            raise
        except OSError as error:
            raise OutputError(
                f"{error.filename or out}: {error.strerror or error}. What is done is kept; "
                "run the same command again to go on."
            ) from error
        if work.is_finished():
            shutil.rmtree(work.folder)
        else:
            raise BertDataError(f"the build ended without a manifest in {out}; run the same command again to go on")
