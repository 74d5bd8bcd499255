"""What is released: the sdist, the wheel made from it, and what each extra gives in an environment of its own."""

import email
import importlib.metadata
import re
import shutil
import tarfile
import zipfile

import pytest

from tests.environments import FROM_INDEX, ROOT, Environment

pytestmark = pytest.mark.slow

PACKAGES = ("bertdata", "pipelines", "trainer")
NOT_SOURCE = (".*", "build", "dist", "*.egg-info", "__pycache__", "quickstart", "run", "shards")
SMALL = ["--max-seq-length", "64", "--dupe-factor", "1", "--num-mask-sets", "1", "--num-workers", "1"]
IS_THERE = "import importlib.util as u; print(*[name for name in {} if u.find_spec(name)])"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The sdist, and the wheel made from what is in it, by the build backend alone; the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("released")
    shutil.copytree(ROOT, folder / "checkout", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    builder = Environment(folder / "builder")
    builder.pip("install", re.search(r'^requires = \["(.*)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)[1])
    backend = "from setuptools import build_meta; build_meta.build_{}('..')"
    builder.python(backend.format("sdist"), cwd=folder / "checkout")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    builder.python(backend.format("wheel"), cwd=folder / sdist.name.removesuffix(".tar.gz"))
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def environment(released, tmp_path_factory):
    """A function that installs the wheel with extras."""

    def make(*extras):
        made = Environment(tmp_path_factory.mktemp("environment") / ("_".join(extras) or "plain"))
        made.install(released[1], extras=extras)
        return made

    return make


def version_of(wheel):
    return wheel.name.split("-")[1]


def files_of_packages():
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if "__pycache__" not in path.parts]
    return {path.relative_to(ROOT).as_posix() for path in paths if path.is_file()}


def test_wheel_from_the_sdist_holds_the_packages_with_their_data_and_the_licence(released):
    with zipfile.ZipFile(released[1]) as archive:
        names = set(archive.namelist())
        (about,) = (name for name in names if name.endswith("METADATA"))
        metadata = email.message_from_bytes(archive.read(about))
    about = about.removesuffix("METADATA")
    assert {name for name in names if not name.startswith(about)} == files_of_packages()
    assert {"bertdata/report.css", "trainer/report.html.jinja", "pipelines/py.typed"} <= names
    assert f"{about}licenses/LICENSE" in names
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Version"] == version_of(released[1])


def test_sdist_holds_what_the_wheel_is_made_of_and_no_tests(released):
    with tarfile.open(released[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {name for name in names if name.startswith("bertdata.egg-info/")} | {"setup.cfg", "PKG-INFO"}
    besides = {"pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"}
    assert names - made == files_of_packages() | besides


@pytest.fixture(scope="module")
def shards(environment, tmp_path_factory, wiki_file, tokenizer_file):
    """What `[build]` alone builds."""
    built = environment("build")
    folder = tmp_path_factory.mktemp("built")
    command = ["build", "--input", wiki_file, "--out", "shards", "--tokenizer", tokenizer_file, *SMALL]
    found = built.run("bertdata", *command, cwd=folder)
    assert found.returncode == 0, found.stderr
    assert built.python(IS_THERE.format(("apache_beam", "torch", "jinja2")), cwd=folder).split() == ["apache_beam"]
    return folder / "shards"


@pytest.fixture(scope="module")
def run_folder(environment, shards, tmp_path_factory):
    """What `[train,tensorboard]` trains: a step."""
    trained = environment("train", "tensorboard")
    folder = tmp_path_factory.mktemp("trained")
    command = ["--shards", shards, "--model", "tiny", "--max-steps", "1", "--batch-size", "8", "--eval-samples", "8"]
    found = trained.run("bert-train", *command, "--tensorboard", cwd=folder)
    assert found.returncode == 0, found.stderr
    assert trained.python(IS_THERE.format(("apache_beam", "torch", "sentencex")), cwd=folder).split() == ["torch"]
    return folder / "run"


def test_without_extras_shards_are_read_and_what_is_missing_is_named(
    released, environment, shards, wiki_file, tmp_path
):
    plain = environment()
    for command in ("bertdata", "bert-train", "bert-predict"):
        help_text = plain.run(command, "--help", cwd=tmp_path)
        assert help_text.returncode == 0
        assert help_text.stdout.startswith(f"Usage: {command}")
    assert plain.run("bertdata", "--version", cwd=tmp_path).stdout == f"bertdata, version {version_of(released[1])}\n"
    for command in ("verify", "inspect"):
        found = plain.run("bertdata", command, shards, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
    number = plain.python(
        f"import bertdata; print(sum(1 for _ in bertdata.read_samples({str(shards)!r})))", cwd=tmp_path
    )
    assert int(number) > 100
    for command, extra in (
        (["bertdata", "build", "--input", wiki_file, "--out", "other"], "build"),
        (["bertdata", "report", shards, "--out", "report.html"], "report"),
        (["bert-train", "--shards", shards], "train"),
        (["bert-train", "report", tmp_path, "--out", "report.html"], "report"),
        (["bert-predict", tmp_path, "[MASK]"], "train"),
    ):
        found = plain.run(*command, cwd=tmp_path)
        assert found.returncode == 1
        assert re.search(rf'^error: .*pip install "bertdata\[{extra}\]"', found.stderr), found.stderr
    assert list(tmp_path.iterdir()) == []


def test_train_extra_trains_and_exports(run_folder):
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (run_folder / "hf").iterdir()
    }


def test_tensorboard_extra_writes_curves(run_folder):
    assert list(run_folder.rglob("events.out.tfevents.*"))


def test_report_extra_makes_both_pages(environment, shards, run_folder, tmp_path):
    drawing = environment("report")
    for words in (["bertdata", "report", shards], ["bert-train", "report", run_folder]):
        found = drawing.run(*words, "--out", f"{words[0]}.html", cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert (tmp_path / f"{words[0]}.html").stat().st_size > 10_000


def test_gcp_extra_has_what_dataflow_needs(environment, tmp_path):
    if not FROM_INDEX and not _is_installed("google-cloud-storage"):
        pytest.skip("Google's libraries are not installed; `make package` fetches them")
    code = "from pipelines.submission import check_submission as c; from apache_beam.runners.dataflow import internal"
    environment("gcp").python(f"{code}; from apache_beam.io.gcp import gcsio", cwd=tmp_path)


def _is_installed(name):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
