import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from tests.trainer.test_train import ALONE, MODEL, comparable, options_for, train_on
from trainer.checkpoint import load_latest
from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.defaults import Request, choose
from trainer.initial import load_initial
from trainer.metrics import load_metrics
from trainer.model import build_model
from trainer.optimizer import make_optimizer
from trainer.phases import find_run, take_moments
from trainer.schedule import learning_rate_at
from trainer.train import train
from trainer.weight_files import put_weights


def chosen(data_set: DataSet, out: Path, **given: Any) -> TrainOptions:
    """Options for a small run, chosen as the command does."""
    checkpoint = load_latest(out / "checkpoints")
    init = given.get("init")
    choice = choose(
        Request(out=str(out), settings={"batch_size": 16, "log_every": 1} | given),
        data=TrainingData(data_sets=(data_set,)),
        device_type="cpu",
        world_size=1,
        before=checkpoint["options"] if checkpoint else None,
        run=find_run(Path(init)) if init and not checkpoint else None,
    )
    return choice.options


def rates_of(out: Path) -> list[float]:
    return [row["learning_rate"] for row in load_metrics(out / "metrics.jsonl") if row["kind"] == "train"]


@pytest.fixture(scope="module")
def phase_1(data_set: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps of a schedule over 15."""
    out = tmp_path_factory.mktemp("phase") / "1"
    train_on(data_set, options_for(out, max_steps=6, schedule_steps=15, warmup_steps=4, log_every=1, decay_power=0.5))
    return out


def test_phases_together_have_the_rates_of_one_run(data_set: DataSet, phase_1: Path, tmp_path: Path) -> None:
    options = chosen(data_set, tmp_path / "2", init=str(phase_1), max_steps=9)
    assert (options.schedule_start, options.schedule_steps, options.init_optimizer) == (6, 15, True)
    assert options.model == MODEL
    train_on(data_set, options)
    train_on(data_set, options_for(tmp_path / "one", max_steps=15, warmup_steps=4, log_every=1, decay_power=0.5))
    assert rates_of(phase_1) + rates_of(tmp_path / "2") == rates_of(tmp_path / "one")
    assert len(rates_of(tmp_path / "one")) == 15


def test_phase_2_goes_to_the_end_of_the_schedule_where_nothing_is_said(
    data_set: DataSet, phase_1: Path, tmp_path: Path
) -> None:
    assert chosen(data_set, tmp_path, init=str(phase_1)).max_steps == 9
    with pytest.raises(TrainingError, match="--schedule-steps is 15, but the run goes on to step 16, 6 of earlier"):
        chosen(data_set, tmp_path, init=str(phase_1), max_steps=10)


@pytest.mark.parametrize(
    "given", [{"learning_rate": 0.1}, {"warmup_steps": 1}, {"schedule_steps": 20}, {"schedule_start": 0}]
)
def test_phase_2_with_a_schedule_of_its_own(
    data_set: DataSet, phase_1: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    options = chosen(data_set, tmp_path, init=str(phase_1), max_steps=9, **given)
    assert (options.schedule_start, options.schedule_steps) == (0, given.get("schedule_steps"))
    assert not options.init_optimizer
    assert chosen(data_set, tmp_path, init=str(phase_1), max_steps=9, init_optimizer=True, **given).init_optimizer


def test_run_whose_schedule_has_ended_leaves_a_new_one(data_set: DataSet, tmp_path: Path) -> None:
    train_on(data_set, options_for(tmp_path / "1", max_steps=4, learning_rate=0.125))
    options = chosen(data_set, tmp_path / "2", init=str(tmp_path / "1"), max_steps=4)
    assert (options.schedule_start, options.schedule_steps, options.init_optimizer) == (0, None, False)
    assert options.learning_rate != 0.125


@pytest.mark.parametrize("init_optimizer", [True, False])
def test_stopped_phase_2_continues_bit_for_bit(
    data_set: DataSet, phase_1: Path, tmp_path: Path, init_optimizer: bool
) -> None:
    settings = {"init": str(phase_1), "init_optimizer": init_optimizer, "save_every": 2, "keep": 99}
    whole = tmp_path / "whole"
    rows = train_on(data_set, chosen(data_set, whole, **settings))
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    for path in (stopped / "checkpoints").iterdir():
        if int(path.stem.split("-")[1]) > 4:
            path.unlink()
    shutil.rmtree(stopped / "hf")
    # Phase 1 is not needed any more, and the options may be left out.
    options = chosen(data_set, stopped)
    assert options.to_json() | {"out": str(whole)} == chosen(data_set, whole, **settings).to_json()
    continued = train_on(data_set, options, checkpoint=load_latest(stopped / "checkpoints"))
    assert comparable(continued) == comparable(rows)
    weights = [load_latest(out / "checkpoints") for out in (whole, stopped)]
    for name, weight in weights[0]["model"].items():  # type: ignore[index]
        assert torch.equal(weight, weights[1]["model"][name])  # type: ignore[index]


def test_phase_2_begins_with_weights_and_moments(data_set: DataSet, phase_1: Path) -> None:
    saved = find_run(phase_1)
    assert saved is not None
    model = build_model(MODEL, seed=9)
    optimizer = make_optimizer(model, options_for(phase_1))
    initial = load_initial(phase_1, saved, options=MODEL, next_sentence=True, data_set=data_set)
    put_weights(model, initial.weights)
    take_moments(optimizer, initial)
    for name, weight in model.named_parameters():
        assert torch.equal(weight[: MODEL.vocab_size], saved["model"][name][: MODEL.vocab_size]), name
    state = optimizer.state_dict()["state"]
    assert all(
        torch.equal(value["exp_avg"], saved["optimizer"]["state"][key]["exp_avg"]) for key, value in state.items()
    )
    assert {float(value["step"]) for value in state.values()} == {6}
    exported = load_initial(phase_1 / "hf", options=MODEL, next_sentence=True, data_set=data_set)
    with pytest.raises(TrainingError, match="is an exported model, without the state"):
        take_moments(optimizer, exported)


def test_phase_2_begins_its_data_anew(data_set: DataSet, new_data_set: Callable[..., DataSet], phase_1: Path) -> None:
    longer = new_data_set(max_seq_length=40, train_blocks=((30, 20),))
    options = chosen(longer, phase_1.parent / "longer", init=str(phase_1), max_steps=2)
    train_on(longer, options)
    checkpoint = load_latest(phase_1.parent / "longer" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint["data"]["samples_seen"] == 32
    assert checkpoint["data"]["data_sets"] != find_run(phase_1)["data"]["data_sets"]  # type: ignore[index]


def test_preset_goes_on_where_the_phase_before_ended(data_set: DataSet, tmp_path: Path) -> None:
    small = {"max_steps": 3, "batch_size": 8}
    first = chosen(data_set, tmp_path / "1", preset="bert-base", **small)
    assert (first.phase, first.schedule_steps, first.schedule_start) == (1, 1_000_000, 0)
    train(TrainingData(data_sets=(data_set,)), _shrunk(first), world=ALONE)
    second = chosen(data_set, tmp_path / "2", preset="bert-base", phase=2, init=str(tmp_path / "1"), **small)
    assert (second.schedule_start, second.schedule_steps, second.init_optimizer) == (3, 1_000_000, True)
    own = chosen(data_set, tmp_path / "2", preset="lamb-large", phase=2, init=str(tmp_path / "1"), **small)
    assert (own.schedule_start, own.schedule_steps, own.learning_rate) == (0, 1_563, 4e-3)
    assert own.init_optimizer


@pytest.mark.parametrize("again", [{}, {"schedule_steps": 15}, {"learning_rate": 2e-3, "warmup_steps": 4}])
def test_phase_2_of_a_preset_takes_the_schedule_that_phase_1_had(
    data_set: DataSet, tmp_path: Path, again: dict[str, Any]
) -> None:
    shape = {"learning_rate": 2e-3, "warmup_steps": 4, "schedule_steps": 15, "decay_power": 0.5}
    first = chosen(data_set, tmp_path / "1", preset="bert-base", max_steps=6, **shape)
    train(TrainingData(data_sets=(data_set,)), _shrunk(first), world=ALONE)
    phase_2 = {"preset": "bert-base", "phase": 2, "init": str(tmp_path / "1")}
    second = chosen(data_set, tmp_path / "2", **phase_2, **again)
    assert {name: getattr(second, name) for name in shape} == shape
    assert (second.schedule_start, second.max_steps, second.init_optimizer) == (6, 9, True)
    one = chosen(data_set, tmp_path / "one", preset="bert-base", max_steps=15, **shape)
    assert [learning_rate_at(step, second) for step in range(9)] == [
        learning_rate_at(step, one) for step in range(6, 15)
    ]
    shorter = chosen(data_set, tmp_path / "2", **phase_2, max_steps=5)
    assert (shorter.schedule_start, shorter.schedule_steps, shorter.max_steps) == (6, 15, 5)


def test_beginning_is_compared_as_a_place(
    data_set: DataSet, phase_1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "2"
    train_on(data_set, chosen(data_set, out, init=str(phase_1), max_steps=1))
    monkeypatch.chdir(phase_1.parent)
    for same in (f"{phase_1}/", phase_1.name, f"./{phase_1.name}/../{phase_1.name}"):
        assert chosen(data_set, out, init=same).max_steps == 1
    with pytest.raises(TrainingError, match="holds a run that began with --init"):
        chosen(data_set, out, init=f"{phase_1}-other")


def _shrunk(options: TrainOptions) -> TrainOptions:
    return TrainOptions.from_json(options.to_json() | {"model": MODEL.to_json()})


def test_beginnings_that_cannot_be_are_refused(data_set: DataSet, phase_1: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match="phase 2 of bert-base begins with the weights of the phase before; give --i"
    ):
        chosen(data_set, tmp_path / "2", preset="bert-base", phase=2)
    with pytest.raises(TrainingError, match="--phase is 2, but of no recipe"):
        chosen(data_set, tmp_path / "2", phase=2)
    with pytest.raises(TrainingError, match=r"--init .*nothing is not there"):
        chosen(data_set, tmp_path / "2", init=str(tmp_path / "nothing"))
    with pytest.raises(TrainingError, match="there is no run; give --init"):
        chosen(data_set, tmp_path / "2", init_optimizer=True)
    with pytest.raises(TrainingError, match="there is no run; give --init"):
        chosen(data_set, tmp_path / "2", init=str(phase_1 / "hf"), init_optimizer=True)


def test_run_cannot_change_its_beginning(data_set: DataSet, phase_1: Path) -> None:
    for name, value in (("init", str(phase_1 / "hf")), ("preset", "bert-base")):
        with pytest.raises(TrainingError, match=f"holds a run that began with no --{name}, not with --{name} "):
            chosen(data_set, phase_1, **{name: value})


def test_exported_model_gives_its_shape_and_no_optimizer_state(
    data_set: DataSet, phase_1: Path, tmp_path: Path
) -> None:
    options = chosen(data_set, tmp_path, init=str(phase_1 / "hf"), preset="bert-base", phase=2, max_steps=3)
    assert options.model == MODEL
    assert not options.init_optimizer
    assert options.schedule_start == 900_000
