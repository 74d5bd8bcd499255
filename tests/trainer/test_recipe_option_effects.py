"""Every option of a recipe reaches the run and has the effect that its help promises, and no option has none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from bertdata.data_set import DataSet
from tests.trainer.test_train import options_for, train_on
from trainer.checkpoint import load_latest
from trainer.cli import main
from trainer.config import TrainOptions
from trainer.metrics import load_metrics
from trainer.recipe_options import recipe_options

TESTED: set[str] = set()
OPTIONS = {option.name for option in recipe_options(lambda: None).__click_params__}  # type: ignore[attr-defined]


def effect_of(*names: str) -> Callable[[Any], Any]:
    """Marks a test as the test of some options."""

    def mark(test: Any) -> Any:
        TESTED.update(names)
        return test

    return mark


class Outcome:
    """What a run of four steps left behind."""

    def __init__(self, out: Path) -> None:
        checkpoint = load_latest(out / "checkpoints")
        assert checkpoint is not None
        self.weights: dict[str, Tensor] = checkpoint["model"]
        rows = [row for row in load_metrics(out / "metrics.jsonl") if row["kind"] == "train"]
        self.rates = [row["learning_rate"] for row in rows]
        self.norms = [row["grad_norm"] for row in rows]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Outcome)
        return all(torch.equal(weight, other.weights[name]) for name, weight in self.weights.items())

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def run(data_set: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """Returns a function that trains four steps with other options than usual."""
    known: dict[str, Outcome] = {}

    def train_with(**changes: Any) -> Outcome:
        key = repr(changes)
        if key not in known:
            out = tmp_path_factory.mktemp("run")
            usual = {"max_steps": 4, "warmup_steps": 1, "log_every": 1, "save_every": 4}
            train_on(data_set, options_for(out, **(usual | changes)))
            known[key] = Outcome(out)
        return known[key]

    return train_with


@effect_of("learning_rate", "warmup_steps", "schedule_steps", "schedule_start", "decay_power", "decay_from", "decay_to")
@pytest.mark.parametrize(
    ("change", "rates"),
    [
        ({}, [1, 1, 2 / 3, 1 / 3]),
        ({"learning_rate": 0.02}, [2, 2, 4 / 3, 2 / 3]),
        ({"warmup_steps": 2}, [0.5, 1, 1, 0.5]),
        ({"schedule_steps": 6}, [1, 1, 0.8, 0.6]),
        ({"schedule_start": 1}, [1, 0.75, 0.5, 0.25]),
        ({"decay_power": 2.0}, [1, 1, 4 / 9, 1 / 9]),
        ({"decay_from": "start"}, [1, 0.75, 0.5, 0.25]),
        ({"decay_to": 0.5}, [1, 1, 5 / 6, 2 / 3]),
    ],
    ids=str,
)
def test_schedule_decides_the_rate_of_each_step(
    run: Callable[..., Outcome], change: dict[str, Any], rates: list[float]
) -> None:
    outcome = run(**change)
    assert outcome.rates == pytest.approx([0.01 * rate for rate in rates])
    assert (outcome == run()) == (not change)


@effect_of("optimizer", "adam_beta1", "adam_beta2", "adam_epsilon", "bias_correction", "weight_decay")
@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "lamb"},
        {"adam_beta1": 0.5},
        {"adam_beta2": 0.5},
        {"adam_epsilon": 0.1},
        {"bias_correction": False},
        {"weight_decay": 0.5},
    ],
    ids=str,
)
def test_optimizer_decides_the_weights(run: Callable[..., Outcome], change: dict[str, Any]) -> None:
    assert run(**change) != run()
    if "optimizer" not in change:
        assert run(optimizer="lamb", **change) != run(optimizer="lamb")


@effect_of("max_grad_norm")
def test_gradients_are_clipped_where_they_are_too_long(run: Callable[..., Outcome]) -> None:
    usual, none = run(), run(max_grad_norm=0.0)
    assert max(usual.norms) > 1.0
    assert usual.norms[0] == pytest.approx(none.norms[0])
    assert usual != none
    assert run(max_grad_norm=1e9).norms == pytest.approx(none.norms)


@effect_of("init", "init_optimizer")
def test_run_begins_where_another_ended(run: Callable[..., Outcome], data_set: DataSet, tmp_path: Path) -> None:
    train_on(data_set, options_for(tmp_path / "first", max_steps=3, warmup_steps=1, save_every=3))
    first = str(tmp_path / "first")
    outcomes = [run(), run(init=first), run(init=first, init_optimizer=True)]
    assert outcomes[0] != outcomes[1] != outcomes[2] != outcomes[0]
    assert outcomes[1].norms[0] == outcomes[2].norms[0] != outcomes[0].norms[0]  # the same weights, other moments


@effect_of("preset", "phase")
def test_preset_and_phase_decide_what_is_not_given(
    capture: Callable[..., TrainOptions], data_set: DataSet, tmp_path: Path
) -> None:
    base, large = (capture("--preset", name) for name in ("bert-base", "bert-large"))
    assert (base.model.num_hidden_layers, large.model.num_hidden_layers) == (12, 24)
    train_on(data_set, options_for(tmp_path / "first", max_steps=1, warmup_steps=0))
    second = capture("--preset", "bert-base", "--phase", 2, "--init", tmp_path / "first")
    assert (base.max_steps, second.max_steps) == (900_000, 100_000)
    assert capture("--preset", "bert-base", "--max-steps", 7).max_steps == 7


@pytest.fixture
def capture(data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainOptions]:
    """Returns a function that gives arguments to the command, and returns the options that its run would have."""

    def options_of(*arguments: object) -> TrainOptions:
        seen: list[TrainOptions] = []
        monkeypatch.setattr("trainer.train.train", lambda _, options, **__: seen.append(options) or [])
        command = ["--shards", str(data_set.folder), "--out", str(tmp_path / "run"), *map(str, arguments)]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.stderr
        return seen[0]

    return options_of


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--learning-rate", 0.5),
        ("--warmup-steps", 3),
        ("--schedule-steps", 99_999),
        ("--schedule-start", 7),
        ("--decay-power", 0.25),
        ("--decay-from", "start"),
        ("--decay-to", 0.125),
        ("--optimizer", "lamb"),
        ("--adam-beta1", 0.5),
        ("--adam-beta2", 0.25),
        ("--adam-epsilon", 0.125),
        ("--weight-decay", 0.75),
        ("--max-grad-norm", 0.0),
        ("--bias-correction", True),
        ("--no-bias-correction", False),
        ("--init-optimizer", True),
        ("--no-init-optimizer", False),
    ],
)
def test_argument_reaches_the_options(
    capture: Callable[..., TrainOptions], data_set: DataSet, tmp_path: Path, argument: str, value: object
) -> None:
    more: list[object] = [] if isinstance(value, bool) else [value]
    if "init" in argument:
        train_on(data_set, options_for(tmp_path / "first", max_steps=1, warmup_steps=0, schedule_steps=9))
        more = ["--init", tmp_path / "first"]
    options = capture("--max-steps", 8, argument, *more)
    name = argument.removeprefix("--").removeprefix("no-").replace("-", "_")
    assert getattr(options, name) == value


def test_every_option_has_a_test_of_its_effect() -> None:
    assert OPTIONS == TESTED
