"""Checkpoints: all that a run needs to continue, one file per saved step, there whole or not at all.

    run/checkpoints/
    ├── step-00001000.pt      model, optimizer, step, sums, options, state of the data, whether an evaluation is due
    └── step-00002000.pt

There is no generator state in it: every random draw of a run comes from (seed, step, rank, micro-batch), and no
generator lives on from one step to the next.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import torch

from bertdata.disk import format_bytes, free_bytes
from bertdata.errors import OutputError, TrainingError
from bertdata.files import open_atomically, remove_durably
from trainer.distributed import World
from trainer.state import MAY_DIFFER, DataState

__all__ = ["FORMAT_VERSION", "check_continues", "check_room", "load_latest", "load_shared", "save_checkpoint"]

FORMAT_VERSION = 3
_PATTERN = "step-????????.pt"
_TORN = (
    *(RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError),
    *(BadZipFile, pickle.UnpicklingError, zlib.error, struct.error),
)
"""What reading a damaged file raises. An OSError says nothing of the file: the disk or the rights may be the reason."""

_BYTES_PER_PARAMETER = 12  # float32: the weight and two averages of its gradient
_EXPORTED_BYTES_PER_PARAMETER = 4

_log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Writes a checkpoint, then removes all but the newest, and those of later steps: the run did not go on from them.

    Where the disk is full, older ones make room, as long as a whole one is left.

    Args:
        folder: Where the checkpoints of the run are.
        state: Tensors, numbers, strings and containers of them; `state["step"]` names the file.
        keep: Checkpoints to keep.

    Returns:
        The file.

    Raises:
        OutputError: The disk is full or cannot be written to.
    """
    path = folder / f"step-{state['step']:08d}.pt"
    try:
        for left_over in folder.glob("*.tmp"):  # of a process that was killed while it saved
            left_over.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _write(path, state)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not _make_room(folder):
                raise
            _write(path, state)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error}); make room and run the same command again, it continues from the "
            "checkpoint before"
        ) from error
    paths = sorted(folder.glob(_PATTERN))
    later = [other for other in paths if other > path]  # damaged ones; else it would have continued from them
    try:
        remove_durably(later + paths[: len(paths) - len(later)][:-keep])
    except OSError as error:
        raise OutputError(
            f"checkpoints in {folder} cannot be removed to keep {keep} ({error}); see who may write there, and run the "
            "same command again, it continues"
        ) from error
    return path


class _Sink:
    """A file for torch.save that keeps the first error of writing for later: within, it would become another one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        pass


def _write(path: Path, state: dict[str, Any]) -> None:
    with open_atomically(path) as file:
        sink = _Sink(file)
        torch.save(state | {"format_version": FORMAT_VERSION}, sink)  # type: ignore[arg-type]
        if sink.error is not None:
            raise sink.error


def _make_room(folder: Path) -> bool:
    """Removes all checkpoints but the newest whole one, and returns whether there were any."""
    paths = sorted(folder.glob(_PATTERN), reverse=True)
    for number, path in enumerate(paths):
        try:
            _check_whole(path)
        except _TORN:
            continue
        others = paths[:number] + paths[number + 1 :]
        remove_durably(others)
        if others:
            _log.warning("the disk of %s is full; %d older checkpoints were removed to save", folder, len(others))
        return bool(others)
    return False


def _check_whole(path: Path) -> None:
    """Checks every byte that a checkpoint holds against its CRC-32, which torch.load does not do.

    Raises:
        BadZipFile: It is damaged.
        OSError: It cannot be read.
    """
    source = _Source(path)
    with io.BufferedReader(source) as file:
        try:
            with ZipFile(file) as archive:
                name = archive.testzip()
        except (*_TORN, OSError) as error:  # an OSError where a damaged file names a place before its beginning
            raise source.error or BadZipFile(str(error) or type(error).__name__) from error
    if name is not None:
        raise BadZipFile(f"{name} does not have its CRC-32")


class _Source(io.FileIO):
    """A file that keeps the error of reading, of which ZipFile makes another one: that the file is damaged."""

    error: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        try:
            return os.readv(self.fileno(), [buffer])
        except OSError as error:
            self.error = error
            raise


def _load(path: Path) -> dict[str, Any]:
    """Returns a checkpoint.

    Raises:
        TrainingError: Another version has written it.
        BadZipFile: It is damaged; or another one of `_TORN`.
        OSError: It cannot be read.
    """
    _check_whole(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("format_version") != FORMAT_VERSION:
        raise TrainingError(
            f"{path} has checkpoint version {state.get('format_version')}; this release reads {FORMAT_VERSION}. "
            "Continue with the release that wrote it, or start anew in another --out folder."
        )
    return state


def load_latest(folder: Path) -> dict[str, Any] | None:
    """Returns the newest checkpoint that can be read; None where there is none.

    A damaged one is skipped with a warning for the one before.

    Raises:
        TrainingError: There are checkpoints, but all are damaged, or the newest that may be whole cannot be read now.
    """
    paths = sorted(folder.glob(_PATTERN), reverse=True)
    for path in paths:
        try:
            return _load(path)
        except _TORN as error:
            _log.warning("%s is damaged (%s); taking the checkpoint before it", path, str(error).split("\n")[0])
        except OSError as error:
            raise TrainingError(
                f"{path} cannot be read ({error}), which need not be damage; run the same command again when it can be "
                "read, or remove it to take the checkpoint before it"
            ) from error
    if paths:
        raise TrainingError(
            f"none of the {len(paths)} checkpoints in {folder} can be read; restore one, or start anew in another "
            "--out folder"
        )
    return None


def load_shared(folder: Path, *, world: World) -> dict[str, Any] | None:
    """Returns the checkpoint that `load_latest` finds in the first process, in all processes.

    Raises:
        TrainingError: None can be read, or not everywhere.
    """
    latest = load_latest(folder) if world.is_main else None
    step = world.gather("" if latest is None else str(latest["step"]))[0]
    if world.is_main or not step:
        return latest
    path = folder / f"step-{int(step):08d}.pt"
    try:
        return _load(path)
    except (*_TORN, OSError) as error:
        raise TrainingError(
            f"{path} cannot be read here ({str(error).split(chr(10))[0]}), though the first process has read it; --out "
            "must be one folder that all machines share"
        ) from error


def check_room(out: Path, *, num_parameters: int, keep: int) -> None:
    """Checks before a run that its disk has room for all the run will hold at a time.

    Args:
        out: The run's folder.
        num_parameters: Parameters of the model.
        keep: Checkpoints to keep; the next one is written before the oldest goes.

    Raises:
        OutputError: It has not.
    """
    each = _BYTES_PER_PARAMETER * num_parameters
    needed = (keep + 1) * each + _EXPORTED_BYTES_PER_PARAMETER * num_parameters
    there = sum(path.stat().st_size for path in (out / "checkpoints").glob(_PATTERN))
    free = free_bytes(out)
    if free + there < needed:
        lacking = format_bytes(needed - there)
        raise OutputError(
            f"not enough disk for {out}: {format_bytes(free)} are free, and the run needs {lacking} for {keep + 1} "
            f"checkpoints of {format_bytes(each)} and the exported model. Give --out on another disk, or a --keep "
            f"below {keep}"
        )


def check_continues(state: dict[str, Any], *, options: dict[str, Any], data: DataState, folder: Path) -> None:
    """Refuses to continue a run with other data, another order of it, another model, or to a step that it has passed.

    Args:
        state: The checkpoint.
        options: `TrainOptions.to_json()` of the run that wants to continue.
        data: Initial state of its data.
        folder: The run's folder, for the message.

    Raises:
        TrainingError: Names each difference, or both steps.
    """
    before, differences = state["options"], DataState.from_json(state["data"]).find_differences(data)
    if before["next_sentence"] != options["next_sentence"]:
        differences.append(f"next_sentence is {options['next_sentence']}, not {before['next_sentence']}")
    for name, value in before["model"].items():
        if options["model"].get(name) != value and name != "hidden_dropout_prob":
            differences.append(f"the model's {name} is {options['model'].get(name)}, not {value}")
    if differences:
        raise TrainingError(
            f"{folder} holds a run that stopped at step {state['step']} and cannot be continued so: "
            f"{'; '.join(differences)}. Give the options and the data of that run, or another --out folder; "
            f"{MAY_DIFFER}."
        )
    if state["step"] > options["max_steps"]:
        raise TrainingError(
            f"{folder} holds a run at step {state['step']}, past the {options['max_steps']} steps asked for; give a "
            "larger --max-steps (or --epochs), or another --out folder"
        )
    free = set(options) - {"next_sentence", "model", "out"}  # what decides the order of samples is the same by now
    for name in sorted(name for name in free if before.get(name) != options[name]):
        _log.info("continuing with %s %s instead of %s", name, options[name], before.get(name))
