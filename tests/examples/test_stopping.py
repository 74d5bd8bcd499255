"""The examples that run commands of the project: ^C reaches the command as well, which must have the time to save."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SAVES_SLOWLY = """
import sys, time
from pathlib import Path
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    Path(sys.argv[1]).touch()
"""


@pytest.mark.parametrize("example", ["quickstart", pytest.param("study", marks=pytest.mark.slow)])
def test_run_stopped_waits_until_the_command_has_saved(tmp_path, example):
    (tmp_path / "saves_slowly.py").write_text(SAVES_SLOWLY)
    program = f"import run; run.run('python', {str(tmp_path / 'saves_slowly.py')!r}, {str(tmp_path / 'saved')!r})"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (EXAMPLES / example, EXAMPLES.parent)))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert any(line == "ready\n" for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate()
    assert (tmp_path / "saved").exists()
    assert process.returncode == 1
    assert "python was stopped" in errors
