"""A run that begins where another one ended: phase 2 on longer samples, in the schedule of phase 1 or its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from bertdata.errors import TrainingError
from trainer.checkpoint import load_latest
from trainer.initial import Initial
from trainer.optimizer import load_optimizer_state
from trainer.presets import Phase, Preset

__all__ = ["SCHEDULE", "check_beginning", "find_run", "settings_from_run", "take_moments"]

_log = logging.getLogger(__name__)

SCHEDULE = ("learning_rate", "warmup_steps", "schedule_steps", "decay_power", "decay_from", "decay_to")
"""Settings that make a schedule."""

_OPTIMIZER = (
    *("optimizer", "adam_beta1", "adam_beta2", "adam_epsilon", "bias_correction"),
    *("weight_decay", "max_grad_norm"),
)


def find_run(place: Path, *, option: str = "--init") -> dict[str, Any] | None:
    """Returns the newest checkpoint of the run in a folder; None where the folder, or file, is no run's.

    Args:
        place: Folder of a run or of an exported model.
        option: What named the place, for messages.

    Raises:
        TrainingError: There is nothing at that place, or no checkpoint of the run can be read.
    """
    if not place.exists():
        raise TrainingError(f"{option} {place} is not there; give the folder of a run, or one with an exported model")
    return load_latest(place / "checkpoints")


def check_beginning(
    given: dict[str, Any],
    *,
    kept: dict[str, Any],
    is_new: bool,
    preset: tuple[Preset, Phase] | None,
    run: dict[str, Any] | None,
    out: str,
) -> None:
    """Refuses a run that begins from something else than its recipe says, or has begun with something else.

    Args:
        given: Settings given, by name.
        kept: Settings of the run's checkpoint; empty for a new run.
        is_new: Whether there is no checkpoint.
        preset: The recipe and its phase.
        run: Checkpoint of the run of --init.
        out: Folder of the run.

    Raises:
        TrainingError: Says what does not fit.
    """
    if not is_new:
        for name in ("preset", "phase", "init"):
            if name in given and not _is_same(name, given[name], kept.get(name)):
                raise TrainingError(
                    f"{out} holds a run that began with {_option(name, kept.get(name))}, not with "
                    f"{_option(name, given[name])}; leave the option out, or give another --out folder"
                )
        return
    if preset and preset[1].needs_weights and "init" not in given:
        raise TrainingError(
            f"phase {given['phase']} of {given['preset']} begins with the weights of the phase before; give --init and "
            "the folder of that run, or of its exported model"
        )
    if given.get("init_optimizer") and run is None:
        raise TrainingError(
            "--init-optimizer takes the state of a run's optimizer, and there is no run; give --init and its folder "
            "(an exported model has no such state)"
        )


def _is_same(name: str, value: Any, other: Any) -> bool:
    if name == "init" and other is not None:
        return Path(value).resolve() == Path(other).resolve()  # one place has many names
    return bool(value == other)


def _option(name: str, value: Any) -> str:
    return f"--{name} {value}" if value is not None else f"no --{name}"


def settings_from_run(
    run: dict[str, Any], *, given: dict[str, Any], preset: tuple[Preset, Phase] | None
) -> dict[str, Any]:
    """Returns the settings that a new run takes from the run that its weights come from.

    It goes on in the schedule of that run if that schedule reaches further than that run went, unless its recipe has a
    schedule of its own, or something of another one is given.

    Args:
        run: Checkpoint of that run.
        given: Settings given, by name.
        preset: The recipe and its phase; None for none.

    Returns:
        Nothing for a schedule of its own. Else that schedule as it was run, the place in it, the steps that are left
        of it, and that the optimizer's state is taken, too; without a recipe, also all that makes the optimizer.
    """
    before = run["options"]
    start, end = before["schedule_start"] + run["step"], before["schedule_steps"]
    same = {name: before[name] for name in ("learning_rate", "warmup_steps", "schedule_steps")}
    same["schedule_start"] = start
    if end is None or start >= end or any(given.get(name, value) != value for name, value in same.items()):
        return {}
    if preset and not preset[1].continues_schedule:
        return {}
    names = SCHEDULE if preset else (*SCHEDULE, *_OPTIMIZER)
    place = {"schedule_start": start, "max_steps": end - start, "init_optimizer": True}
    return {name: before[name] for name in names} | place


def take_moments(optimizer: torch.optim.Optimizer, initial: Initial) -> None:
    """Gives a new optimizer the moments of the run that the weights come from.

    Raises:
        TrainingError: There are none, or they are of another shape.
    """
    if initial.optimizer is None:
        raise TrainingError(
            f"--init {initial.place} is an exported model, without the state of an optimizer; give the folder of its "
            "run, or --no-init-optimizer"
        )
    if fresh := load_optimizer_state(optimizer, initial.optimizer):
        _log.info("moments of the optimizer are new for %s", ", ".join(fresh[:4]) + (", ..." if fresh[4:] else ""))
