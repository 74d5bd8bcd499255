import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

import trainer.launch
from bertdata.errors import TrainingError
from trainer.cli import main
from trainer.launch import choose_number, start_processes
from trainer.place import LAUNCHED, find_place

PLACE = """
import json, os, pathlib
pathlib.Path(os.environ["FOLDER"], os.environ["RANK"]).write_text(json.dumps(dict(os.environ, session=os.getsid(0))))
"""

WAIT = """
import os, pathlib, signal, sys
received = []
signal.signal(signal.SIGTERM, lambda *_: received.append(1))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
pathlib.Path(os.environ["FOLDER"], os.environ["RANK"]).touch()
signal.sigwait([signal.SIGTERM])
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
sys.exit(len(received))  # of a second one
"""

FAIL = """
import os, signal, sys, time
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), signal.SIGKILL) if sys.argv[1] == "kill" else sys.exit(int(sys.argv[1]))
time.sleep(600)
"""


def when_there(folder: Path, number: int, action: signal.Signals) -> None:
    """Sends this process a signal when so many files are there."""
    waiting = threading.Event()
    while len(list(folder.iterdir())) < number:
        waiting.wait(0.01)
    os.kill(os.getpid(), action)


@pytest.mark.parametrize(("gpus", "available", "number"), [("all", 4, 4), ("2", 4, 2), ("1", 1, 1)])
def test_number_of_gpus(gpus: str, available: int, number: int) -> None:
    assert choose_number(gpus, available=available) == number


@pytest.mark.parametrize(
    ("gpus", "available", "message"),
    [
        ("all", 0, "shows no GPU; leave it out to train on the CPU"),
        ("3", 2, "--gpus is 3, and this machine shows 2"),
        ("0", 2, "a number from 1 on, or all"),
        ("two", 2, "--gpus is 'two'"),
    ],
)
def test_number_of_gpus_that_cannot_be(gpus: str, available: int, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        choose_number(gpus, available=available)


def test_gpus_on_a_machine_without_any_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    result = CliRunner().invoke(main, ["--shards", "x", "--gpus", "2"])
    assert result.exit_code == 1
    assert result.stderr == "error: --gpus is 2, and this machine shows no GPU; leave it out to train on the CPU\n"


def test_gpus_among_processes_that_something_else_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(main, ["--shards", "x", "--gpus", "all"])
    assert result.exit_code == 2
    assert "--gpus starts processes, and torchrun has done that" in result.stderr


def test_gpus_starts_the_same_command_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr(
        "trainer.launch.start_processes", lambda command, number: started.update(command=command, number=number) or 7
    )
    result = CliRunner().invoke(main, ["--shards", "a", "b", "--gpus", "all", "--seed", "3"])
    assert result.exit_code == 7
    assert started["number"] == 3
    command = [sys.executable, "-m", "trainer", "--shards", "a", "b", "--gpus", "all", "--seed", "3"]
    assert started["command"] == command


def test_each_process_finds_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert start_processes([sys.executable, "-c", PLACE], number=3) == 0
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    places = [find_place(environment) for environment in found]
    assert [(place.rank, place.local_rank, place.size) for place in places] == [(0, 0, 3), (1, 1, 3), (2, 2, 3)]
    assert {(place.starter, place.holds_store, place.address) for place in places} == {("--gpus", False, "127.0.0.1")}
    assert len({place.port for place in places}) == 1
    assert len({environment["session"] for environment in found} | {os.getsid(0)}) == 4
    assert {environment["OMP_NUM_THREADS"] for environment in found} == {str(max(1, (os.cpu_count() or 1) // 3))}
    assert all(LAUNCHED in environment for environment in found)


def test_signals_are_passed_on_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=when_there, args=(tmp_path, 2, signal.SIGTERM))
    thread.start()
    assert start_processes([sys.executable, "-c", WAIT], number=2) == 0
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("how", "code", "message"), [("kill", 1, "was ended by SIGKILL"), ("3", 3, "")])
def test_failed_process_ends_the_others(
    how: str, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer.launch, "_END_SECONDS", 0.1)  # they do not look at the store
    assert start_processes([sys.executable, "-c", FAIL, how], number=3) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error:") == bool(message)
