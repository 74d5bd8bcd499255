"""The documentation: what it names is there, what it shows is so, and what can be run is run."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from click.testing import CliRunner

from bertdata.build import build_serially
from bertdata.cli import build
from bertdata.launch import open_build
from bertdata.options import make_build_options
from tests import pages
from tests.corpus import article, iter_texts
from tests.messages import ROOT, bare, find_messages, find_texts

DOCS = ROOT / "docs"
page_by_name = pytest.mark.parametrize("name", pages.NAMES)

# Options of other programs that the pages speak of.
OTHERS = {
    *("--constraint", "--editable", "--nproc-per-node", "--ntasks-per-node", "--gpus-per-node", "--kill-on-bad-exit"),
    *("--signal", "--requeue", "--node-rank", "--nodes", "--max-restarts", "--status"),
}
BEAM = re.compile(r"--[a-z0-9]+_[a-z0-9_]+|--(parallelism|project|region)")


def test_every_message_is_on_the_page_of_troubleshooting_and_no_other():
    blocks = pages.blocks_of(DOCS / "troubleshooting.md")
    lines = [line for block in blocks if block.language == "text" for line in block.text.splitlines()]
    known = {bare(line) for line in lines}
    messages = find_messages()
    missing = [f"{message.place}: {message.text}" for message in messages if message.words not in known]
    assert not missing, "add these lines to docs/troubleshooting.md:\n" + "\n".join(missing)
    said = {message.words for message in messages}
    stale = [line for line in lines if bare(line) not in said]
    assert not stale, "these lines of docs/troubleshooting.md are no messages any more:\n" + "\n".join(stale)


def test_parts_of_messages_are_words_of_the_source():
    table = (DOCS / "troubleshooting.md").read_text().partition("## Parts of messages\n")[2]
    rows = re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE)
    texts = find_texts()
    of_the_system = {os.strerror(number) for number in errno.errorcode}
    for words in (bare(code) for row in rows for code in re.findall(r"`([^`]+)`", row)):
        assert words in of_the_system or all(part.strip() in texts for part in words.split("…")), words
    assert len(rows) > 10


@page_by_name
def test_links_lead_somewhere(name):
    for path, anchor in pages.iter_links(ROOT / name):
        assert path.exists(), path
        assert not anchor or anchor in pages.anchors_of(path), f"{path}#{anchor}"


@page_by_name
def test_files_and_tests_that_are_named_are_there(name):
    for path, test in pages.iter_paths(ROOT / name):
        assert (ROOT / path).exists(), path
        assert test is None or re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{test}"


@page_by_name
def test_commands_are_ones_that_the_programs_take(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words in pages.iter_commands(ROOT / name):
        pages.check_command(words)


@page_by_name
def test_scripts_that_are_run_are_there_and_have_the_options(name):
    for script, words in pages.iter_scripts(ROOT / name):
        assert script.exists(), script
        unknown = {word for word in words if word.startswith("--")} - pages.options_of_script(script)
        assert not unknown, f"{script.name} has no {unknown}"


@page_by_name
def test_options_that_are_named_are_there(name):
    if name == "CHANGELOG.md":
        pytest.skip("it also tells of options that are gone")
    known = pages.known_options() | OTHERS
    for code in pages.iter_code(ROOT / name):
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            assert option in known or BEAM.fullmatch(option), f"{option} in `{code}`"


def test_every_promise_of_determinism_names_a_test():
    text = (DOCS / "determinism.md").read_text()
    rows = [row for row in re.findall(r"^\| (.*) \|$", text, re.MULTILINE) if not set(row) <= set("-|")]
    promises = [row for row in rows if not row.endswith("| test")]
    assert len(promises) > 30
    assert all(re.search(r"`tests/[\w/]+\.py::test_\w+`$", row) for row in promises)


def test_every_page_is_on_the_map():
    linked = {path for path, _ in pages.iter_links(ROOT / "README.md")}
    assert {path.resolve() for path in DOCS.glob("*.md")} <= linked


def test_file_list_of_the_readme_is_that_of_the_project():
    tree = (ROOT / "README.md").read_text().partition("## Files\n")[2].partition("\n## ")[0]
    parts = re.split(r"^(\w+)/ ", tree, flags=re.MULTILINE)[1:]
    for package, text in zip(parts[::2], parts[1::2], strict=True):
        if package not in ("bertdata", "pipelines", "trainer"):
            continue
        patterns = re.findall(r"(?<![\w/*])[\w*]+\.py\b", text)
        modules = {path.name for path in (ROOT / package).glob("*.py") if not path.name.startswith("__")}
        for pattern in patterns:
            assert any(fnmatchcase(module, pattern) for module in modules), f"{package}/{pattern} is not there"
        missing = {module for module in modules if not any(fnmatchcase(module, pattern) for pattern in patterns)}
        assert not missing, f"captions are missing in README.md: {package}/ {sorted(missing)}"


def _write_dump(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    titles = ["Albedo", *(f"Title {number}" for number in range(1, 150))]
    text = "".join(article(title, text) for title, text in zip(titles, iter_texts(150), strict=True))
    path.write_text(f'<mediawiki version="0.11" xml:lang="en">\n{text}</mediawiki>\n')


def _write_jsonl(path: Path, *, field: str, end: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({field: text + end}) + "\n" for text in iter_texts(150)))


def _write_corpus(folder: Path) -> None:
    _write_jsonl(folder / "corpus" / "a.jsonl", field="body")
    sentences = ["\n".join(text.replace("\n\n", " ").split(". ")) for text in iter_texts(120)]
    (folder / "corpus" / "sentences.txt").write_text("\n\n".join(sentences))


def _write_books(folder: Path) -> None:
    (folder / "books").mkdir()
    for number, text in enumerate(iter_texts(120)):
        (folder / "books" / f"{number}.txt").write_text(text)


def _write_reviews(folder: Path) -> None:
    lines = [f'"{text} Was this review helpful to you?",en' for text in iter_texts(120)]
    (folder / "reviews.csv").write_text("\n".join(["body,language", *lines]) + "\n")


def _write_published_model(folder: Path, *, tokenizer: Path) -> None:
    import torch
    from transformers import BertConfig, BertForPreTraining

    torch.manual_seed(0)
    size = len(json.loads(tokenizer.read_text())["model"]["vocab"])
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertForPreTraining(config).save_pretrained(folder / "bert-base-uncased")
    shutil.copy(tokenizer, folder / "bert-base-uncased" / "tokenizer.json")


@pytest.fixture
def make(request, tokenizer_file) -> Callable[[str, Path], None]:
    """Returns a function that makes what a page needs, by its name, in a folder."""
    makers: dict[str, Callable[[Path], object]] = {
        "wiki.xml": lambda folder: _write_dump(folder / "wiki.xml"),
        "dumps": lambda folder: _write_dump(folder / "dumps" / "simplewiki.xml"),
        "corpus": _write_corpus,
        "books": _write_books,
        "first": lambda folder: _write_jsonl(folder / "first.jsonl", field="text"),
        "second": lambda folder: _write_jsonl(folder / "second.jsonl", field="text", end=" The end."),
        "article": lambda folder: (folder / "article.txt").write_text(list(iter_texts(8))[7]),
        "my_corpus": lambda folder: shutil.copy(ROOT / "examples" / "custom_corpus" / "my_corpus.py", folder),
        "reviews": _write_reviews,
        "tokenizer": lambda folder: shutil.copy(tokenizer_file, folder / "tokenizer.json"),
        "published": lambda folder: _write_published_model(folder, tokenizer=tokenizer_file),
        "shards": lambda folder: shutil.copytree(request.getfixturevalue("small_data_set"), folder / "shards"),
    }
    return lambda name, folder: makers[name](folder) and None


def _build(words: list[str]) -> None:
    """Runs a build as the serial loop, which other tests hold equal to the pipeline."""
    context = build.make_context("build", words)
    values = context.params
    options = make_build_options(values | {"excluded_documents": ()})
    with open_build(
        values["inputs"], out=values["out"], options=options, overwrite=False, keep_work=values["keep_work"]
    ) as work:
        if work is not None:
            build_serially(work)


def _shorten(words: list[str]) -> list[str]:
    """Returns the words of a training that takes seconds."""
    given = set(words)
    if given & {"report", "follow", "--eval-only"}:
        return words
    if not given & {"--max-steps", "--epochs"}:
        words = [*words, "--max-steps", "3"]
    if not given & {"--model", "--init", "--config", "--preset"}:
        words = [*words, "--model", "tiny"]
    return words if "--batch-size" in given else [*words, "--batch-size", "8"]


def run_line(line: str) -> None:
    """Runs a line of a page's block in this folder."""
    words = shlex.split(line, comments=True)
    programs = pages.commands()
    if words[0] not in programs:
        subprocess.run(["bash", "-ec", line], check=True)
    elif words[:2] == ["bertdata", "build"] and "--dry-run" not in words:
        _build(pages.glob_words(words[2:]))
    else:
        arguments = _shorten(words[1:]) if words[0] == "bert-train" else words[1:]
        result = CliRunner().invoke(programs[words[0]], pages.glob_words(arguments), prog_name=words[0])
        assert result.exit_code == 0, f"{line}\n{result.output}"


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


QUICK = {f"docs/{name}.md" for name in ("custom-reader", "format", "large-builds", "other-languages")}
RUNNABLE = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in pages.NAMES
    if any(block.is_run for block in pages.blocks_of(ROOT / name))
]


@pytest.mark.parametrize("name", RUNNABLE)
def test_blocks_of_a_page_run(name, make, tmp_path, monkeypatch):
    page = ROOT / name
    monkeypatch.syspath_prepend(str(tmp_path))
    for need in pages.needs_of(page):
        make(need, tmp_path)
    with _in_folder(tmp_path):
        for block in pages.blocks_of(page):
            if block.is_run and block.language == "python":
                exec(block.text, {"__name__": name})
            elif block.is_run:
                for line in block.lines:
                    run_line(line)
