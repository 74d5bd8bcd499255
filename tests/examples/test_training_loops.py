"""Both loops: a run that was killed and goes on equals one that was not, to the last bit."""

import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bertdata.data_set import DataSet
from tests.small_data_set import make_data_set

EXAMPLES = Path(__file__).parents[2] / "examples" / "training_loops"
NUM_STEPS, SAVE_EVERY, KILLED_AFTER = 12, 4, 6


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return make_data_set(tmp_path_factory.mktemp("shards"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices are too small for more, and sums depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(shards: DataSet, out: Path, *more: str) -> list[str]:
    numbers = {"--batch-size": 16, "--max-steps": NUM_STEPS, "--save-every": SAVE_EVERY, "--log-every": 1}
    options = [text for option, number in numbers.items() for text in (option, str(number))]
    return ["--shards", str(shards.folder), "--out", str(out), *options, *more]


def run(name: str, arguments: list[str]) -> None:
    runpy.run_path(str(EXAMPLES / name))["main"].main(arguments, standalone_mode=False)


def run_and_kill(name: str, arguments: list[str], *, marker: str) -> list[str]:
    """Runs an example until it has told of so many steps, and returns what it printed."""
    repository = EXAMPLES.parents[1]
    paths = os.pathsep.join([str(repository), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        while len(lines) < KILLED_AFTER:
            line = process.stdout.readline()
            assert line
            lines += [line.strip()] if marker in line else []
        process.kill()
    return lines


def test_plain_loop_goes_on_after_a_kill_as_if_nothing_had_been(
    shards: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("plain_pytorch.py", arguments(shards, tmp_path / "whole"))
    wanted = capsys.readouterr().out.splitlines()
    assert len(wanted) == NUM_STEPS

    broken = arguments(shards, tmp_path / "broken")
    assert run_and_kill("plain_pytorch.py", broken, marker="loss") == wanted[:KILLED_AFTER]
    run("plain_pytorch.py", broken)
    goes_on = capsys.readouterr().out.splitlines()
    assert goes_on == wanted[-len(goes_on) :]
    assert len(goes_on) in (NUM_STEPS - SAVE_EVERY, NUM_STEPS - 2 * SAVE_EVERY)  # a kill takes its time
    whole, continued = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("whole", "broken"))
    assert whole["data"] == continued["data"]
    assert whole["data"]["samples_seen"] == 16 * NUM_STEPS
    assert all(torch.equal(whole["model"][name], value) for name, value in continued["model"].items())


def log_of(out: Path) -> list[dict[str, Any]]:
    rows = json.loads((out / f"checkpoint-{NUM_STEPS}" / "trainer_state.json").read_text())["log_history"]
    return [{name: row[name] for name in ("step", "loss", "grad_norm", "learning_rate")} for row in rows]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_transformers_trainer_goes_on_after_a_kill_as_if_nothing_had_been(shards: DataSet, tmp_path: Path) -> None:
    name, micro_batches = "transformers_trainer.py", ["--micro-batch-size", "8"]
    run(name, arguments(shards, tmp_path / "whole", *micro_batches))
    broken = arguments(shards, tmp_path / "broken", *micro_batches)
    run_and_kill(name, broken, marker="loss")
    assert (tmp_path / "broken" / f"checkpoint-{SAVE_EVERY}" / "data_state.json").exists()
    assert not (tmp_path / "broken" / f"checkpoint-{NUM_STEPS}").exists()
    run(name, broken)

    wanted = log_of(tmp_path / "whole")
    assert [row["step"] for row in wanted] == list(range(1, NUM_STEPS + 1))
    # Of a model that knows nothing, and not the sum over the two batches of a step.
    assert wanted[0]["loss"] == pytest.approx(math.log(120) + math.log(2), abs=0.5)
    assert log_of(tmp_path / "broken") == wanted
    last = f"checkpoint-{NUM_STEPS}"
    whole, continued = (tmp_path / name / last / "model.safetensors" for name in ("whole", "broken"))
    assert whole.read_bytes() == continued.read_bytes()
    state = json.loads((tmp_path / "broken" / last / "data_state.json").read_text())
    assert state["samples_seen"] == 16 * NUM_STEPS


def test_transformers_trainer_passes_over_a_checkpoint_that_is_not_whole(tmp_path: Path) -> None:
    find_checkpoint = runpy.run_path(str(EXAMPLES / "transformers_trainer.py"))["find_checkpoint"]
    assert find_checkpoint(tmp_path) is None
    for step in (50, 100, 1000):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert find_checkpoint(tmp_path) is None
    for step in (50, 100):
        (tmp_path / f"checkpoint-{step}" / "data_state.json").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_loop_in_the_guide_runs_and_goes_on(shards: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (EXAMPLES.parents[1] / "docs" / "training-data.md").read_text().partition("## Your own training loop")[2]
    code, rest = text.partition("```python")[2].split("```", 1)
    small = "BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, "
    for old, new in (('"shards/"', repr(str(shards.folder))), ("BertConfig(", small), ("1000", "3")):
        assert old in code
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    names["data"].load_state_dict(names["data"].state_dict(step=0))
    exec(rest.split("`")[1], names)
    assert names["data"].state_dict()["samples_seen"] == 3 * 64
