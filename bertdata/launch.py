"""Launching a build: what is there already, what may be written, and what is left when it is done."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bertdata.config import BuildOptions
from bertdata.errors import BertDataError, OutputError
from bertdata.manifest import MANIFEST
from bertdata.splits import find_inputs, plan_splits
from bertdata.work import WORK, Lock, Work, fingerprint_of, remove_build

__all__ = ["open_build"]

_LOG = logging.getLogger(__name__)


def _found_fingerprint(out: Path) -> str | None:
    """Returns the fingerprint of the build that `out` holds, finished or not."""
    manifests = [out / MANIFEST, *sorted(out.glob(f"[0-9]*/{MANIFEST}"))]
    for path, field in [(out / WORK / "build.json", "fingerprint"), *((path, "build") for path in manifests)]:
        if path.exists():
            try:
                return str(json.loads(path.read_bytes())[field])
            except (ValueError, KeyError) as error:
                raise OutputError(f"{path} cannot be read ({error}); start anew with --overwrite") from error
    return None


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
    files = find_inputs(inputs)
    fingerprint = fingerprint_of(options, inputs=files)
    with Lock(out):
        found = _found_fingerprint(out)
        if found is not None and overwrite:
            remove_build(out)
            found = None
        if found not in (None, fingerprint):
            raise OutputError(
                f"{out} holds another build (fingerprint {found}, this one has {fingerprint}): its inputs, options or "
                "versions differ. Give another --out, or replace it with --overwrite."
            )
        work = Work(out=out, fingerprint=fingerprint, options=options, splits=())
        if work.is_finished():
            shutil.rmtree(work.folder)
            yield None
            return
        if (work.folder / "build.json").exists():
            _LOG.info("%s holds this build unfinished; going on with it", out)
            work = Work.load(out)
            work.sweep()
        else:
            splits = tuple(plan_splits(inputs, options=options.read, split_bytes=split_bytes))
            work = Work(out=out, fingerprint=fingerprint, options=options, splits=splits)
            work.save()
        try:
            yield work
        except OSError as error:
            raise OutputError(
                f"cannot go on writing to {out}: {error}. What is done is kept; run the same command again to go on."
            ) from error
        if work.is_finished():
            shutil.rmtree(work.folder)
        else:
            raise BertDataError(f"the build ended without a manifest in {out}; run the same command again to go on")
