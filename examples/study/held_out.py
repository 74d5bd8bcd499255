"""Evaluates every checkpoint of a run on the same samples, and keeps the numbers instead of the checkpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bertdata.files import write_atomically
from trainer.config import TrainOptions
from trainer.data import TrainingData, open_training_data
from trainer.distributed import World, start_world
from trainer.evaluate import evaluate
from trainer.model import build_model
from trainer.step import autocast_for, cutting_for

__all__ = ["evaluate_checkpoints", "find_device"]


def find_device() -> str:
    """Returns what `bert-train` computes on here: "cuda" or "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def evaluate_checkpoints(run: Path, *, shards: Mapping[str, Path], max_samples: int) -> None:
    """Writes held_out.json, a row per checkpoint, then removes all of them but the last.

    Args:
        run: Folder of a finished run.
        shards: Data sets by name, whose training split is evaluated: no run was trained on them.
        max_samples: Samples of each at most.
    """
    data = {name: open_training_data([str(folder)]) for name, folder in shards.items()}
    paths, rows = sorted((run / "checkpoints").glob("step-*.pt")), []
    with start_world() as world:
        for path in paths:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = {name: _evaluate(state, one, world=world, max_samples=max_samples) for name, one in data.items()}
            rows.append({"step": int(state["step"]), **found})
            if world.stop.is_asked:
                sys.exit(130)
    write_atomically(run / "held_out.json", json.dumps(rows, indent=1).encode())
    for path in paths[:-1]:
        path.unlink()


def _evaluate(state: dict[str, Any], data: TrainingData, *, world: World, max_samples: int) -> dict[str, float] | None:
    options = TrainOptions.from_json(state["options"])
    next_sentence = options.next_sentence and data.has_next_sentence
    model = build_model(options.model, next_sentence=next_sentence)
    model.load_state_dict(state["model"])
    return evaluate(
        model.to(world.device),
        data.open_split("train"),
        world=world,
        cutting=cutting_for(data, options, device=world.device),
        max_samples=max_samples,
        next_sentence=next_sentence,
        vocab_size=options.model.vocab_size,
        autocast=autocast_for(options, device=world.device),
        should_stop=lambda: world.stop.is_asked,
    )
