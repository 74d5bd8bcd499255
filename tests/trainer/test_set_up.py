"""Set-ups that are wrong, and are found before the first step, in processes of their own."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bertdata.data_set import DataSet
from bertdata.errors import OutputError, TrainingError
from tests.trainer.faults import Run
from tests.trainer.test_train import ALONE, MODEL, options_for, train_on
from trainer.agreement import check_same
from trainer.distributed import World
from trainer.run_folder import LOCK, hold_run_folder
from trainer.state import DataState

DATA = DataState(data_sets=("aa",), seed=0, batch_size=16)


class Together:
    """Worlds of threads, which gather like processes."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.texts = size, threading.Barrier(size, timeout=60), [""] * size

    def world(self, rank: int) -> World:
        together = self

        class ThreadWorld(World):
            def gather(self, text: str) -> list[str]:
                together.texts[rank] = text
                together.barrier.wait()
                found = list(together.texts)
                together.barrier.wait()
                return found

        return ThreadWorld(rank=rank, size=self.size, device=ALONE.device)

    def run(self, work: Callable[[World], None]) -> list[str]:
        """Returns the errors of all ranks."""
        errors = [""] * self.size

        def one(rank: int) -> None:
            try:
                work(self.world(rank))
            except (TrainingError, OutputError) as error:
                errors[rank] = str(error)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors


def test_processes_that_differ_are_named_everywhere(tmp_path: Path) -> None:
    def work(world: World) -> None:
        changes = {"seed": 1, "model": MODEL.__class__(**(MODEL.to_json() | {"num_hidden_layers": 1}))}
        options = options_for(
            tmp_path / str(world.rank), micro_batch_size=1 + world.rank, num_loader_workers=world.rank
        )
        if world.rank == 2:
            options = options_for(tmp_path, **changes)
        check_same(options, DATA, first_step=0, world=world)

    errors = Together(3).run(work)
    assert len(set(errors)) == 1
    assert errors[0].startswith("rank 2 is to do something else than rank 0: model.num_hidden_layers is 1, not 2; seed")


@pytest.mark.parametrize("what", ["data", "step"])
def test_processes_with_other_data_or_checkpoints_are_named(tmp_path: Path, what: str) -> None:
    def work(world: World) -> None:
        other = DataState(data_sets=("bb",), seed=0, batch_size=16)
        data = other if what == "data" and world.rank else DATA
        check_same(options_for(tmp_path), data, first_step=world.rank if what == "step" else 0, world=world)

    message = "data.data_sets is ['bb'], not ['aa']" if what == "data" else "first_step is 1, not 0"
    assert all(message in error for error in Together(2).run(work))


def test_folder_that_is_not_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.run_folder._SEEN_SECONDS", 0.2)
    together = Together(2)

    def work(world: World) -> None:
        try:
            with hold_run_folder(tmp_path / str(world.rank), world=world):
                pass
        except TrainingError:
            together.barrier.abort()  # as the end of one process ends the others
            raise
        except threading.BrokenBarrierError:
            pass

    assert "is another folder here than where rank 0 runs" in together.run(work)[1]
    same = Together(2)

    def share(world: World) -> None:
        with hold_run_folder(tmp_path / "same", world=world):
            pass

    assert same.run(share) == ["", ""]


def test_second_run_in_a_folder_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with hold_run_folder(tmp_path, world=ALONE):
        mark = json.loads((tmp_path / LOCK).read_text())
        assert mark["process"] == os.getpid()
        with (
            pytest.raises(OutputError, match=rf"another bert-train \(process {os.getpid()} on .*give another --out"),
            hold_run_folder(tmp_path, world=ALONE),
        ):
            pass
    with hold_run_folder(tmp_path, world=ALONE):
        pass


def test_out_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"--out .*file cannot be written to .*give another folder"),
        hold_run_folder(tmp_path / "file", world=ALONE),
    ):
        pass


def test_too_small_a_disk_is_found_before_the_first_step(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.checkpoint.free_bytes", lambda _: 100_000)
    with pytest.raises(OutputError, match="not enough disk for"):
        train_on(data_set, options_for(tmp_path))
    assert not list(tmp_path.rglob("*.jsonl"))


def check_one_error(run: Run, message: str) -> None:
    assert run.wait() == [1] * len(run.processes), run.text()
    text = run.text()
    assert text.count("error: ") == 1, text
    assert "Traceback" not in text
    assert message in text


def test_wrong_batch_of_several_processes_is_one_error(data_set: DataSet, tmp_path: Path) -> None:
    arguments = ("--shards", data_set.folder, "--out", tmp_path / "run", "--max-steps", 4, "--batch-size", 9)
    run = Run(arguments, logs=tmp_path / "logs", processes=2)
    check_one_error(run, "a global batch of 9 has 9 lanes, which 2 processes cannot share evenly")


@pytest.mark.slow
def test_wrong_set_ups_of_several_processes_are_one_error(data_set: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = {"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1}
    config |= {"intermediate_size": 8, "max_position_embeddings": 16, "vocab_size": 120}
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = ["--shards", data_set.folder, "--out", tmp_path / "run", "--max-steps", 4]
    cases = {
        ("--batch-size", 16, "--shards", tmp_path): f"{tmp_path} has no manifest.json",
        ("--batch-size", 16, "--config", tmp_path / "config.json"): "the model 16 positions",
        ("--batch-size", 16, "--out", tmp_path / "file"): "cannot be written to",
    }
    runs = [
        Run([*base, "--out", tmp_path / str(number), *case], logs=tmp_path / f"logs-{number}", processes=2)
        for number, case in enumerate(cases)
    ]
    for run, message in zip(runs, cases.values(), strict=True):
        check_one_error(run, message)
    assert not list(tmp_path.rglob("metrics.jsonl"))
