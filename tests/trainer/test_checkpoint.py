import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from bertdata.errors import OutputError, TrainingError
from trainer.checkpoint import check_continues, load_latest, save_checkpoint
from trainer.config import ModelOptions, TrainOptions
from trainer.state import DataState

OPTIONS = TrainOptions(
    out="run",
    model=ModelOptions(vocab_size=9, num_hidden_layers=1, hidden_size=4, num_attention_heads=1, intermediate_size=8),
    batch_size=8,
    micro_batch_size=8,
    max_steps=10,
    learning_rate=1e-3,
    warmup_steps=1,
).to_json()

DATA = DataState(data_sets=("aa",), seed=0, batch_size=8)


def state(step: int, **changes: Any) -> dict[str, Any]:
    values = {"step": step, "model": {"weight": torch.full((2,), step)}, "options": OPTIONS, "data": DATA.to_json()}
    return values | changes


def test_checkpoints_keep_the_newest(tmp_path: Path) -> None:
    for step in (5, 10, 100, 20):
        save_checkpoint(tmp_path, state(step), keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000010.pt",
        "step-00000020.pt",
        "step-00000100.pt",
    ]
    newest = load_latest(tmp_path)
    assert newest is not None
    assert newest["step"] == 100
    assert newest["model"]["weight"].tolist() == [100, 100]


def test_load_latest_of_nothing_is_none(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "missing") is None


@pytest.mark.parametrize("size", [0, 10, 500, -1])
def test_torn_checkpoint_is_skipped(tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture) -> None:
    save_checkpoint(tmp_path, state(1), keep=3)
    torn = save_checkpoint(tmp_path, state(2), keep=3)
    torn.write_bytes(torn.read_bytes()[:size])
    with caplog.at_level(logging.WARNING):
        found = load_latest(tmp_path)
    assert found is not None
    assert found["step"] == 1
    assert "step-00000002.pt" in caplog.text


def test_only_torn_checkpoints_are_an_error(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=3).write_bytes(b"")
    with pytest.raises(TrainingError, match="none of the 1 checkpoints"):
        load_latest(tmp_path)


def test_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, state(1), keep=3)
    torch.save(torch.load(path, weights_only=True) | {"format_version": 99}, path)
    with pytest.raises(TrainingError, match="version 99"):
        load_latest(tmp_path)


def test_failed_save_leaves_the_one_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=1)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path, state(2, model=lambda: None), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]


def test_disk_error_names_the_checkpoint_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match=r"step-00000002.pt cannot be written .*No space left.*make room"):
        save_checkpoint(tmp_path, state(2), keep=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"next_sentence": False}, "next_sentence is False, not True"),
        ({"model": OPTIONS["model"] | {"hidden_size": 8}}, "the model's hidden_size is 8, not 4"),
    ],
)
def test_continuing_names_what_differs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        check_continues(state(3), options=OPTIONS | change, data=DATA, folder=Path("run"))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 1}, "seed is 1, not 0"), ({"data_sets": ("bb",)}, "data_sets is bb, not aa")],
)
def test_continuing_refuses_another_order_of_data(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=rf"{message}.*another --out folder; processes, .* may differ"):
        check_continues(state(3), options=OPTIONS, data=dataclasses.replace(DATA, **change), folder=Path("run"))


def test_continuing_refuses_a_last_step_that_has_passed() -> None:
    with pytest.raises(TrainingError, match=r"step 11, past the 10 steps .* larger --max-steps .* another --out"):
        check_continues(state(11), options=OPTIONS, data=DATA, folder=Path("run"))
    check_continues(state(10), options=OPTIONS, data=DATA, folder=Path("run"))  # finished, to be exported


def test_continuing_allows_what_changes_no_order(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        change = {"micro_batch_size": 2, "max_steps": 20, "learning_rate": 0.5, "out": "moved"}
        check_continues(state(3), options=OPTIONS | change, data=DATA, folder=Path("run"))
    assert "max_steps 20 instead of 10" in caplog.text
