"""What a run is, beside its numbers: `run.json` in its folder, written by the first process at each start.

{"format_version": 1,
 "data": [{"place": "wiki/", "fingerprint": "0f3c2a9be1d47c55", "train_samples": 9281, ...}],
 "word_entropy": 6.7, "num_parameters": 4385920,
 "options": {"batch_size": 256, ...}, "origins": {"batch_size": "given", ...},
 "starts": [{"step": 0, "time": "2026-11-21T20:00:00Z", "device": "NVIDIA H200", "num_processes": 8, "versions": {...},
             "end": {"step": 1000, "time": "...", "is_finished": true}}]}

Options and data are those of the last start. A start without an end runs still, or was killed. Nothing of the run
depends on this file; the report reads it.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertdata.errors import OutputError
from bertdata.files import write_atomically
from trainer.config import ModelOptions, TrainOptions

if TYPE_CHECKING:
    import torch

    from trainer.data import TrainingData

__all__ = [
    "FILE_NAME",
    "count_parameters",
    "learns_next_sentences",
    "load_facts",
    "load_facts_of",
    "write_end",
    "write_start",
]

FILE_NAME = "run.json"
FORMAT_VERSION = 1
_MAX_STARTS = 100  # newest that are kept: a run may be stopped a thousand times


def count_parameters(options: ModelOptions) -> int:
    """Returns the parameters of a model with both heads, tied ones once, without padding of the vocabulary."""
    hidden, inner, vocab = options.hidden_size, options.intermediate_size, options.vocab_size
    norm = 2 * hidden
    embeddings = (vocab + options.max_position_embeddings + options.type_vocab_size) * hidden + norm
    layer = 4 * (hidden * hidden + hidden) + (hidden * inner + inner) + (inner * hidden + hidden) + 2 * norm
    pooler = hidden * hidden + hidden
    heads = (hidden * hidden + hidden + norm + vocab) + (2 * hidden + 2)
    return embeddings + options.num_hidden_layers * layer + pooler + heads


def load_facts(folder: Path) -> dict[str, Any] | None:
    """Returns the contents of a run's `run.json`; None where it has none that can be read."""
    try:
        facts = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_known = isinstance(facts, dict) and facts.get("format_version") == FORMAT_VERSION
    return facts if is_known and isinstance(facts.get("starts"), list) else None


def load_facts_of(place: Path) -> dict[str, Any] | None:
    """Returns `load_facts` of the run that a folder is, or that the exported model in it is of."""
    folder = place.resolve()
    return load_facts(folder.parent if folder.name == "hf" else folder)


def learns_next_sentences(facts: dict[str, Any]) -> bool:
    """Returns whether a run trains its next-sentence head, which an export has in any case; True where no run is known.

    Args:
        facts: From `load_facts_of`, or empty.
    """
    return bool(facts.get("options", {}).get("next_sentence", True))


def write_start(
    options: TrainOptions,
    *,
    data: TrainingData,
    device: torch.device,
    num_processes: int,
    first_step: int,
    origins: Mapping[str, str],
    word_entropy: float | None,
) -> None:
    """Writes that a run begins or goes on.

    Args:
        options: What the run does, and its folder.
        data: What it is trained on.
        device: Of this process; the others have the like.
        num_processes: How many there are.
        first_step: Steps done before.
        origins: Where options come from, by name.
        word_entropy: MLM loss of a model that knows nothing but the frequencies of words, in nats.

    Raises:
        OutputError: The file cannot be written.
    """
    folder = Path(options.out)
    before = load_facts(folder) if first_step else None
    start = {
        "step": first_step,
        "time": _now(),
        "num_processes": num_processes,
        **_describe_machine(device),
    }
    facts = {
        "format_version": FORMAT_VERSION,
        "data": _describe_data(data),
        "word_entropy": word_entropy,
        "num_parameters": count_parameters(options.model),
        "options": options.to_json(),
        "origins": dict(origins),
        "starts": [*(before["starts"] if before else []), start][-_MAX_STARTS:],
    }
    _write(folder, facts)


def write_end(folder: Path, *, step: int, is_finished: bool) -> None:
    """Writes that a run has come to its end, or was stopped and can go on.

    Args:
        folder: The run's folder, where `write_start` wrote.
        step: Steps done.
        is_finished: Whether none are left.

    Raises:
        OutputError: The file cannot be written.
    """
    facts = load_facts(folder)
    if facts is not None and facts["starts"]:
        facts["starts"][-1]["end"] = {"step": step, "time": _now(), "is_finished": is_finished}
        _write(folder, facts)


def _write(folder: Path, facts: dict[str, Any]) -> None:
    path = folder / FILE_NAME
    try:
        write_atomically(path, (json.dumps(facts, indent=1) + "\n").encode())
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error}); make room and run the same command again, it continues"
        ) from error


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _describe_data(data: TrainingData) -> list[dict[str, Any]]:
    weights = data.weights or [None] * len(data.data_sets)
    return [
        {
            "place": data_set.location,
            "fingerprint": data_set.manifest.fingerprint[:16],
            "weight": weight,
            "train_samples": data_set.manifest.num_samples("train"),
            "train_tokens": sum(shard.num_tokens for shard in data_set.manifest.shards if shard.split == "train"),
            "eval_samples": data_set.manifest.num_samples("eval"),
            "max_seq_length": data_set.manifest.options["pairs"]["max_seq_length"],
            "next_sentence": data_set.manifest.options["pairs"]["next_sentence"],
        }
        for data_set, weight in zip(data.data_sets, weights, strict=True)
    ]


def _describe_machine(device: torch.device) -> dict[str, Any]:
    import torch  # here: reading the file needs no torch, so a page about a run is made where none is installed

    is_gpu = device.type == "cuda"
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("bertdata", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    if is_gpu:
        versions["cuda"] = str(torch.version.cuda)
    return {
        "device": str(torch.cuda.get_device_name(device)) if is_gpu else _processor_name(),
        "threads": None if is_gpu else torch.get_num_threads(),
        "versions": versions,
    }


def _processor_name() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
