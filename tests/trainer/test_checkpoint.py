import dataclasses
import errno
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bertdata.errors import OutputError, TrainingError
from trainer.checkpoint import _Sink, check_continues, check_room, load_latest, save_checkpoint
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


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoints_keep_the_newest(tmp_path: Path) -> None:
    for step in (5, 10, 20, 100):
        save_checkpoint(tmp_path, state(step), keep=3)
    assert names_in(tmp_path) == ["step-00000010.pt", "step-00000020.pt", "step-00000100.pt"]
    newest = load_latest(tmp_path)
    assert newest is not None
    assert newest["step"] == 100
    assert newest["model"]["weight"].tolist() == [100, 100]


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_damaged_checkpoint_of_a_later_step_does_not_push_out_the_new_one(tmp_path: Path, keep: int) -> None:
    for step in (10, 20, 30, 40):
        save_checkpoint(tmp_path, state(step), keep=5)
    for step in (30, 40):
        (tmp_path / f"step-000000{step}.pt").write_bytes(b"torn")
    path = save_checkpoint(tmp_path, state(25), keep=keep)
    assert names_in(tmp_path) == ["step-00000010.pt", "step-00000020.pt", path.name][-keep:]
    found = load_latest(tmp_path)
    assert found is not None
    assert found["step"] == 25


@pytest.mark.parametrize("number", [1, 2, 4])
def test_error_of_the_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step, model={"weight": torch.ones(100_000)}), keep=3)
    times, read = [0], os.readv

    def fail(descriptor: int, buffers: list[Any]) -> int:
        times[0] += 1
        if times[0] == number:
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, buffers)

    with monkeypatch.context() as patch:
        patch.setattr("os.readv", fail)
        with pytest.raises(TrainingError, match=r"step-00000002.pt cannot be read \(.*Input/output error.*need not be"):
            load_latest(tmp_path)
    found = load_latest(tmp_path)
    assert found is not None
    assert found["step"] == 2


def test_checkpoint_that_cannot_be_opened_is_no_damage(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=3)
    (tmp_path / "step-00000002.pt").mkdir()
    with pytest.raises(TrainingError, match=r"step-00000002.pt cannot be read \(.*Is a directory.*need not be damage"):
        load_latest(tmp_path)


def test_checkpoint_that_cannot_be_removed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "step-00000002.pt").mkdir()
    with pytest.raises(OutputError, match=r"cannot be removed to keep 1 .*it continues"):
        save_checkpoint(tmp_path, state(1), keep=1)
    assert (tmp_path / "step-00000001.pt").exists()


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


def damaged_offsets(size: int) -> list[int]:
    """Every part of the file, ends and beginnings more often."""
    return sorted({*range(0, 200, 7), *range(0, size, max(1, size // 150)), *range(size - 300, size, 5), size - 1})


def test_checkpoint_cut_at_any_length_is_skipped(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=3)
    path = save_checkpoint(tmp_path, state(2), keep=3)
    data = path.read_bytes()
    for size in damaged_offsets(len(data)):
        path.write_bytes(data[:size])
        found = load_latest(tmp_path)
        assert found is not None
        assert found["step"] == 1, size


def test_bit_flip_anywhere_is_harmless_or_skipped(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), keep=3)
    weights = torch.arange(3000, dtype=torch.float32)
    path = save_checkpoint(tmp_path, state(2, model={"weight": weights}), keep=3)
    data, skipped = path.read_bytes(), 0
    where = data.index(weights.numpy().tobytes())
    for offset in damaged_offsets(len(data)):
        changed = bytearray(data)
        changed[offset] ^= 1 << offset % 8
        path.write_bytes(changed)
        found = load_latest(tmp_path)
        assert found is not None
        if found["step"] == 1:
            skipped += 1
        else:  # in what no reader looks at, such as a time
            assert not where <= offset < where + weights.nbytes
            assert torch.equal(found["model"]["weight"], weights)
            assert found["options"] == OPTIONS
    assert skipped > 150


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


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Returns a function that lets the files of a folder have so many bytes together."""

    def limit(num_bytes: int) -> None:
        def write(sink: _Sink, data: Any, *, really: Callable[..., int] = _Sink.write) -> int:
            used = sum(path.stat().st_size for path in tmp_path.iterdir())
            if used + memoryview(data).nbytes > num_bytes and sink.error is None:
                sink._file = io.BufferedWriter(FullDisk())  # type: ignore[assignment]
            return really(sink, memoryview(data).cast("B"))

        monkeypatch.setattr(_Sink, "write", write)

    return limit


class FullDisk(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, _: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def big(step: int) -> dict[str, Any]:
    return state(step, model={"weight": torch.full((100_000,), step)})


def test_full_disk_is_one_clear_error_and_the_checkpoint_before_is_whole(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    size = save_checkpoint(tmp_path, big(1), keep=3).stat().st_size
    for room in (0, 1000, size // 2, size - 1):  # within any part of the file
        small_disk(size + room)
        with pytest.raises(OutputError, match=r"step-00000002.pt cannot be written .*No space left.*make room and run"):
            save_checkpoint(tmp_path, big(2), keep=3)
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
        found = load_latest(tmp_path)
        assert found is not None
        assert torch.equal(found["model"]["weight"], torch.full((100_000,), 1))


def test_full_disk_takes_older_checkpoints_and_leaves_a_whole_one(
    tmp_path: Path, small_disk: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        size = save_checkpoint(tmp_path, big(step), keep=5).stat().st_size
    small_disk(3 * size + size // 2)
    save_checkpoint(tmp_path, big(4), keep=5)
    assert "2 older checkpoints were removed" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003.pt", "step-00000004.pt"]
    (tmp_path / "step-00000004.pt").write_bytes(b"torn")
    small_disk(size + size // 2)
    with pytest.raises(OutputError):
        save_checkpoint(tmp_path, big(5), keep=5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003.pt"]


def test_room_is_asked_for_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.checkpoint.free_bytes", lambda _: 5_000_000)
    check_room(tmp_path, num_parameters=100_000, keep=2)  # 3 x 1.2 MB and 0.4 MB
    with pytest.raises(OutputError, match=r"5.0 MB are free, and the run needs 5.2 MB for 4 checkpoints of 1.2 MB"):
        check_room(tmp_path, num_parameters=100_000, keep=3)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000001.pt").write_bytes(bytes(1_200_000))
    check_room(tmp_path, num_parameters=100_000, keep=3)  # which one of the four already is


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
