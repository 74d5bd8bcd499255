"""The supervision of a pipeline, on small programs in its place; `test_restart` has the real one."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from bertdata.errors import BertDataError, OutputError
from bertdata.lock import Lock
from pipelines import processes, supervise
from pipelines.output import report_error
from pipelines.processes import describe_exit, is_alive
from tests.pipelines.crashes import build_command, environment, group_of, start, wait_for

WORKER = """
import os, signal, subprocess, sys, time
from pathlib import Path
local = Path(sys.argv[2])
def start_worker(task, **options):
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], **options)
    (local / "running" / str(worker.pid)).write_text(task + "\\n{}")
    return worker
def kill(worker):
    worker.kill()
    worker.wait()
    print("RuntimeError: Worker subprocess exited with return code 137", flush=True)
"""


@pytest.fixture
def supervised(tmp_path, monkeypatch):
    """Runs a program as the pipeline of a build; its process may use what `WORKER` defines."""
    monkeypatch.setattr(supervise, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(supervise, "_POLL_SECONDS", 0.02)

    def run(program, *, lock=None, recorded=None):
        monkeypatch.setattr(supervise, "_COMMAND", (sys.executable, "-c", WORKER + program))
        work = SimpleNamespace(
            out=str(tmp_path),
            folder=SimpleNamespace(local=tmp_path),
            lock=lock,
            recorded_error=lambda: recorded,
            is_finished=lambda: False,
        )
        supervise.run_supervised(work, runner="FnApiRunner", num_workers=2, flags=[])

    return run


def test_pipeline_that_ends_well_is_no_error(supervised):
    supervised("print('done')")


def test_dead_worker_of_a_runner_that_hangs_is_named(supervised):
    with pytest.raises(
        BertDataError, match=r"worker process \d+ \(at build_shard 3\) was killed by signal 9 \(SIGKILL\)"
    ):
        supervised("start_worker('tokenize_portion 1'); kill(start_worker('build_shard 3')); time.sleep(60)")


def test_dead_worker_of_a_runner_that_fails_is_named(supervised):
    with pytest.raises(
        BertDataError, match=r"worker process \d+ \(at build_shard 3\) was killed by signal 9.*go on\.$"
    ):
        supervised("kill(start_worker('build_shard 3')); sys.exit(1)")


def test_worker_that_dies_between_two_tasks_or_before_the_first_is_named(supervised):
    with pytest.raises(BertDataError, match=r"worker process \d+ \(at nothing, between two tasks\) was killed"):
        supervised("kill(start_worker('')); time.sleep(60)")
    with pytest.raises(BertDataError, match="a worker process that had no task yet was killed by signal 9"):
        supervised("print('Worker subprocess exited with return code 137', flush=True); time.sleep(60)")


def test_killed_runner_is_named_with_what_its_workers_were_at(supervised):
    message = (
        r"process \d+, which runs FnApiRunner, was killed by signal 11 \(SIGSEGV\)\. .* at: tokenize_portion 1; tok"
    )
    with pytest.raises(BertDataError, match=message):
        supervised(
            "start_worker('tokenize_portion 1'); start_worker('tokenize_portion 1'); os.kill(os.getpid(), signal.SIGSEGV)"
        )


def test_failed_runner_shows_the_end_of_its_log_even_where_none_can_be_written(supervised, tmp_path):
    (tmp_path / "beam.log").mkdir()
    with pytest.raises(BertDataError, match=r"(?s)FnApiRunner failed \(exit status 3\):\n  line 80\n.*  line 99\n"):
        supervised("for number in range(100): print('line', number)\nsys.exit(3)")


def test_log_has_all_that_was_printed(supervised, tmp_path):
    supervised("for number in range(100): print('line', number)")
    assert (tmp_path / "beam.log").read_text().split("\n")[99] == "line 99"


@pytest.mark.parametrize("end", ["sys.exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_temporary_files_go_with_the_pipeline(supervised, tmp_path, monkeypatch, end):
    users = tmp_path / "users"
    monkeypatch.setenv("TMPDIR", str(users))
    program = f"import tempfile; print(tempfile.mkdtemp(), flush=True); {end}"
    with contextlib.suppress(BertDataError):
        supervised(program)
    assert (tmp_path / "beam.log").read_text().startswith(str(tmp_path / "tmp"))
    assert not (tmp_path / "tmp").exists()
    assert not users.exists()


def test_error_that_cannot_be_kept_in_the_work_folder_comes_through(supervised, capfd):
    def refuse(_):
        raise OSError(28, "No space left on device")

    report_error(SimpleNamespace(record_error=refuse), OutputError("shards: No space\nleft"))
    line = capfd.readouterr().err
    with pytest.raises(OutputError, match="shards: No space\nleft"):
        supervised(f"sys.stderr.write({line!r}); sys.exit(1)")
    with pytest.raises(OutputError, match="No space"):
        supervised(f"sys.stderr.write({line!r}); sys.stderr.flush(); time.sleep(60)")


def test_error_that_a_stage_kept_goes_before_all_others(supervised):
    with pytest.raises(OutputError, match="kept"):
        supervised("kill(start_worker('build_shard 3')); sys.exit(1)", recorded=OutputError("kept"))


def test_sigterm_ends_the_whole_group(supervised, tmp_path):
    workers = []

    def terminate():
        wait_for(lambda: workers.extend(int(path.name) for path in tmp_path.glob("running/*")) or workers)
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=terminate)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as raised:
        supervised("start_worker('tokenize_portion 1'); time.sleep(60)")
    thread.join()
    assert raised.value.args == (signal.SIGTERM,)
    assert signal.getsignal(signal.SIGTERM) == previous
    wait_for(lambda: not is_alive(workers[0]))


def test_a_worker_that_outlives_all_others_holds_the_lock(supervised, tmp_path, monkeypatch):
    monkeypatch.setattr("bertdata.lock._WAIT_SECONDS", 0.0)
    with Lock(tmp_path / "out") as lock:
        supervised("start_worker('x', start_new_session=True)", lock=lock)
    (path,) = tmp_path.glob("running/*")
    with pytest.raises(OutputError, match="another build is writing"), Lock(tmp_path / "out"):
        pass
    os.kill(int(path.name), signal.SIGKILL)
    monkeypatch.setattr("bertdata.lock._WAIT_SECONDS", 30.0)
    with Lock(tmp_path / "out"):
        pass


def test_exits_are_described_with_their_signal():
    assert describe_exit(3, out_of_memory=False) == "ended with exit status 3"
    assert describe_exit(-15, out_of_memory=True) == "was killed by signal 15 (SIGTERM)"
    assert describe_exit(137, out_of_memory=False) == "was killed by signal 9 (SIGKILL), perhaps for want of memory"
    assert describe_exit(-9, out_of_memory=True) == "was killed by signal 9 (SIGKILL), the system ran out of memory"
    assert describe_exit(255, out_of_memory=False) == "ended with exit status 255"
    assert describe_exit(None, out_of_memory=False) == "died: it was killed, or ran out of memory"


def test_a_kill_for_want_of_memory_is_told_from_others(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_VMSTAT", tmp_path / "vmstat")
    assert not processes.Workers(tmp_path).ran_out_of_memory()
    (tmp_path / "vmstat").write_text("nr_free_pages 12\noom_kill 3\n")
    workers = processes.Workers(tmp_path)
    assert not workers.ran_out_of_memory()
    (tmp_path / "vmstat").write_text("nr_free_pages 12\noom_kill 4\n")
    workers.notice_exit(137)
    assert "the system ran out of memory" in workers.describe_deaths()


def test_stopped_process_is_alive_and_one_that_ended_is_not():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process.send_signal(signal.SIGSTOP)
    assert is_alive(process.pid)
    process.kill()
    wait_for(lambda: not is_alive(process.pid))  # not waited for, a zombie
    process.wait()
    assert not is_alive(process.pid)


@pytest.mark.slow
def test_launcher_killed_at_once_leaves_no_pipeline(tmp_path, wiki_file):
    """The pipeline's process notices also while it is still importing Beam."""
    launcher = start(build_command(wiki_file, tmp_path / "out", "--num-workers", "2"), env=environment())
    wait_for(lambda: group_of(launcher.pid) is not None)
    runner = group_of(launcher.pid)
    launcher.kill()
    launcher.communicate()
    wait_for(lambda: not is_alive(runner), seconds=10)
    with Lock(tmp_path / "out"):
        pass
