"""Checkpoints: all that a run needs to continue, one file per saved step, there whole or not at all.

    run/checkpoints/
    ├── step-00001000.pt      model, optimizer, step, sums, options, state of the data
    └── step-00002000.pt

There is no generator state in it: every random draw of a run comes from (seed, step, rank, micro-batch).
"""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from bertdata.errors import OutputError, TrainingError
from bertdata.files import open_atomically
from trainer.state import MAY_DIFFER, DataState

__all__ = ["FORMAT_VERSION", "check_continues", "load_latest", "save_checkpoint"]

FORMAT_VERSION = 2
_PATTERN = "step-????????.pt"
_TORN = (RuntimeError, EOFError, OSError, ValueError, KeyError, BadZipFile, pickle.UnpicklingError)

_log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Writes a checkpoint, then removes all but the newest.

    Args:
        folder: Where the checkpoints of the run are.
        state: Tensors, numbers, strings and containers of them; `state["step"]` names the file.
        keep: Checkpoints to keep.

    Returns:
        The file.

    Raises:
        OutputError: The disk is full or cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state['step']:08d}.pt"
    try:
        with open_atomically(path) as file:
            torch.save(state | {"format_version": FORMAT_VERSION}, file)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error}); make room and run the same command again, it continues from the "
            "checkpoint before"
        ) from error
    for old in sorted(folder.glob(_PATTERN))[:-keep]:
        old.unlink()
    for left_over in folder.glob("*.tmp"):  # of a process that was killed while it saved
        left_over.unlink()
    return path


def load_latest(folder: Path) -> dict[str, Any] | None:
    """Returns the newest checkpoint that can be read; None where there is none.

    A damaged one is skipped with a warning for the one before.

    Raises:
        TrainingError: There are checkpoints, but none can be read.
    """
    paths = sorted(folder.glob(_PATTERN), reverse=True)
    for path in paths:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except _TORN as error:
            _log.warning("%s cannot be read (%s); taking the checkpoint before it", path, str(error).split("\n")[0])
            continue
        if state.get("format_version") != FORMAT_VERSION:
            raise TrainingError(
                f"{path} has checkpoint version {state.get('format_version')}; this release reads {FORMAT_VERSION}. "
                "Continue with the release that wrote it, or start anew in another --out folder."
            )
        return state
    if paths:
        raise TrainingError(
            f"none of the {len(paths)} checkpoints in {folder} can be read; restore one, or start anew in another "
            "--out folder"
        )
    return None


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
