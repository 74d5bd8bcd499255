"""The named runs, their curves, and the band that new curves must lie in."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bertdata.build import build_serially
from bertdata.config import BuildOptions, MaskOptions, PairOptions, TokenizerOptions
from bertdata.data_set import DataSet, open_data_set
from bertdata.launch import open_build
from tests.small_data_set import make_data_set
from trainer.config import ModelOptions, TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.train import train

FOLDER = Path(__file__).parent
CORPUS = FOLDER.parents[2] / "examples" / "quickstart" / "make_corpus.py"
FIELDS = ("mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy")
SEEDS = (0, 1, 2)

DEVIATIONS = 4.0
NEIGHBOURS = 2
LEAST = 0.01

Curve = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedRun:
    """A run that anybody can do again.

    Attributes:
        make_data: Writes its data set to a folder.
        vocab_size: Ids of that.
        options: What it does; all else is by default.
    """

    make_data: Callable[[Path], DataSet]
    vocab_size: int
    options: Mapping[str, Any]


def make_topics(folder: Path) -> DataSet:
    """4,000 pairs whose segments keep to the words of one topic: next sentences are learned within 200 steps."""
    return make_data_set(folder, train_blocks=((500,) * 8,), eval_blocks=((500,),))


def make_world(folder: Path) -> DataSet:
    """500 articles of the quickstart's invented world: a natural mix of words and lengths."""
    spec = importlib.util.spec_from_file_location("make_corpus", CORPUS)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["make_corpus"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder.mkdir(parents=True)
    module.write_dump(folder / "wiki.xml", num_articles=500)
    options = BuildOptions(
        tokenizer=TokenizerOptions(vocab_size=2000),
        pairs=PairOptions(max_seq_length=64),
        masks=MaskOptions(num_mask_sets=5),
        max_seq_lengths=(64,),
    )
    with open_build([str(folder / "wiki.xml")], out=folder / "shards", options=options) as work:
        assert work is not None
        build_serially(work)
    return open_data_set(folder / "shards")


RUNS = {
    "topics": NamedRun(
        make_data=make_topics, vocab_size=120, options={"max_steps": 300, "learning_rate": 4e-3, "log_every": 10}
    ),
    "world": NamedRun(
        make_data=make_world, vocab_size=2000, options={"max_steps": 300, "learning_rate": 4e-3, "log_every": 10}
    ),
}


def train_curve(run: NamedRun, *, data_set: DataSet, seed: int, out: Path, **changes: Any) -> Curve:
    """Trains a run; returns the values of its rows of training by field.

    Raises:
        InterruptedError: A signal has stopped it.
    """
    model = ModelOptions(
        vocab_size=run.vocab_size,
        num_hidden_layers=2,
        hidden_size=64,
        num_attention_heads=2,
        intermediate_size=256,
        max_position_embeddings=64,
    )
    values: dict[str, Any] = {"out": str(out), "model": model, "batch_size": 32, "micro_batch_size": 32, "seed": seed}
    values |= {"warmup_steps": run.options["max_steps"] // 10, "save_every": 10**6, "eval_samples": 1}
    values |= {"eval_every": 10**6, "pad_to_multiple": 64}  # a step is one micro-batch then
    world = World(rank=0, size=1, device=torch.device("cpu"))
    rows = train(
        TrainingData(data_sets=(data_set,)), TrainOptions(**(values | dict(run.options) | changes)), world=world
    )
    trained = [row for row in rows if row["kind"] == "train"]
    if trained[-1]["step"] != run.options["max_steps"]:
        raise InterruptedError("a signal has stopped the run; its curve is cut short")
    return {name: [round(float(row[name]), 5) for row in trained] for name in ("step", *FIELDS)}


def band(curves: Sequence[Curve], field: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the middle of what another seed gives at each row, and how far from it a curve may lie.

    Half of the width is four standard deviations. Three seeds tell little of those, so the variances of five
    neighbouring rows are taken together; and the middle is off by a third of a variance itself.

    Returns:
        float64 [R] each.
    """
    values = np.array([curve[field] for curve in curves])
    variance = np.pad(values.var(axis=0, ddof=1), NEIGHBOURS, mode="edge")
    window = np.ones(2 * NEIGHBOURS + 1) / (2 * NEIGHBOURS + 1)
    deviation = np.sqrt(np.convolve(variance, window, mode="valid") * (1 + 1 / len(values)))
    return values.mean(axis=0), np.maximum(DEVIATIONS * deviation, LEAST)


def departures(reference: Sequence[Curve], curve: Curve) -> list[str]:
    """Returns where a curve leaves the band of the reference, in words; empty where it lies within."""
    found = []
    if curve["step"] != reference[0]["step"]:
        return [f"rows are at other steps: {curve['step'][:3]}... instead of {reference[0]['step'][:3]}..."]
    for field in FIELDS:
        middle, reach = band(reference, field)
        values = np.array(curve[field])
        outside = np.flatnonzero(np.abs(values - middle) > reach)
        if len(outside):
            worst = outside[np.argmax((np.abs(values - middle) / reach)[outside])]
            found.append(
                f"{field} is outside at {len(outside)} of {len(values)} rows, farthest at step {curve['step'][worst]}: "
                f"{values[worst]:.4f}, where {middle[worst]:.4f} ± {reach[worst]:.4f} is normal"
            )
    return found


def kept_names() -> list[str]:
    """Returns the names of the runs of which curves are kept."""
    return [name for name in RUNS if (FOLDER / f"{name}.json").exists()]


def load_reference(name: str) -> dict[str, Any]:
    """Returns what is kept of a run: fingerprint of its data, versions, and the curve of each seed."""
    contents: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return contents


def save_reference(name: str, *, fingerprint: str, curves: Mapping[int, Curve]) -> Path:
    """Writes what `load_reference` reads."""
    contents = {
        "options": dict(RUNS[name].options),
        "data": fingerprint,
        "versions": {"torch": torch.__version__.partition("+")[0], "numpy": np.__version__},
        "curves": {str(seed): curve for seed, curve in curves.items()},
    }
    path = FOLDER / f"{name}.json"
    lines = json.dumps(contents, indent=1)
    path.write_text(_join_numbers(lines) + "\n")
    return path


def _join_numbers(text: str) -> str:
    """Puts the numbers of a list on one line."""
    return re.sub(r"\[\s*([^\[\]{}\"]*?)\s*\]", lambda match: f"[{' '.join(match[1].split())}]", text)
