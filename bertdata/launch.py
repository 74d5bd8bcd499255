"""Launching a build: what is there already, what may be written, and what is left when it is done."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from bertdata.clearing import clear_work, remove_build
from bertdata.config import BuildOptions
from bertdata.data_set import open_data_set
from bertdata.differences import describe_differences, describe_differences_of_finished
from bertdata.disk import check_disk
from bertdata.errors import BertDataError, ChangedInputError, ConfigError, InputError, OutputError
from bertdata.fingerprint import fingerprint_of
from bertdata.inputs import InputFile, find_inputs
from bertdata.lock import hold_lock
from bertdata.manifest import MANIFEST, Manifest, parse_manifest
from bertdata.portions import plan_portions
from bertdata.removal import withdraw_changed_shards
from bertdata.storage import Folder, open_folder
from bertdata.uris import is_uri
from bertdata.work import BUILD, ERROR, WORK, Work, data_set_places

__all__ = ["open_build", "read_written_manifest"]

_LOG = logging.getLogger(__name__)


def _found_fingerprint(out: str, *, options: BuildOptions) -> str | None:
    """Returns the fingerprint of the build that the folders of `options` hold, finished or not."""
    places = dict.fromkeys((out, *data_set_places(out, options=options)))
    records = [(open_folder(out).child(WORK), BUILD, "fingerprint")]
    for folder, name, field in [*records, *((open_folder(place), MANIFEST, "build") for place in places)]:
        if folder.has(name):
            try:
                return str(json.loads(folder.read(name))[field])
            except (ValueError, KeyError, TypeError) as error:
                where = f"{folder.location}/{name}"
                raise OutputError(f"{where} cannot be read ({error}); start anew with --overwrite") from error
    return None


def _load_work(out: str) -> Work:
    """Reads the build of the work folder.

    Raises:
        OutputError: It is damaged, or another version of this package wrote it.
    """
    try:
        return Work.load(out)
    except (ValueError, KeyError, TypeError) as error:
        where = f"{open_folder(out).child(WORK).location}/{BUILD}"
        raise OutputError(
            f"{where} is damaged, or was written by another version of bertdata ({type(error).__name__}: {error}); "
            "start anew with --overwrite, or give another --out"
        ) from error


def _kept_build(out: str, *, base_fingerprint: str) -> Work | None:
    """Returns the build of the work folder where it is the wanted one, but for the documents that it excludes."""
    folder = open_folder(out).child(WORK)
    if not folder.has(BUILD) or json.loads(folder.read(BUILD)).get("base_fingerprint") != base_fingerprint:
        return None
    return _load_work(out)


def _hint_about_exclusions(out: str, *, options: BuildOptions) -> str:
    """Returns what to say where a finished build excludes other documents and left no work folder to go on from."""
    wanted = list(options.shards.excluded_documents)
    for folder in map(open_folder, data_set_places(out, options=options)):
        if not folder.has(MANIFEST):
            continue
        if json.loads(folder.read(MANIFEST))["options"]["shards"].get("excluded_documents") != wanted:
            return (
                " It excludes other documents; had its work folder been kept, by --keep-work, only the shards that "
                "change would be built again."
            )
    return ""


def _differences_of_finished(out: str, *, options: BuildOptions, inputs: Sequence[InputFile]) -> str:
    """Returns what the build that the folders of `options` hold, finished, differs in."""
    folders = [open_folder(place) for place in dict.fromkeys((out, *data_set_places(out, options=options)))]
    (first, *_) = [folder for folder in folders if folder.has(MANIFEST)]
    try:
        found = parse_manifest(first.read(MANIFEST), where=f"{first.location}/{MANIFEST}")
    except BertDataError as error:
        return f"what differs cannot be told ({error})"
    return describe_differences_of_finished(found, options=options, inputs=inputs)


def _ended_with_advice(out: str) -> bool:
    """Returns whether an unfinished build ended because of its options or input, so that other ones may replace it."""
    folder = open_folder(out).child(WORK)
    kinds = [error.__name__ for error in (ConfigError, InputError, ChangedInputError)]
    return folder.has(ERROR) and json.loads(folder.read(ERROR))["kind"] in kinds


def _prepare_folder(
    out: str, *, options: BuildOptions, inputs: Sequence[InputFile], fingerprint: str, base_fingerprint: str
) -> str | None:
    """Makes way for a build: what is there is this build, or goes on as it, or goes away.

    Returns:
        The fingerprint of what was there, if anything.

    Raises:
        OutputError: It is another build.
    """
    found = _found_fingerprint(out, options=options)
    kept = _kept_build(out, base_fingerprint=base_fingerprint)
    if kept is None and found not in (None, fingerprint) and _ended_with_advice(out):
        _LOG.info("%s holds another build, which its input or options ended; it is replaced", open_folder(out).location)
        remove_build(out, options=options)
    elif kept is not None and found != fingerprint:
        withdraw_changed_shards(kept, excluded=options.shards.excluded_documents)
    elif found not in (None, fingerprint):
        if open_folder(out).child(WORK).has(BUILD):
            how = describe_differences(_load_work(out), options=options, inputs=inputs)
        else:
            how = _differences_of_finished(out, options=options, inputs=inputs)
        raise OutputError(
            f"{open_folder(out).location} holds another build (fingerprint {found}, this one has {fingerprint}): "
            f"{how}. Give another --out, or replace it with --overwrite." + _hint_about_exclusions(out, options=options)
        )
    return found


def _end_work(work: Work, *, keep: bool) -> None:
    """Removes the work folder of a finished build, or leaves it."""
    if keep:
        _LOG.info("%s is kept", work.folder.location)
        return
    clear_work(work.out)
    if not is_uri(work.out):
        work.folder.clear()  # the lock, too; where that is an object, it is removed as it is given back
    work.folder.sweep()


@contextmanager
def _output_errors(folder: Folder) -> Iterator[None]:
    """Says what the system refuses, as a full disk or one that is read-only, as an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder.location}: {error.strerror or error}. What is done is kept; "
            "run the same command again to go on."
        ) from error


@contextmanager
def open_build(
    inputs: Sequence[str],
    *,
    out: str | Path,
    options: BuildOptions,
    overwrite: bool = False,
    keep_work: bool = False,
    split_bytes: int | None = None,
) -> Iterator[Work | None]:
    """Prepares a build and locks its output folder; removes the work folder when all is written, unless it is kept.

    A build whose work folder is there, unfinished or kept, goes on with other documents excluded: only the shards in
    whose range of keys they lie are built again.

    Args:
        inputs: Files, folders or globs.
        out: Place of the output folder, see `bertdata.storage`.
        options: What to build.
        overwrite: Remove another build that the folder holds.
        keep_work: Leave the work folder when all is written; changes no byte of the output.
        split_bytes: Bytes of a split as stored, instead of the usual size; changes no byte of the output.

    Yields:
        The build, new or to be continued; None where it is finished already.

    Raises:
        InputError: An input is missing or of a kind that is not read.
        OutputError: The folder holds another build, is in use, or cannot be written to; or its disk is too small.
    """
    out = str(out)
    folder = open_folder(out)
    files = find_inputs(inputs, out=out)
    portions = plan_portions(files, options=options.read, split_bytes=split_bytes)
    if not portions:
        raise InputError("no document: all input files are empty; check --input")
    if not is_uri(out):
        check_disk(Path(out), splits=chain.from_iterable(portions), options=options)
    fingerprint = fingerprint_of(options, inputs=files)
    base_fingerprint = fingerprint_of(options.excluding(()), inputs=files)
    with hold_lock(out) as lock, _output_errors(folder):
        if overwrite:
            remove_build(out, options=options)
        found = _prepare_folder(
            out, options=options, inputs=files, fingerprint=fingerprint, base_fingerprint=base_fingerprint
        )
        work = Work(
            out=out,
            fingerprint=fingerprint,
            base_fingerprint=base_fingerprint,
            options=options,
            inputs=tuple(files),
            portions=tuple(portions),
            lock=lock,
        )
        if work.is_finished():
            _end_work(work, keep=keep_work and work.has(BUILD))
            yield None
            return
        if work.has(BUILD):
            if found == fingerprint:
                _LOG.info("%s holds this build unfinished", folder.location)
            work = dataclasses.replace(work, portions=_load_work(out).portions)
            work.sweep()
        else:
            clear_work(out)
        work.save()
        try:
            yield work
        except (ConfigError, InputError) as error:
            with contextlib.suppress(OSError):  # where it cannot be kept, as on a full disk, it is said all the same
                work.record_error(error)
            raise
        if work.is_finished():
            _end_work(work, keep=keep_work)
        else:
            where = folder.location
            raise BertDataError(f"the build ended without a manifest in {where}; run the same command again to go on")


def read_written_manifest(place: str) -> Manifest:
    """Returns the manifest of a data set that was just written, after a look whether all beside its shards fits it.

    Raises:
        ShardError: It does not.
    """
    if not is_uri(place):
        return open_data_set(place).manifest
    # Only the manifest: to open it would copy what is beside it into the cache of this machine.
    folder = open_folder(place)
    return parse_manifest(folder.read(MANIFEST), where=f"{folder.location}/{MANIFEST}")
