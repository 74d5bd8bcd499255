"""What is asked before a build goes to a runner: everything that is missing is said before anything is written."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bertdata.cli import main
from bertdata.config import BuildOptions, ReadOptions, TokenizerOptions
from bertdata.errors import ConfigError
from pipelines import submission
from pipelines.submission import check_submission

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
DATAFLOW = ("--project=p", "--region=europe-west4", "--temp_location=gs://bucket/tmp")
POOL = ("--flink_master=flink:8081", "--environment_type=EXTERNAL", "--environment_config=localhost:50000")


def check(runner, *flags, inputs=("gs://bucket/wiki.xml",), out="gs://bucket/shards", **read):
    options = BuildOptions(read=ReadOptions(**read), tokenizer=TokenizerOptions(), max_seq_lengths=(128,))
    return check_submission(runner, flags=flags, inputs=inputs, out=out, options=options)


@pytest.fixture
def with_java(monkeypatch):
    monkeypatch.setattr(submission.shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.fixture
def with_google(monkeypatch):
    monkeypatch.setattr(submission, "_DATAFLOW", ())
    monkeypatch.delenv("CLOUDSDK_COMPUTE_REGION", raising=False)


@pytest.mark.parametrize(
    ("runner", "flags"),
    [
        ("FnApiRunner", ()),
        ("FnApiRunner", ("--direct_num_workers=3",)),
        ("PrismRunner", ()),
        ("FlinkRunner", ()),
        ("SparkRunner", ("--spark_master_url=local[*]",)),
        ("PortableRunner", ("--job_endpoint=embed",)),
    ],
)
def test_workers_of_this_machine_read_its_files_and_need_no_package(with_java, runner, flags):
    found = check(runner, *flags, inputs=["wiki.xml"], out=Path("shards"), format="my_corpus:read")
    assert found.workers == "here"
    with found.packages() as packages:
        assert packages == []


@pytest.mark.parametrize(
    ("runner", "flags", "where"),
    [
        ("DataflowRunner", DATAFLOW, "containers"),
        ("FlinkRunner", ("--flink_master=flink:8081",), "containers"),
        ("SparkRunner", ("--spark_master_url=spark://spark:7077",), "containers"),
        ("PortableRunner", ("--job_endpoint=flink:8099",), "containers"),
        ("FlinkRunner", POOL, "machines"),
        ("SparkRunner", ("--environment_type=PROCESS", '--environment_config={"command": "/boot"}'), "machines"),
    ],
)
def test_workers_elsewhere_reach_object_stores(with_java, with_google, runner, flags, where):
    for store in ("gs://bucket", "s3://bucket"):
        found = check(runner, *flags, inputs=[f"{store}/a.xml", f"{store}/b/*.xml"], out=f"{store}/shards")
        assert found.workers == where
        assert not any("shared" in note or "share," in note for note in found.notes)


@pytest.mark.parametrize(
    ("runner", "flags"),
    [
        ("DataflowRunner", DATAFLOW),
        ("FlinkRunner", ("--flink_master=flink:8081",)),
        ("SparkRunner", ("--spark_master_url=spark://spark:7077",)),
        ("PortableRunner", ("--job_endpoint=embed", "--environment_type=DOCKER")),
    ],
)
def test_folder_of_this_machine_is_refused_for_workers_in_containers(with_java, with_google, runner, flags):
    with pytest.raises(ConfigError, match=rf"^wiki\.xml: workers of {runner} run in containers.*gs:// or s3://"):
        check(runner, *flags, inputs=["wiki.xml", "gs://bucket/b.xml"])
    with pytest.raises(ConfigError, match=rf"^/data/shards: workers of {runner} run in containers"):
        check(runner, *flags, out=Path("/data/shards"))


def test_folder_of_this_machine_has_to_be_shared_by_workers_on_others(with_java):
    found = check("FlinkRunner", *POOL, inputs=["/nfs/wiki.xml"], out=Path("/nfs/shards"))
    assert any(note.startswith("/nfs/wiki.xml, /nfs/shards must lie on a file system") for note in found.notes)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (DATAFLOW[1:], "-- --project="),
        ((DATAFLOW[0], DATAFLOW[2]), "-- --region="),
        (DATAFLOW[:2], "-- --temp_location=gs://"),
        ((*DATAFLOW[:2], "--temp_location=/tmp"), "--temp_location is '/tmp'; it needs"),
    ],
)
def test_dataflow_needs_project_region_and_temp_location(with_google, flags, told):
    with pytest.raises(ConfigError, match=told):
        check("DataflowRunner", *flags)


def test_region_of_dataflow_may_be_in_the_environment(with_google, monkeypatch):
    monkeypatch.setenv("CLOUDSDK_COMPUTE_REGION", "europe-west4")
    assert check("DataflowRunner", DATAFLOW[0], DATAFLOW[2]).workers == "containers"


def test_extra_of_dataflow_has_to_be_installed(monkeypatch):
    monkeypatch.setattr(submission, "_is_there", lambda module: module != "google.cloud.dataflow")
    with pytest.raises(ConfigError, match=r'needs google\.cloud\.dataflow: pip install "bertdata\[gcp\]"'):
        check("DataflowRunner", *DATAFLOW)


@pytest.mark.parametrize("place", ["--sdk_container_image", "--environment_config"])
@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("apache/beam_python3.1_sdk:2.77.0", rf"has Python 3\.1, this command runs with {PYTHON}"),
        (f"apache/beam_python{PYTHON}_sdk:2.1.0", r"has Beam 2\.1\.0, this command runs with"),
        ("me/bertdata:python3.1", rf"has Python 3\.1, this command runs with {PYTHON}"),
    ],
)
def test_image_with_another_python_or_beam_is_refused(with_java, place, image, told):
    with pytest.raises(ConfigError, match=told):
        check("FlinkRunner", "--flink_master=flink:8081", f"{place}={image}")


def test_image_that_says_nothing_gets_a_note(with_java):
    found = check("FlinkRunner", "--flink_master=flink:8081", "--sdk_container_image=me/image:7")
    assert any(note.startswith(f"me/image:7 must have bertdata, Python {PYTHON} and Beam") for note in found.notes)


def test_beam_has_to_have_a_container_for_this_python(with_google, monkeypatch):
    class Metadata:
        @staticmethod
        def get_all(_name):
            return ["Programming Language :: Python :: 3", "Programming Language :: Python :: 3.99"]

    monkeypatch.setattr(submission.importlib.metadata, "metadata", lambda _name: Metadata)
    with pytest.raises(ConfigError, match=rf"no container for Python {PYTHON}, only for 3\.99;"):
        check("DataflowRunner", *DATAFLOW)
    check("DataflowRunner", *DATAFLOW, "--sdk_container_image=me/image:7")


@pytest.mark.parametrize(
    ("runner", "flags", "told"),
    [
        ("PortableRunner", (), "needs the address of a job server: -- --job_endpoint="),
        ("FlinkRunner", ("--flink_job_server_jar=/no/such.jar",), r"--flink_job_server_jar /no/such\.jar is not there"),
        ("SparkRunner", ("--spark_job_server_jar=/no/such.jar",), r"--spark_job_server_jar /no/such\.jar is not there"),
        ("PrismRunner", ("--prism_location=/no/such",), "--prism_location /no/such is not there"),
        ("SparkRunner", ("--spark_submit_uber_jar",), "-- --spark_rest_url="),
        ("FlinkRunner", ("--environment_type=DOCKR",), "it must be DOCKER, EXTERNAL, LOOPBACK or PROCESS"),
        ("FlinkRunner", ("--environment_type=EXTERNAL",), "needs the address of the worker pool"),
        ("FlinkRunner", ("--environment_type=PROCESS",), "needs the command that starts a worker"),
    ],
)
def test_what_a_job_server_needs_is_asked_for(with_java, runner, flags, told):
    with pytest.raises(ConfigError, match=told):
        check(runner, *flags)


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner"])
def test_java_has_to_be_there_for_a_job_server_that_is_started(monkeypatch, runner):
    monkeypatch.setattr(submission.shutil, "which", lambda _name: None)
    with pytest.raises(ConfigError, match="in Java, and there is no 'java'"):
        check(runner)
    check(runner, "--job_endpoint=localhost:8099")


@pytest.mark.parametrize("hook", [{"format": "my_corpus:read"}, {"filter": "my_corpus:keep"}])
def test_functions_of_the_users_own_have_to_reach_workers(with_java, hook):
    remote = ("FlinkRunner", "--flink_master=flink:8081")
    with pytest.raises(ConfigError, match=r"my_corpus:(read|keep): workers on other machines have no such module"):
        check(*remote, **hook)
    for way in ("--extra_package=my_corpus.whl", "--setup_file=setup.py", "--sdk_container_image=me/image:1"):
        check(*remote, way, **hook)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--runner", "DataflowRunnr"], "did you mean DataflowRunner?"),
        (["--runner", "DataflowRunner", "--", "--regio=a"], "did you mean --region?"),
        (["--runner", "PortableRunner"], "--job_endpoint"),
        (["--runner", "PortableRunner", "--", "--job_endpoint=embed", "--environment_type=DOCKER"], "in containers"),
        (["--", "--direct_num_workers"], "expected one argument"),
        (["--runner", "FlinkRunner", "--num-workers", "2"], "--num-workers is for FnApiRunner"),
    ],
)
def test_command_says_what_is_wrong_and_writes_nothing(tmp_path, jsonl_file, words, told):
    before = sorted(tmp_path.rglob("*"))
    found = CliRunner().invoke(main, ["build", "--input", str(jsonl_file), "--out", str(tmp_path / "out"), *words])
    assert found.exit_code == 2
    assert told in found.output
    assert sorted(tmp_path.rglob("*")) == before


def test_usual_way_does_not_import_beam_in_the_launcher():
    code = (
        "import sys; from bertdata.config import *; from pipelines.submission import check_submission; "
        "options = BuildOptions(tokenizer=TokenizerOptions(), max_seq_lengths=(128,)); "
        "found = check_submission('FnApiRunner', flags=[], inputs=['a'], out='b', options=options); "
        "found.packages().__enter__(); sys.exit('apache_beam' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
