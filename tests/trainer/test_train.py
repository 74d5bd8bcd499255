import json
import os
import random
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from tests.trainer.faults import Run
from trainer.checkpoint import load_latest, save_checkpoint
from trainer.config import ModelOptions, TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.loader import Loader
from trainer.metrics import TIMES, load_metrics
from trainer.model import build_model
from trainer.phases import find_run
from trainer.step import backward
from trainer.train import train

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
MODEL = ModelOptions(vocab_size=120, num_hidden_layers=2, hidden_size=16, num_attention_heads=2, intermediate_size=32)


def options_for(out: Path, **changes: Any) -> TrainOptions:
    values: dict[str, Any] = {
        "out": str(out),
        "model": MODEL,
        "batch_size": 16,
        "micro_batch_size": 16,
        "max_steps": 24,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "log_every": 3,
        "save_every": 5,
    }
    return TrainOptions(**(values | changes))


def train_on(data_set: DataSet, options: TrainOptions, **more: Any) -> list[dict[str, Any]]:
    run = find_run(Path(options.init)) if options.init and not more.get("checkpoint") else None
    return train(TrainingData(data_sets=(data_set,)), options, world=ALONE, run=run, **more)


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def bert_train(*arguments: object, processes: int = 1) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, "-m", "trainer", *map(str, arguments)]


SETTINGS = ("--batch-size", 16, "--max-steps", 24, "--learning-rate", 0.01, "--log-every", 1, "--save-every", 4)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize("micro_batch_size", [1, 5, 8])
def test_gradient_is_the_same_for_every_micro_batch_size(data_set: DataSet, micro_batch_size: int) -> None:
    data = TrainingData(data_sets=(data_set,))
    plan, reader = data.make_plan(data.initial_state(seed=0, batch_size=16)), data.open_split("train")
    model = build_model(
        ModelOptions(
            vocab_size=120,
            num_hidden_layers=2,
            hidden_size=16,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout_prob=0.0,
        )
    ).double()
    gradients = []
    for size in (16, micro_batch_size):
        cutting = data.make_cutting(micro_batch_size=size)
        (step,) = Loader(plan, reader, rank=0, world_size=1, cutting=cutting).steps(0, 1)
        assert len(step.micro_batches) == -(-16 // size)
        model.zero_grad()
        backward(
            model,
            step.micro_batches,
            num_predictions=step.num_predictions,
            num_samples=step.num_samples,
            world=ALONE,
            seed=0,
            autocast=nullcontext(),
        )
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_train_learns_and_writes_its_files(data_set: DataSet, tmp_path: Path) -> None:
    rows = train_on(data_set, options_for(tmp_path, max_steps=150, log_every=50, save_every=50, keep=2))
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.2
    held_out = [row for row in rows if row["kind"] == "eval"][-1]
    assert held_out["num_samples"] == 41
    assert held_out["mlm_loss"] < 4.4  # log(120) is 4.79
    assert 0 < held_out["mlm_baseline"] < 0.3
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == list(range(1, 16))
    assert rows == load_metrics(tmp_path / "metrics.jsonl")
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000100.pt", "step-00000150.pt"]
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_epoch_rows_are_means_of_all_samples_of_the_epoch(data_set: DataSet, tmp_path: Path) -> None:
    rows = train_on(data_set, options_for(tmp_path, log_every=1, max_steps=25))
    trained = [row for row in rows if row["kind"] == "train"]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert [(row["epoch"], row["step"]) for row in epochs] == [(1, 10), (2, 20), (2.5, 25)]
    for first, row in zip((0, 10, 20), epochs, strict=True):
        nsp_losses = [one["nsp_loss"] for one in trained[first : row["step"]]]  # every step has as many samples
        assert row["nsp_loss"] == pytest.approx(sum(nsp_losses) / len(nsp_losses))


def test_train_without_next_sentence_reports_none(new_data_set: Callable[..., DataSet], tmp_path: Path) -> None:
    rows = train_on(new_data_set(next_sentence="none"), options_for(tmp_path, next_sentence=False, max_steps=4))
    assert all("nsp_loss" not in row and row["loss"] == row["mlm_loss"] for row in rows)


def test_train_without_held_out_samples_skips_evaluation(new_data_set: Callable[..., DataSet], tmp_path: Path) -> None:
    rows = train_on(new_data_set(eval_blocks=()), options_for(tmp_path, max_steps=4))
    assert {row["kind"] for row in rows} == {"train", "epoch"}


def test_train_evaluates_when_told(data_set: DataSet, tmp_path: Path) -> None:
    rows = train_on(data_set, options_for(tmp_path, eval_every=7, eval_samples=12))
    evaluated = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in evaluated] == [7, 14, 21, 24]
    assert {row["num_samples"] for row in evaluated} == {12}


def test_train_with_workers_equals_train_without(data_set: DataSet, tmp_path: Path) -> None:
    alone = train_on(data_set, options_for(tmp_path / "0", max_steps=12))
    ahead = train_on(data_set, options_for(tmp_path / "2", max_steps=12, num_loader_workers=2))
    assert comparable(alone) == comparable(ahead)


def test_state_of_global_generators_matters_nowhere(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = train_on(data_set, options_for(tmp_path / "usual", max_steps=12))

    def disturb(*arguments: Any, **options: Any) -> torch.Tensor:
        torch.manual_seed(random.SystemRandom().randrange(1 << 30))
        random.seed()
        np.random.seed()
        return backward(*arguments, **options)

    monkeypatch.setattr("trainer.train.backward", disturb)
    assert comparable(train_on(data_set, options_for(tmp_path / "disturbed", max_steps=12))) == comparable(usual)


def test_train_stops_where_the_loss_is_not_finite(data_set: DataSet, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no longer finite.*lower"):
        train_on(data_set, options_for(tmp_path, learning_rate=1e30, warmup_steps=0))


def test_stopped_run_continues_bit_for_bit(data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_on(data_set, options_for(tmp_path / "whole"))

    class Lost(Exception):
        pass

    for number, crash_after in enumerate((5, 11, 23)):
        options = options_for(tmp_path / f"crashed-{number}")

        def crash(_: Any, __: int = 0, *, steps: list[int] = [], limit: int = crash_after) -> None:  # noqa: B006
            steps.append(1)
            if len(steps) > limit:
                raise Lost

        with monkeypatch.context() as patch:
            patch.setattr("tqdm.tqdm.update", crash)
            with pytest.raises(Lost):
                train_on(data_set, options)
        checkpoint = load_latest(Path(options.out) / "checkpoints")
        assert checkpoint is not None
        assert checkpoint["data"]["samples_seen"] == checkpoint["step"] * 16
        continued = train_on(data_set, options, checkpoint=checkpoint)
        assert comparable(continued) == comparable(whole)


def test_tensors_of_a_checkpoint_are_let_go_before_the_first_step(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_on(data_set, options_for(tmp_path / "run", max_steps=2))
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    held = weakref.ref(next(iter(checkpoint["model"].values())))
    left: list[Any] = []

    def note(*arguments: Any, **options: Any) -> Any:
        left.append(held())
        return backward(*arguments, **options)

    monkeypatch.setattr("trainer.train.backward", note)
    train_on(data_set, options_for(tmp_path / "run", max_steps=3), checkpoint=checkpoint)
    assert left == [None]


def test_finished_run_is_left_as_it_is(data_set: DataSet, tmp_path: Path) -> None:
    rows = train_on(data_set, options_for(tmp_path, max_steps=6))
    checkpoint = load_latest(tmp_path / "checkpoints")
    assert train_on(data_set, options_for(tmp_path, max_steps=6), checkpoint=checkpoint) == rows


def test_metrics_are_on_disk_before_a_checkpoint(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    synced: dict[int, int] = {}  # inode to bytes
    sizes: list[tuple[int | None, int]] = []

    def fsync(file: int, *, really: Callable[[int], None] = os.fsync) -> None:
        really(file)
        synced[os.fstat(file).st_ino] = os.fstat(file).st_size

    def save(*arguments: Any, **options: Any) -> None:
        sizes.append((synced.get(path.stat().st_ino), path.stat().st_size))
        save_checkpoint(*arguments, **options)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr("trainer.train.save_checkpoint", save)
    train_on(data_set, options_for(tmp_path, max_steps=9, log_every=1, save_every=3))
    assert len(sizes) == 3
    assert all(on_disk == written > 0 for on_disk, written in sizes)


def wait_for_step(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Waits until a run has written the metrics of a step."""
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        if any(row["step"] >= step for row in load_metrics(out / "metrics.jsonl")):
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step}: {process.communicate()}")


@pytest.mark.slow
def test_two_processes_equal_one(data_set: DataSet, tmp_path: Path) -> None:
    arguments = ("--shards", data_set.folder, "--out", tmp_path / "2", *SETTINGS, "--max-steps", 12)
    arguments += ("--hidden-dropout", 0, "--micro-batch-size", 3, "--warmup-steps", 2)
    done = subprocess.run(bert_train(*arguments, processes=2), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two = load_metrics(tmp_path / "2" / "metrics.jsonl")
    model = ModelOptions.of_size("tiny", vocab_size=120, hidden_dropout_prob=0.0)
    one = train_on(data_set, options_for(tmp_path / "1", model=model, max_steps=12, log_every=1))
    assert [(row["kind"], row["step"]) for row in one] == [(row["kind"], row["step"]) for row in two]
    for row, other in zip(comparable(one), comparable(two), strict=True):
        assert row.pop("kind") == other.pop("kind")
        if "padding" in row:  # two shares by length are cut otherwise than one
            assert 0 <= row.pop("padding") < 0.04
            assert 0 <= other.pop("padding") < 0.04
        assert other == pytest.approx(row, rel=1e-5, abs=1e-7)
    assert json.loads((tmp_path / "2" / "hf" / "config.json").read_text())["vocab_size"] == 120


@pytest.mark.slow
def test_bad_block_that_several_processes_meet_counts_once(
    new_data_set: Callable[..., DataSet], tmp_path: Path
) -> None:
    broken = new_data_set(train_blocks=((16,), (16,)))
    path = broken.folder / broken.manifest.shards[1].name
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    # Each epoch has one block on one lane and one on the other; within six epochs both processes meet the bad one.
    arguments = ("--shards", broken.folder, "--out", tmp_path, "--batch-size", 2, "--max-steps", 96, "--log-every", 96)
    run = Run([*arguments, "--eval-samples", 1, "--skip-bad-blocks"], logs=tmp_path / "logs", processes=2)
    assert run.wait() == [0, 0], run.text()
    (row,) = [row for row in load_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "train"]
    assert (row["bad_blocks"], row["bad_samples"]) == (1, 16)
