import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bertdata.data_set import DataSet
from bertdata.errors import OutputError, TrainingError
from tests.trainer.test_train import ENVIRONMENT, SETTINGS, comparable, options_for, train_on
from trainer import run_log
from trainer.checkpoint import load_latest, save_checkpoint
from trainer.config import ModelOptions
from trainer.data import TrainingData
from trainer.evaluate import evaluate
from trainer.flops import training_flops
from trainer.loader import Loader
from trainer.metrics import TIMES, MetricsFile, load_metrics
from trainer.step import backward
from trainer.timing import Clock


class FakeTime:
    """Time that stands still but where a test lets it pass."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    now = FakeTime()
    monkeypatch.setattr(run_log, "Clock", functools.partial(Clock, now=now))
    return now


def passing(now: FakeTime, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        now.seconds += seconds
        return function(*arguments, **options)

    return run


def test_rows_of_training_have_every_number(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_time: FakeTime
) -> None:
    monkeypatch.setattr("trainer.train.backward", passing(fake_time, 2.0, backward))
    monkeypatch.setattr("trainer.train.evaluate", passing(fake_time, 100.0, evaluate))
    monkeypatch.setattr("trainer.train.save_checkpoint", passing(fake_time, 30.0, save_checkpoint))
    monkeypatch.setattr(run_log, "_peak", lambda *_: 5e9)
    options = options_for(tmp_path, max_steps=12, log_every=3, eval_every=4, save_every=6)
    rows = [row for row in train_on(data_set, options) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert set(rows[0]) == {
        *("kind", "step", "epoch", "loss", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"),
        *("learning_rate", "grad_norm", "padding", *TIMES),
    }

    data = TrainingData(data_sets=(data_set,))
    plan, reader = data.make_plan(data.initial_state(seed=0, batch_size=16)), data.open_split("train")
    loader = Loader(plan, reader, rank=0, world_size=1, cutting=data.make_cutting(micro_batch_size=16))
    steps = list(loader.steps(3, 6))
    lengths = [int(length) for step in steps for batch in step.micro_batches for length in batch.cu_seqlens.diff()]
    flops = training_flops(
        options.model,
        num_tokens=sum(lengths),
        squared_lengths=sum(length**2 for length in lengths),
        num_predictions=sum(step.num_predictions for step in steps),
    )
    second = rows[1]
    assert second["sequences_per_second"] == pytest.approx(48 / 6)  # an evaluation lies between, and does not count
    assert second["tokens_per_second"] == pytest.approx(sum(lengths) / 6)
    assert second["tflops_per_device"] == pytest.approx(flops / 6 / 1e12)
    assert second["mfu"] == pytest.approx(flops / 6 / 5e9)
    assert second["loss"] == pytest.approx(second["mlm_loss"] + second["nsp_loss"])
    # Six more steps of 2 s; two evaluations of 100 s. One checkpoint is to come, and none was seen; then two are.
    assert second["eta_seconds"] == pytest.approx(6 * 2 + 2 * 100)
    assert rows[2]["eta_seconds"] == pytest.approx(3 * 2 + 1 * 100 + 1 * 30)
    assert rows[3]["eta_seconds"] == 0


def test_padding_share_goes_by_what_is_computed(data_set: DataSet, tmp_path: Path) -> None:
    fixed = train_on(data_set, options_for(tmp_path / "1", max_steps=2, log_every=1, pad_to_multiple=64))
    free = train_on(data_set, options_for(tmp_path / "2", max_steps=2, log_every=1))
    assert all(0.3 < row["padding"] < 0.8 for row in fixed if row["kind"] == "train")
    assert all(0 <= row["padding"] < 0.04 for row in free if row["kind"] == "train")


SLOW_SECOND_PROCESS = """
import os, time
import trainer.train
from trainer.cli import main

def waits(batches):
    for batch in batches:
        begun = time.perf_counter()
        while os.environ["RANK"] == "1" and time.perf_counter() < begun + 0.05:
            pass
        yield batch, time.perf_counter() - begun

trainer.train.waits = waits
main()
"""


@pytest.mark.slow
def test_share_of_waiting_is_that_of_the_slowest_process(data_set: DataSet, tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW_SECOND_PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    command += ["--shards", str(data_set.folder), "--out", str(tmp_path / "run"), *map(str, SETTINGS)]
    command += ["--max-steps", "6", "--log-every", "3", "--eval-every", "6", "--tensorboard"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [row for row in load_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
    waited = [3 * 0.05 / (3 * 16 / row["sequences_per_second"]) for row in rows]
    assert all(row["data_wait"] > 0.9 * share for row, share in zip(rows, waited, strict=True))
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1  # the first process's
    assert done.stdout.count("eval MLM") == 1
    assert done.stderr.count("seq/s") == 1


def test_continued_run_writes_the_same_rows_and_curves(data_set: DataSet, tmp_path: Path) -> None:
    options = options_for(tmp_path / "run", log_every=5, save_every=7, tensorboard=True)
    whole = train_on(data_set, options)
    (tmp_path / "run" / "checkpoints" / "step-00000024.pt").unlink()  # as if it had been killed after step 21
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint["step"] == 21
    assert comparable(train_on(data_set, options, checkpoint=checkpoint)) == comparable(whole)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("train/mlm_loss")
    expected = [(row["step"], pytest.approx(row["mlm_loss"])) for row in whole if row["kind"] == "train"]
    assert [(event.step, event.value) for event in events] == expected


def test_first_speeds_of_a_continued_run_are_those_of_what_it_did_itself(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_time: FakeTime
) -> None:
    monkeypatch.setattr("trainer.train.backward", passing(fake_time, 2.0, backward))
    options = options_for(tmp_path, max_steps=6, log_every=6, save_every=4)
    (whole,) = [row for row in train_on(data_set, options) if row["kind"] == "train"]
    (tmp_path / "checkpoints" / "step-00000006.pt").unlink()
    checkpoint = load_latest(tmp_path / "checkpoints")
    (row,) = [row for row in train_on(data_set, options, checkpoint=checkpoint) if row["kind"] == "train"]
    data = TrainingData(data_sets=(data_set,))
    plan, reader = data.make_plan(data.initial_state(seed=0, batch_size=16)), data.open_split("train")
    loader = Loader(plan, reader, rank=0, world_size=1, cutting=data.make_cutting(micro_batch_size=16))
    num_tokens = sum(len(batch.token_ids) for step in loader.steps(4, 6) for batch in step.micro_batches)
    assert row["sequences_per_second"] == pytest.approx(32 / 4)
    assert row["tokens_per_second"] == pytest.approx(num_tokens / 4)
    # As many operations a token as in the whole run, but for the lengths of these samples.
    per_token = row["tflops_per_device"] / row["tokens_per_second"]
    assert per_token == pytest.approx(whole["tflops_per_device"] / whole["tokens_per_second"], rel=0.1)
    assert row["padding"] == whole["padding"]


def test_full_disk_ends_a_run_with_one_clear_error(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(MetricsFile):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, self._file.fileno())
            os.close(full)

    monkeypatch.setattr(run_log, "MetricsFile", Full)
    with pytest.raises(OutputError, match=r"metrics.jsonl cannot be written \(.*No space left"):
        train_on(data_set, options_for(tmp_path / "rows", max_steps=3))


def test_error_of_closing_does_not_cover_the_first_one(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TrainingError("the first error")

    def close(_: MetricsFile) -> None:
        raise OutputError("the second error")

    monkeypatch.setattr("trainer.train.backward", fail)
    monkeypatch.setattr(MetricsFile, "close", close)
    with pytest.raises(TrainingError, match="the first error"):
        train_on(data_set, options_for(tmp_path, max_steps=3))
    assert "warning: the second error" in caplog.text


def test_table_of_epochs_is_echoed(data_set: DataSet, tmp_path: Path) -> None:
    lines: list[str] = []
    train_on(data_set, options_for(tmp_path, max_steps=24), echo=lines.append)
    assert [line.split()[:2] for line in lines] == [["epoch", "step"], ["1", "10"], ["2", "20"], ["2.4", "24"]]
    assert all(line.split()[-2].endswith("%") for line in lines[1:])


def test_new_run_says_which_loss_to_expect(data_set: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train_on(data_set, options_for(tmp_path, max_steps=2))
    assert "the loss should begin near 5.48, and then fall (MLM 4.79, NSP 0.69)" in caplog.text  # without statistics
    caplog.clear()
    checkpoint = load_latest(tmp_path / "checkpoints")
    train_on(data_set, options_for(tmp_path, max_steps=3), checkpoint=checkpoint)
    assert "should begin" not in caplog.text


def test_infinite_loss_names_the_last_good_one(data_set: DataSet, tmp_path: Path) -> None:
    model = ModelOptions.of_size("tiny", vocab_size=120)
    options = options_for(tmp_path, model=model, learning_rate=1e30, warmup_steps=0, log_every=1)
    with pytest.raises(TrainingError, match=r"no longer finite at step 2; .*\(at step 1 it was 5\.\d+\).*lower"):
        train_on(data_set, options)


def test_missing_tensorboard_fails_before_the_first_step(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(TrainingError, match="--tensorboard needs the package"):
        train_on(data_set, options_for(tmp_path, tensorboard=True))
    assert not (tmp_path / "metrics.jsonl").exists()
