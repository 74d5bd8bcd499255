"""Runners with a job server of their own: a stand-in for it always, the real one where an environment variable names it.

The stand-in is Beam's own local job service, started in place of Prism's binary or of Java. So it proves what happens on
this side (how the server is started and spoken to, the options that it is sent, the workers that it calls back), and
nothing about Flink, Spark or Prism.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from bertdata.launch import open_build
from pipelines.submission import check_submission
from pipelines.supervise import run_supervised
from tests.bertdata.test_build import digests

STAND_IN = """#!{python}
import argparse, threading
from apache_beam.runners.portability.local_job_service import LocalJobServicer
parser = argparse.ArgumentParser()
parser.add_argument("--job-port", "--job_port", type=int)
found, _ = parser.parse_known_args()
LocalJobServicer().start_grpc_server(found.job_port)
threading.Event().wait()
"""
REAL = {
    "BERTDATA_FLINK_JOB_SERVER_JAR": ("FlinkRunner", ["--flink_job_server_jar={}", "--parallelism=2"]),
    "BERTDATA_SPARK_JOB_SERVER_JAR": ("SparkRunner", ["--spark_job_server_jar={}", "--spark_master_url=local[2]"]),
    "BERTDATA_PRISM": ("PrismRunner", ["--prism_location={}"]),
}


@pytest.fixture
def stand_in(tmp_path):
    path = tmp_path / "job_server"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runner", "flags"),
    [
        ("FlinkRunner", ["--job_server_java_launcher={}", "--flink_job_server_jar={}", "--parallelism=2"]),
        ("SparkRunner", ["--job_server_java_launcher={}", "--spark_job_server_jar={}"]),
        ("PrismRunner", ["--prism_location={}"]),
    ],
)
def test_runner_builds_the_same_shards_through_a_job_server(
    tmp_path, wiki_file, trained, serial, stand_in, runner, flags
):
    flags = [flag.format(stand_in) for flag in flags]
    out = tmp_path / "shards"
    assert check_submission(runner, flags=flags, inputs=[str(wiki_file)], out=out, options=trained).workers == "here"
    with open_build([str(wiki_file)], out=out, options=trained, split_bytes=40_000) as work:
        run_supervised(work, runner=runner, num_workers=1, flags=flags)
    assert digests(out) == serial


@pytest.mark.slow
@pytest.mark.parametrize("variable", list(REAL))
def test_runner_builds_the_same_shards(tmp_path, wiki_file, trained, serial, variable):
    runner, flags = REAL[variable]
    path = os.environ.get(variable)
    if path is None:
        pytest.skip(f"{variable} names no job server of Beam's for {runner}")
    if path.endswith(".jar") and shutil.which("java") is None:
        pytest.skip(f"{runner} needs Java, which is not installed")
    assert Path(path).is_file(), f"{variable} is {path}, which is not there"
    out = tmp_path / "shards"
    with open_build([str(wiki_file)], out=out, options=trained, split_bytes=40_000) as work:
        run_supervised(work, runner=runner, num_workers=1, flags=[flag.format(path) for flag in flags])
    assert digests(out) == serial
