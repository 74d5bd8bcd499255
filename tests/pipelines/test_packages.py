"""How workers on other machines come by the package."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, PortableOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.transforms.environments import Environment

import bertdata
from bertdata.build import build_serially
from bertdata.errors import ConfigError
from bertdata.fingerprint import library_versions
from bertdata.launch import open_build
from pipelines import packages
from pipelines.beam_options import parse_beam_options, pipeline_options
from pipelines.build import build_pipeline
from pipelines.packages import build_wheel, packages_for_workers
from pipelines.submission import check_submission
from tests.bertdata.small_builds import build
from tests.bertdata.test_build import digests
from tests.bertdata.test_store_folder import bucket, moto  # noqa: F401 - fixtures

ROOT = Path(bertdata.__file__).parents[1]
PINS = [f"{name}=={library_versions()[name]}" for name in ("sentencex", "tokenizers")]


def flags_for(*flags):
    """What is added, and the lines of the requirements."""
    with packages_for_workers(parse_beam_options(flags, runner="FlinkRunner")) as added:
        values = parse_beam_options(added)
        lines = Path(values.requirements_file).read_text().split() if values.requirements_file else None
        return lines, values.extra_packages


def source_files():
    folders = [ROOT / name for name in ("bertdata", "pipelines", "trainer")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(ROOT).as_posix(): path for path in paths if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(ROOT, folder=tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def quick_wheel(monkeypatch):
    monkeypatch.setattr(packages, "build_wheel", lambda source, folder: folder / f"bertdata-{source.name}.whl")


@pytest.mark.slow
def test_wheel_of_a_checkout_holds_all_of_it_and_leaves_nothing_there(tmp_path):
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__", ".git", ".venv", "tests", "*.egg-info"))
    left_over = copy / "build" / "lib" / "bertdata" / "long_gone.py"  # what an older build left
    left_over.parent.mkdir(parents=True)
    left_over.write_text("")
    before = sorted(copy.rglob("*"))
    (folder := tmp_path / "wheel").mkdir()
    with zipfile.ZipFile(build_wheel(copy, folder=folder)) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert found == {name: path.read_bytes() for name, path in source_files().items()}
    assert sorted(copy.rglob("*")) == before
    assert [path.suffix for path in folder.iterdir()] == [".whl"]


def test_checkout_gives_workers_its_wheel_and_the_libraries_that_decide_bytes(quick_wheel):
    lines, wheels = flags_for()
    assert lines == PINS
    assert [Path(path).name for path in wheels] == [f"bertdata-{ROOT.name}.whl"]


def test_release_gives_workers_its_name(monkeypatch):
    monkeypatch.setattr(packages, "_source", lambda: None)
    versions = library_versions() | {"bertdata": "1.2.0"}
    monkeypatch.setattr(packages, "library_versions", lambda: versions)
    assert flags_for() == (["bertdata==1.2.0", *PINS], None)


@pytest.mark.parametrize(
    ("version", "origin", "told"),
    [
        ("1.2.0", None, None),
        ("1.2.0rc1", None, None),
        ("1.2.0", '{"url": "https://example.org/bertdata.git", "vcs_info": {}}', "error"),
        ("1.2.0", '{"url": "file://WHEEL", "archive_info": {}}', "wheel"),
        ("1.2.0", '{"url": "file:///gone/bertdata-1.2.0-py3-none-any.whl", "archive_info": {}}', "error"),
        ("1.3.0.dev0", None, "error"),
        ("1.2.0+local", None, "error"),
    ],
)
def test_package_comes_from_where_it_was_installed_from(monkeypatch, tmp_path, version, origin, told):
    wheel = tmp_path / "bertdata-1.2.0-py3-none-any.whl"
    wheel.write_bytes(b"")

    class Distribution:
        @staticmethod
        def read_text(_name):
            return origin and origin.replace("WHEEL", str(wheel))

    monkeypatch.setattr(packages.bertdata, "__file__", str(tmp_path / "site-packages" / "bertdata" / "__init__.py"))
    monkeypatch.setattr(packages.importlib.metadata, "distribution", lambda _name: Distribution)
    monkeypatch.setattr(packages, "library_versions", lambda: {"bertdata": version})
    if told == "error":
        with pytest.raises(ConfigError, match=r"neither a release nor a checkout; give workers one of your own"):
            packages._source()
    else:
        assert packages._source() == (wheel if told == "wheel" else None)


@pytest.mark.parametrize(
    "flag",
    [
        "--sdk_container_image=me/image:1",
        "--environment_config=me/image:1",
        "--environment_options=docker_container_image=me/image:1",
        "--extra_package=dist/bertdata-1.0.0-py3-none-any.whl",
        "--extra_package=gs://bucket/bertdata-1.0.0.tar.gz",
    ],
)
def test_users_own_image_or_package_of_this_name_is_left_alone(flag):
    assert flags_for("--flink_master=flink:8081", flag) == (None, None)


def test_users_other_packages_and_requirements_stay(tmp_path, quick_wheel):
    path = tmp_path / "mine.txt"
    path.write_text("# mine\nregex==2026.1\n")
    flags = ["--extra_package=my_corpus.whl", "--setup_file=setup.py", f"--requirements_file={path}"]
    with packages_for_workers(parse_beam_options(flags)) as added:
        values = parse_beam_options([*flags, *added])
        assert [Path(name).name for name in values.extra_packages] == ["my_corpus.whl", f"bertdata-{ROOT.name}.whl"]
        assert values.setup_file == "setup.py"
        assert Path(values.requirements_file).read_text().splitlines() == [*PINS, "# mine", "regex==2026.1", ""]
    path.write_text("regex==2026.1\nbertdata[build]==1.0.0\n")
    assert flags_for(f"--requirements_file={path}") == (None, None)
    with pytest.raises(ConfigError, match=r"--requirements_file .*gone\.txt cannot be read"):
        flags_for(f"--requirements_file={tmp_path / 'gone.txt'}")


@pytest.mark.slow
def test_wheel_that_cannot_be_built_is_an_error_with_what_pip_says(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "no_such_backend"\n')
    (folder := tmp_path / "wheel").mkdir()
    with pytest.raises(
        ConfigError, match=r"(?s)pip cannot build a wheel of .*no_such_backend.*Give workers one of your own"
    ):
        build_wheel(tmp_path, folder=folder)


def test_pip_has_to_be_there_to_build_a_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "PathFinder", SimpleNamespace(find_spec=lambda _name: None))
    with pytest.raises(ConfigError, match="needs pip, which is not installed"):
        build_wheel(ROOT, folder=tmp_path)


@pytest.mark.slow
def test_building_a_wheel_leaves_distutils_to_what_comes_after_in_the_process(tmp_path):
    program = """
import sys
from pathlib import Path
from types import SimpleNamespace
from bertdata.errors import ConfigError
from pipelines.packages import build_wheel
assert "setuptools" not in sys.modules
try:
    build_wheel(Path("nowhere"), folder=Path.cwd())
except ConfigError:
    import setuptools  # fails where it cannot put its own distutils in the place of Python's
    print(sys.modules["distutils"].__file__)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "_distutils" in shown.stdout


def test_packages_are_among_what_beam_uploads(tmp_path, monkeypatch):
    wheel = tmp_path / "bertdata-0.1.0.dev0-py3-none-any.whl"
    wheel.write_bytes(b"")
    monkeypatch.setattr(packages, "_source", lambda: wheel)
    flags = ["--flink_master=flink:8081", "--requirements_cache=skip"]
    with packages_for_workers(parse_beam_options(flags)) as added:
        options = pipeline_options(runner="FlinkRunner", num_workers=1, flags=[*flags, *added])
        uploaded = Environment.from_options(options.view_as(PortableOptions)).artifacts()
        names = {
            beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(file.role_payload).staged_name
            for file in uploaded
        }
    assert {wheel.name, "requirements.txt", "extra_packages.txt"} <= names
    assert not any("main_session" in name or "pickled" in name for name in names)


def test_job_for_dataflow_names_packages_and_region(tmp_path, monkeypatch, wiki_file, trained):
    """Beam makes the job, and writes it into a file in place of sending it."""
    pytest.importorskip("google.cloud.dataflow", reason='needs "bertdata[gcp]"')
    wheel = tmp_path / "bertdata-0.1.0.dev0-py3-none-any.whl"
    wheel.write_bytes(b"")
    monkeypatch.setattr(packages, "_source", lambda: wheel)
    flags = ["--project=my-project", "--region=europe-west4", "--temp_location=gs://bucket/tmp", "--max_num_workers=7"]
    check_submission("DataflowRunner", flags=flags, inputs=["gs://a/b"], out="gs://a/c", options=trained)
    flags += ["--requirements_cache=skip", "--no_auth", "--dataflow_endpoint=http://localhost:1"]
    (staging := tmp_path / "staging").mkdir()
    with (
        open_build([str(wiki_file)], out=tmp_path / "out", options=trained, keep_work=True) as work,
        packages_for_workers(parse_beam_options(flags)) as added,
    ):
        options = pipeline_options(runner="DataflowRunner", num_workers=1, flags=[*flags, *added])
        cloud = options.view_as(GoogleCloudOptions)
        cloud.staging_location, cloud.template_location = str(staging), str(tmp_path / "job.json")
        pipeline = beam.Pipeline(options=options)
        build_pipeline(pipeline, work)
        pipeline.run()
        build_serially(work)
    (workers,) = json.loads((tmp_path / "job.json").read_text())["environment"]["workerPools"]
    uploaded = {package["name"] for package in workers["packages"]}
    assert {wheel.name, "requirements.txt", "extra_packages.txt"} <= uploaded
    assert not any("session" in name for name in uploaded)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert workers["workerHarnessContainerImage"].endswith(f"beam_python{python}_sdk:{beam.__version__}")


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def wait_for(condition, *, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for has not come"
        time.sleep(0.05)


def listens(port):
    with socket.socket() as tried:
        return tried.connect_ex(("localhost", port)) == 0


@pytest.fixture
def keys(monkeypatch):
    """Keys of nobody for the store on loopback, so that none of this machine are used."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def pool(tmp_path, wheel, keys):
    """A worker pool that knows the package from its wheel only; yields its address and the folder of the package."""
    package = tmp_path / "package"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(package)
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": str(package),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: listens(port))
        yield f"localhost:{port}", package
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_workers_of_a_pool_build_the_same_shards_in_a_store_from_the_wheel(
    tmp_path,
    wiki_file,
    tokenizer_file,
    small_options,
    pool,
    bucket,  # noqa: F811
):
    address, package = pool
    command = [sys.executable, "-m", "bertdata", "build", "--input", str(wiki_file), "--out", bucket.uri()]
    command += ["--max-seq-length", "64", "--dupe-factor", "2", "--num-mask-sets", "2", "--num-shards", "3"]
    command += ["--block-size", "100", "--tokenizer", str(tokenizer_file), "--runner", "PortableRunner", "--"]
    command += ["--job_endpoint=embed", "--environment_type=EXTERNAL", f"--environment_config={address}"]
    found = subprocess.run([*command, "--requirements_cache=skip"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert f"note: {wiki_file} must lie on a file system that all workers share" in found.stderr
    written = {name: hashlib.sha256(bucket.body(name)).hexdigest() for name in bucket.objects() if name}
    assert written.pop("manifest.json")
    assert written == digests(build(tmp_path / "wanted", wiki_file, options=small_options))
    assert list((package / "bertdata" / "__pycache__").glob("build.*.pyc"))  # it was this one that ran
