"""The pages about engines: their commands are ones that the program takes, their images those of the pinned Beam."""

import re
import shlex
from pathlib import Path

import pytest

from bertdata.cli import build
from bertdata.options import make_build_options
from bertdata.parameters import BEAM_OPTIONS
from pipelines import submission
from pipelines.beam_options import pipeline_options
from pipelines.submission import check_submission

ROOT = Path(__file__).parents[2]
IMAGE = "examples/workers_image/Dockerfile"
PAGES = {"dataflow": "DataflowRunner", "flink": "FlinkRunner", "spark": "SparkRunner"}


def commands_of(page):
    text = (ROOT / "examples" / page / "README.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks if block.startswith("bertdata build")]


@pytest.fixture
def engines_are_there(monkeypatch):
    monkeypatch.setattr(submission, "_DATAFLOW", ())
    monkeypatch.setattr(submission.shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.mark.parametrize(("page", "runner"), PAGES.items())
def test_commands_of_a_page_are_taken(engines_are_there, page, runner):
    commands = commands_of(page)
    assert len(commands) >= 2
    for words in commands:
        context = build.make_context("build", words[2:])
        values, flags = context.params, context.meta[BEAM_OPTIONS]
        assert values["runner"] == runner
        options = make_build_options(values | {"excluded_documents": ()})
        found = check_submission(runner, flags=flags, inputs=values["inputs"], out=values["out"], options=options)
        assert found.workers in ("containers", "machines")
        pipeline_options(runner=runner, num_workers=1, flags=flags)


def test_image_of_the_workers_has_the_pinned_beam_and_all_of_the_package():
    text = (ROOT / IMAGE).read_text()
    (image,) = re.findall(r"^FROM apache/beam_python(\d+\.\d+)_sdk:(\S+)$", text, re.MULTILINE)
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert image[1] == pinned["apache-beam"]
    assert tuple(map(int, image[0].split("."))) >= (3, 10)
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "bertdata", "pipelines", "trainer"} == copied
    assert all((ROOT / name).exists() for name in copied)
    for path in (IMAGE, *(f"examples/{page}/README.md" for page in PAGES)):
        assert f"docker build -f {IMAGE} -t " in (ROOT / path).read_text(), path


@pytest.mark.parametrize(("page", "runner"), PAGES.items())
def test_page_says_what_has_been_run_and_what_has_not(page, runner):
    text = " ".join((ROOT / "examples" / page / "README.md").read_text().split())
    run, not_run = text.partition("## What has been run, and what has not")[2].split("Not run:")
    for way in ("serial loop", "FnApiRunner in one process and in several", "PortableRunner"):
        assert way in run
    assert runner.removesuffix("Runner") in not_run
