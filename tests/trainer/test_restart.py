"""Runs that are stopped and killed, as real processes: continued, they equal uninterrupted ones bit for bit."""

import contextlib
import logging
import os
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertdata.data_set import DataSet
from tests.trainer.faults import POINTS, Fault, Run, state_of
from tests.trainer.test_train import ENVIRONMENT, bert_train, wait_for_step
from trainer.checkpoint import load_latest

FIXED = ("--batch-size", 16, "--max-steps", 12, "--learning-rate", 0.01, "--log-every", 3, "--save-every", 4)
FIXED += ("--eval-every", 5, "--eval-samples", 8, "--keep", 2, "--micro-batch-size", 4)
QUICK = {"beat_seconds": 0.1, "silent_seconds": 6.0, "stopping_seconds": 3.0, "yield_seconds": 0.5}
TERM, KILL, INT, USR1 = signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGUSR1
LAST = {"step": 7, "evaluate": 3, "write": 30, "rename": 2, "remove": 3, "export": 1}
"""At which time each point is met late in the run, but before its end."""

PLACES = [(point, 1) for point in POINTS] + [(point, 2) for point in ("step", "evaluate", "write")]
"""Where runs are hit: files are the first process's, so for all but one of its points one process says all."""

_log = logging.getLogger(__name__)

Whole = dict[int, tuple[list[dict[str, object]], bytes]]


def arguments(data_set: DataSet, out: Path) -> list[object]:
    return ["--shards", data_set.folder, "--out", out, *FIXED]


@pytest.fixture(scope="module")
def whole(data_set: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What uninterrupted runs leave, by the number of processes."""
    folder, found = tmp_path_factory.mktemp("whole"), {}
    for processes in (1, 2):
        run = Run(arguments(data_set, folder / str(processes)), logs=folder / "logs", processes=processes)
        assert run.wait() == [0] * processes, run.text()
        found[processes] = state_of(folder / str(processes))
    return found


def finish(data_set: DataSet, out: Path, *, processes: int) -> None:
    run = Run(arguments(data_set, out), logs=out.with_name("again"), processes=processes)
    assert run.wait() == [0] * processes, run.text()


def check_stopped(
    data_set: DataSet, out: Path, faults: list[Fault], whole: Whole, *, processes: int = 1
) -> tuple[str, int]:
    """Lets a run be stopped, continues it, compares; returns what the first one wrote and the step it came to."""
    run = Run(arguments(data_set, out), logs=out.with_name("logs"), processes=processes, faults=faults)
    assert run.wait() == [0] * processes, run.text()
    checkpoint = load_latest(out / "checkpoints")
    finish(data_set, out, processes=processes)
    assert state_of(out) == whole[processes]
    return run.text(), 0 if checkpoint is None else checkpoint["step"]


@pytest.mark.parametrize("number", [USR1, INT])
def test_stopped_run_equals_an_uninterrupted_one(
    data_set: DataSet, tmp_path: Path, whole: Whole, number: signal.Signals
) -> None:
    fault = Fault(point="step", signal=number, number=4)
    text, stopped = check_stopped(data_set, tmp_path / "run", [fault], whole)
    assert f"{number.name} received: stopping after this step" in text
    assert "stopped at step 4 of 12; the same command continues" in text
    assert stopped == 4


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_signal_to_one_process_stops_all_after_the_same_step(
    data_set: DataSet, tmp_path: Path, whole: Whole, rank: int
) -> None:
    fault = Fault(point="step", signal=TERM, number=3, rank=rank, repeats=3)
    text, stopped = check_stopped(data_set, tmp_path / "run", [fault], whole, processes=2)
    assert stopped == 3
    assert text.count("stopped at step 3 of 12") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("point", "processes"), PLACES)
def test_stop_at_any_point_loses_nothing(
    data_set: DataSet, tmp_path: Path, whole: Whole, point: str, processes: int
) -> None:
    ranks = (0,) if processes == 1 or point not in ("step", "evaluate") else (0, 1)
    for rank in ranks:
        out = tmp_path / str(rank) / "run"
        fault = Fault(point=point, signal=TERM, number=LAST[point], rank=rank)
        check_stopped(data_set, out, [fault], whole, processes=processes)


@pytest.mark.slow
def test_last_evaluation_is_done_when_the_run_continues(data_set: DataSet, tmp_path: Path, whole: Whole) -> None:
    out = tmp_path / "run"
    run = Run(
        arguments(data_set, out), logs=tmp_path / "logs", faults=[Fault(point="evaluation", signal=INT, number=3)]
    )
    assert run.wait() == [0]
    checkpoint = load_latest(out / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint["step"], checkpoint["evaluation_due"]) == (12, True)
    assert not (out / "hf").exists()
    for _ in range(2):  # the second time all is done
        finish(data_set, out, processes=1)
        assert state_of(out) == whole[1]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "processes"), PLACES)
def test_kill_at_any_point_loses_nothing(
    data_set: DataSet, tmp_path: Path, whole: Whole, point: str, processes: int
) -> None:
    out = tmp_path / "run"
    fault = Fault(point=point, signal=KILL, number=LAST[point])
    run = Run(arguments(data_set, out), logs=tmp_path / "logs", processes=processes, faults=[fault], times=QUICK)
    assert run.wait() == [-9, 1][:processes], run.text()
    if processes == 2:
        assert run.text().count("error: ") == 1
        assert f"process {run.processes[0].pid}), where the processes met, is gone" in run.text(1)
    finish(data_set, out, processes=processes)
    assert state_of(out) == whole[processes]
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_kill_of_another_process_ends_the_first_in_time(data_set: DataSet, tmp_path: Path, whole: Whole) -> None:
    out = tmp_path / "run"
    fault = Fault(point="step", signal=KILL, number=6, rank=1)
    run = Run(arguments(data_set, out), logs=tmp_path / "logs", processes=2, faults=[fault])
    run.processes[1].join()
    killed = time.monotonic()
    assert run.wait() == [1, -9]
    assert time.monotonic() - killed < 45
    assert run.text().count("error: ") == 1
    assert f"process {run.processes[1].pid}) is gone: nothing was heard of it for 1" in run.text(0)
    finish(data_set, out, processes=2)
    assert state_of(out) == whole[2]


@pytest.mark.slow
def test_short_suspension_ends_nothing(data_set: DataSet, tmp_path: Path, whole: Whole) -> None:
    out = tmp_path / "run"
    fault = Fault(point="step", signal=signal.SIGSTOP, number=3, rank=1)
    run = Run(arguments(data_set, out), logs=tmp_path / "logs", processes=2, faults=[fault], times=QUICK)
    pid = run.processes[1].pid
    assert pid is not None
    while " T " not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.01)
    time.sleep(QUICK["silent_seconds"] / 2)  # this is the suspension, not a wait for something
    os.kill(pid, signal.SIGCONT)
    # The fault waits for a stop that never comes; a second signal frees it.
    os.kill(pid, TERM)
    assert run.wait() == [0, 0], run.text()
    finish(data_set, out, processes=2)
    assert state_of(out) == whole[2]


@pytest.mark.slow
def test_python_s_lock_held_for_seconds_ends_nothing(data_set: DataSet, tmp_path: Path, whole: Whole) -> None:
    out = tmp_path / "run"
    faults = [Fault(point="step", number=3, rank=rank, lock_seconds=QUICK["silent_seconds"] / 2) for rank in (0, 1)]
    run = Run(arguments(data_set, out), logs=tmp_path / "logs", processes=2, faults=faults, times=QUICK)
    assert run.wait() == [0, 0], run.text()
    assert state_of(out) == whole[2]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_error_of_one_process_ends_all_at_once(data_set: DataSet, tmp_path: Path, rank: int) -> None:
    fault = Fault(point="step", number=3, rank=rank, error="on purpose")
    run = Run(arguments(data_set, tmp_path / "run"), logs=tmp_path / "logs", processes=2, faults=[fault])
    while "on purpose" not in run.text():
        assert any(process.is_alive() for process in run.processes)
    failed = time.monotonic()
    assert run.wait() == [1, 1]
    assert time.monotonic() - failed < 10
    name = f"rank 1 ({platform.node()}, process {run.processes[1].pid}): " if rank else ""
    assert run.text().count(f"error: {name}on purpose\n") == run.text().count("error: ") == 1


@pytest.mark.slow
def test_run_goes_on_with_other_numbers_of_processes(data_set: DataSet, tmp_path: Path) -> None:
    out, more = tmp_path / "run", ("--hidden-dropout", 0)
    for processes in (1, 2, 4):
        stop = Fault(point="step", number=3)
        run = Run([*arguments(data_set, out), *more], logs=tmp_path / "logs", processes=processes, faults=[stop])
        assert run.wait() == [0] * processes, run.text()
    for folder in (out, tmp_path / "alone"):
        run = Run([*arguments(data_set, folder), *more], logs=tmp_path / "logs")
        assert run.wait() == [0], run.text()
    rows, alone = state_of(out)[0], state_of(tmp_path / "alone")[0]
    assert [(row["kind"], row["step"]) for row in rows] == [(row["kind"], row["step"]) for row in alone]
    for row, expected in zip(rows, alone, strict=True):
        for name in expected.keys() - {"kind", "padding"}:
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), (row, name)


def is_compiling(session: int) -> bool:
    """Returns whether a compiler runs in a session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, fields = path.read_text().split("(", 1)[1].rsplit(")", 1)
            if name == "cc1plus" and int(fields.split()[3]) == session:
                return True
    return False


COMPILE = """
import torch
from trainer.signals import StopSignals
with StopSignals() as stop:
    print(torch.compile(lambda values: torch.relu(values) * values.exp())(torch.zeros(1000)).sum().item(), stop.reason)
"""


@pytest.mark.slow
def test_signal_to_the_group_spares_the_compilers(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", COMPILE]
    process = subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True, start_new_session=True)
    while not is_compiling(process.pid):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, TERM)  # as torchrun does, and the terminal with ^C
    output, error = process.communicate()
    assert process.returncode == 0, error
    assert output == "0.0 SIGTERM\n"


def ranks_of(launcher: int, number: int) -> list[int]:
    """Returns the processes that a launcher has started, by rank."""
    found: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == launcher:
                variables = dict(
                    one.split("=", 1) for one in path.with_name("environ").read_text().split("\0") if "=" in one
                )
                found[int(variables.get("RANK", -1))] = int(path.parent.name)
    return [found[rank] for rank in range(number)]


LAUNCH = "import sys; from trainer.launch import start_processes as s; "
LAUNCH += "sys.exit(s([sys.executable, '-m', 'trainer', *sys.argv[1:]], number=2))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "rank", "number", "seconds"),
    [("torchrun", 0, KILL, 45), ("torchrun", 1, KILL, 45), ("own", 1, KILL, 15), ("own", None, TERM, 60)],
)
def test_launched_processes_end_together(
    data_set: DataSet, tmp_path: Path, whole: Whole, launcher: str, rank: int | None, number: int, seconds: float
) -> None:
    out = tmp_path / "run"
    endless = [*arguments(data_set, out), "--max-steps", 10**6]
    command = bert_train(*endless, processes=2)
    if launcher == "own":
        command = [sys.executable, "-c", LAUNCH, *map(str, endless)]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)
        wait_for_step(out, 3, process)
        ranks = ranks_of(process.pid, 2)
        started = time.monotonic()
        os.kill(process.pid if rank is None else ranks[rank], number)
        code = process.wait()
        took = time.monotonic() - started
    text = (tmp_path / "log").read_text()
    _log.info("%s, %s to rank %s: ended after %.1f s", launcher, signal.Signals(number).name, rank, took)
    assert took < seconds, text
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    if number == TERM:
        assert code == 0, text
        assert text.count("; the same command continues") == 1
        return
    assert code != 0
    assert f"process {ranks[rank or 0]}) " in text
    assert "same command continues the run" in text


@pytest.mark.slow
def test_random_kills_lose_nothing(data_set: DataSet, tmp_path: Path, whole: Whole) -> None:
    """`KILLS=40 KILL_SEED=1 pytest -m slow -k random --log-cli-level INFO` for a campaign."""
    seed = int(os.environ.get("KILL_SEED", random.randrange(1 << 30)))
    draw = random.Random(seed)
    for number in range(int(os.environ.get("KILLS", "6"))):
        processes, out = draw.choice((1, 2)), tmp_path / str(number) / "run"
        run = Run(arguments(data_set, out), logs=out.with_name("logs"), processes=processes, times=QUICK)
        what, rank = draw.choice((KILL, KILL, TERM, INT)), draw.randrange(processes)
        # Any moment, those of starting and of ending too.
        path, num_rows = out / "metrics.jsonl", draw.randrange(-2, len(whole[processes][0]))
        while run.processes[0].is_alive() and num_rows > (path.read_text().count("\n") if path.exists() else 0):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 1))
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.processes[rank].pid or 0, what)
        codes = run.wait()
        num_rows = path.read_text().count("\n") if path.exists() else 0
        _log.info(
            "%d of seed %d: %s to rank %d of %d, exit codes %s, %d of %d rows",
            *(number, seed, what.name, rank, processes, codes, num_rows, len(whole[processes][0])),
        )
        assert all(code in (0, 1, -KILL, -TERM, -INT) for code in codes), run.text()
        finish(data_set, out, processes=processes)
        assert state_of(out) == whole[processes], f"seed {seed}, kill {number}"
