import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bertdata.errors import OutputError
from bertdata.uploads import LAUNCHER_VARIABLE, local_folder_of, open_upload, sweep_uploads

WRITER = """
import sys, time
from bertdata.uploads import open_upload
with open_upload() as (file, path):
    file.write(b"x")
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_file_is_there_while_it_is_used(tmp_path):
    with open_upload() as (file, path):
        file.write(b"abc")
        file.flush()
        sweep_uploads()
        assert path.read_bytes() == b"abc"
        assert tmp_path in path.parents
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), open_upload() as (_, path):
        raise ZeroDivisionError
    assert not path.exists()


def test_file_of_a_killed_process_is_swept_and_of_no_other():
    with subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, text=True) as process:
        path = Path(process.stdout.readline().strip())
        sweep_uploads()
        assert path.exists()
        process.kill()
        process.wait()
        assert path.exists()
        sweep_uploads()
        assert not path.exists()


def test_folders_of_two_outputs_differ_and_nobody_else_may_look_into_them():
    first, second = (local_folder_of(f"s3://buck/{name}") for name in "ab")
    assert first != second
    assert first == local_folder_of("s3://buck/a")
    assert first.parent.stat().st_mode & 0o777 == 0o700


def test_folder_of_another_user_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / f"bertdata-{os.getuid()}").symlink_to(tmp_path / "other")
    with pytest.raises(OutputError, match="belongs to another user; set TMPDIR"):
        local_folder_of("s3://buck/a")


def test_workers_leave_word_where_the_launcher_looks(tmp_path, monkeypatch):
    folder = local_folder_of("s3://buck/a")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "of a worker"))
    monkeypatch.setenv(LAUNCHER_VARIABLE, str(tmp_path))
    assert local_folder_of("s3://buck/a") == folder
