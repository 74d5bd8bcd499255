import functools
import html
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from tests.bertdata.browser import BROWSER, check_fits, measure_at_widths, run_browser
from tests.bertdata.pages import check_is_alone, check_is_well_formed
from tests.trainer.made_runs import make_rows, make_run, write_rows
from trainer.checkpoint import save_checkpoint
from trainer.cli import main
from trainer.report import make_page
from trainer.run_figures import MAX_RUNS
from trainer.run_history import Series, load_history
from trainer.run_outlook import outlook_of
from trainer.run_plots import Curve, Level, Range, plot_curves, smooth, thin

HOSTILE = "<script>alert(1)</script>&amp;\"'{{ 7 * 7 }}"
ALL_FIELDS = ("loss", "mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy", "learning_rate", "grad_norm")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="bert-train")


def page_of(*folders: Path) -> str:
    return make_page([load_history(folder) for folder in folders])


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", page.partition("</head>")[2])).split())


def write_old_run(folder: Path) -> Path:
    """A run of an older release: fewer fields, no facts, no checkpoint."""
    names = ("kind", "step", "epoch", "loss", "mlm_loss", "mlm_accuracy", "learning_rate")
    rows = [row for row in make_rows(steps=300) if row["kind"] == "train"]
    write_rows(folder, [{name: row[name] for name in names} for row in rows])
    return folder


@pytest.fixture(scope="module")
def folders(data_set: DataSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ...]]:
    root = tmp_path_factory.mktemp("runs")
    make = functools.partial(make_run, data_set=data_set)
    one_row = make(root / "one row", steps=10, max_steps=500, is_ended=False)
    several = [make(root / f"run-{number}", steps=100 * (number + 1), seed=number) for number in range(MAX_RUNS)]
    return {
        "finished": (make(root / "finished"),),
        "in progress": (make(root / "progress", steps=340, max_steps=1000, is_ended=False),),
        "one row": (one_row,),
        "without nsp": (make(root / "mlm", next_sentence=False),),
        "older rows": (write_old_run(root / "old"),),
        "two": (several[5], several[2]),
        "many": (*several[1:], one_row),
    }


@pytest.fixture(scope="module")
def htmls(folders: dict[str, tuple[Path, ...]]) -> dict[str, str]:
    return {name: page_of(*paths) for name, paths in folders.items()}


CASES = ("finished", "in progress", "one row", "without nsp", "older rows", "two", "many")


@pytest.mark.parametrize("case", CASES)
def test_page_stands_alone_and_is_well_formed(htmls: dict[str, str], case: str) -> None:
    check_is_alone(htmls[case])
    page = check_is_well_formed(htmls[case])
    assert page.tags().count("figure") == page.tags().count("figcaption") == page.tags().count("svg") >= 3
    assert not re.search("#[0-9a-f]{6}", re.sub("<style>.*?</style>", "", htmls[case], flags=re.DOTALL))


@pytest.mark.parametrize(
    ("case", "has", "has_not"),
    [
        ("finished", ("Finished 600 steps", "NSP accuracy", "Is the loss normal?", "No warnings", "MFU"), ("to go",)),
        ("in progress", ("Unfinished 340 of 1,000", "it runs still, or was killed", "01:05 to go"), ("Finished",)),
        ("one row", ("Unfinished 10 of 500", "MLM loss"), ("Epochs", "held-out")),
        ("without nsp", ("MLM loss", "By what the model is shown"), ("NSP loss", "NSP accuracy", "told rightly")),
        ("older rows", ("Total loss", "options of the run are not known"), ("Is the loss normal?", "Padding", "MFU")),
        ("two", ("In what the runs differ", "max_steps", "Total loss, held out"), ("By what the model is shown",)),
        ("many", ("8 runs", "run-6", "one row"), ()),
    ],
)
def test_page_says_what_the_run_has(
    htmls: dict[str, str], case: str, has: tuple[str, ...], has_not: tuple[str, ...]
) -> None:
    text = text_of(htmls[case])
    assert [words for words in has if words not in text] == []
    assert [words for words in has_not if words in text] == []


def test_page_shows_the_numbers(folders: dict[str, tuple[Path, ...]], htmls: dict[str, str]) -> None:
    (folder,), text = folders["finished"], text_of(htmls["finished"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    held_out = [row for row in rows if row["kind"] == "eval"][-1]
    for words in (
        f"{held_out['mlm_loss']:.4f}",
        f"mlm_perplexity {held_out['mlm_perplexity']:.1f}",
        "mlm_accuracy_mask 31.00%",
        "nsp_accuracy_by_lengths 56.60%",
        f"MLM loss {held_out['mlm_loss']:.4f} held out",
        "6,400 45.6% MFU",
        "01:15",  # 600 steps of 8 samples at 64 samples a second
        "480,000 tokens",
        f"nothing learned {math.log(120):.2f}",
        "word frequencies only 4.00",
        "normal by now well below 4.00",
        "batch_size 8 given",
        "learning_rate 0.01 chosen by data and device",
        "model.hidden_size 16",
        "160 for training",
    ):
        assert words in text, words
    for row in rows:
        if row["kind"] == "epoch":
            nsp = f"{row['nsp_loss']:.4f} {row['mlm_accuracy']:.1%} {row['nsp_accuracy']:.1%}"
            assert f"{row['epoch']:g} {row['step']} {row['loss']:.4f} {row['mlm_loss']:.4f} {nsp}" in text


@pytest.mark.filterwarnings("error")
def test_a_run_whose_gradients_are_not_clipped_has_no_line_of_clipping(data_set: DataSet, tmp_path: Path) -> None:
    clipped, free = (make_run(tmp_path / f"{norm}", data_set=data_set, max_grad_norm=norm) for norm in (1.0, 0.0))
    assert "clipped above" in text_of(page_of(clipped))
    assert "clipped above" not in text_of(page_of(free))


def test_warnings_are_those_of_the_run(data_set: DataSet, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "bad", data_set=data_set, learning_rate=0.5)
    rows = make_rows(steps=600)
    write_rows(folder, [row | {"loss": row["loss"] + 9, "mlm_loss": row["mlm_loss"] + 9} if row["step"] > 300 else row for row in rows])  # fmt: skip
    outlook = outlook_of(load_history(folder))
    assert outlook is not None
    ((step, warning),) = [(step, text) for step, text in outlook.warnings if "diverges" in text]
    assert 300 < step <= 600
    text = text_of(page_of(folder))
    assert f"Warning, step {step}: {warning}" in text
    assert "No warnings" not in text


def test_run_from_other_weights_is_not_expected_to_know_nothing(data_set: DataSet, tmp_path: Path) -> None:
    text = text_of(page_of(make_run(tmp_path / "phase-2", data_set=data_set, init="phase-1/hf")))
    assert "begins from phase-1/hf: weights that were trained before" in text


def test_torn_lines_are_said(data_set: DataSet, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", data_set=data_set, is_ended=False) / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1][:20]]))
    assert load_history(path.parent).num_unread == 0  # the last line of a run in progress may be half there
    path.write_text("\n".join([*lines[:3], lines[3][:20], *lines[4:]]))
    text = text_of(page_of(path.parent))
    assert f"{len(lines) - 4} lines of metrics.jsonl stand behind one that is torn" in text


def test_values_that_are_not_finite_are_left_out(data_set: DataSet, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", data_set=data_set)
    rows = make_rows(steps=600)
    write_rows(folder, [*rows, rows[-1] | {"kind": "train", "step": 610, "loss": math.nan, "grad_norm": math.inf}])
    check_is_well_formed(page_of(folder))
    assert load_history(folder).series("train", "loss").steps[-1] == 600


def test_all_text_is_escaped(data_set: DataSet, tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "")
    folder = make_run(tmp_path / name, data_set=data_set, origins={"batch_size": HOSTILE})
    path = folder / "run.json"
    facts = json.loads(path.read_text())
    facts["starts"][0]["device"] = facts["data"][0]["place"] = facts["options"]["precision"] = HOSTILE
    path.write_text(json.dumps(facts))
    other = make_run(tmp_path / "other", data_set=data_set)
    for source in (page_of(folder), page_of(other, folder)):
        page = check_is_alone(source)
        assert "<script" not in source
        assert "{{ 7 * 7 }}" in page.text
        assert page.text.count(HOSTILE) >= 2


def test_facts_of_another_make_are_passed_over(data_set: DataSet, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", data_set=data_set)
    assert load_history(folder).options["batch_size"] == 8
    for contents in ("", "{", "[]", '{"format_version": 99}', '{"format_version": 1}'):
        (folder / "run.json").write_text(contents)
        run = load_history(folder)
        assert (run.facts, run.options, outlook_of(run)) == ({}, {}, None)


def test_options_come_from_a_checkpoint_where_there_are_no_facts(data_set: DataSet, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", data_set=data_set)
    options = load_history(folder).options
    (folder / "run.json").unlink()
    save_checkpoint(folder / "checkpoints", {"step": 500, "options": options}, keep=2)
    (folder / "checkpoints" / "step-00000600.pt").write_text("torn")
    run = load_history(folder)
    assert run.options == options
    assert run.state == "finished"
    assert (outlook := outlook_of(run)) is not None
    assert outlook.entropy is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "there is no folder .*give the --out folder of a bert-train run"),
        ({}, "has no metrics.jsonl; give the --out folder"),
        ({"metrics.jsonl": ""}, "has no rows yet; wait for the first"),
        ({"metrics.jsonl": '{"kind": "tra'}, "has no rows yet"),
        ({"metrics.jsonl": '{"epoch": 3}\n'}, "line 1 is no row of a run"),
        ({"metrics.jsonl": "[1]\n"}, "line 1 is no row of a run"),
    ],
)
def test_folder_of_no_run_is_an_error(tmp_path: Path, files: dict[str, str] | None, message: str) -> None:
    folder = tmp_path / "run"
    if files is not None:
        folder.mkdir()
        for name, contents in files.items():
            (folder / name).write_text(contents)
    with pytest.raises(TrainingError, match=message):
        load_history(folder)
    result = invoke("report", folder, "--out", tmp_path / "report.html")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "report.html").exists()


def test_too_many_runs_are_refused(folders: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    result = invoke("report", *folders["many"], *folders["two"], "--out", tmp_path / "report.html")
    assert result.exit_code == 1
    assert f"10 runs do not fit on a page; give at most {MAX_RUNS}" in result.stderr


def test_command_writes_the_page_in_a_process_of_its_own(
    folders: dict[str, tuple[Path, ...]], htmls: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "report.html"
    command = [sys.executable, "-m", "trainer", "report", *map(str, folders["two"]), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert done.stdout == f"{out}\n"
    assert out.read_text() == htmls["two"]
    assert list(out.parent.iterdir()) == [out]


def test_command_says_what_is_not_installed(
    folders: dict[str, tuple[Path, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jinja2" else name)
    result = invoke("report", *folders["finished"], "--out", tmp_path / "report.html")
    assert result.exit_code == 1
    assert 'pip install "bertdata[report]"' in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reprot", "run"), "'reprot' is no command; did you mean report?"),
        (("xyz",), "'xyz' is no command; the commands are report, follow. To train, begin with --shards."),
        (("report", "run"), "Missing option '--out'"),
        (("report", "--out", "x.html"), "Missing argument 'RUN...'"),
        (("report", "run", "--shards", "x"), "No such option"),
    ],
)
def test_usage_errors_exit_with_2(arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_runs_of_the_same_name_go_by_the_ends_of_their_folders(tmp_path: Path) -> None:
    first, second = (write_old_run(tmp_path / name / "run") for name in ("one", "two"))
    text = text_of(page_of(first, second))
    assert "one/run" in text
    assert "two/run" in text
    assert tmp_path.name not in text
    assert "run (1)" in text_of(page_of(first, first))


def test_help_shows_the_options_of_training_and_names_the_report() -> None:
    text = invoke("--help").output
    assert text.startswith("Usage: bert-train [OPTIONS]\n")
    assert "--shards" in text
    assert re.search(r"Commands:\s+follow .*\s+report\s+Writes a page about a run, or several", text)
    assert invoke("report", "--help").output.startswith("Usage: bert-train report [OPTIONS] RUN...")


def test_smoothing_is_the_mean_within_a_tenth_of_the_steps() -> None:
    noise = np.random.default_rng(0)
    steps = np.cumsum(noise.integers(1, 30, 200)).astype(float)
    values = noise.normal(size=200)
    found = smooth(Series(steps=steps, values=values))
    for place, step in enumerate(steps):
        near = [value for other, value in zip(steps, values, strict=True) if abs(other - step) <= 0.1 * step + 1e-9]
        assert found[place] == pytest.approx(np.mean(near))


def test_thinned_lines_keep_their_spikes() -> None:
    steps, values = np.arange(100_000.0), np.random.default_rng(0).normal(size=100_000)
    values[[31_234, 77_777]] = (50.0, -50.0)
    few_steps, few = thin(steps, values)
    assert len(few) == len(few_steps) <= 600
    assert (few.max(), few.min()) == (50.0, -50.0)
    assert (values[few_steps.astype(int)] == few).all()
    assert (np.diff(few_steps) > 0).all()


FIGURES: dict[str, Callable[[], str]] = {
    "nothing": lambda: plot_curves([], name="n", label="L", title="t"),
    "one value": lambda: draw([5.0], [3.0]),
    "constant": lambda: draw([1.0, 2.0], [0.0, 0.0], form="percent", has_zero=True),
    "powers of ten": lambda: draw([1.0, 1e6], [1e-9, 1e9], scale="log", step_scale="log"),
    "not positive": lambda: draw([1.0, 2.0], [0.0, 1.0], scale="log"),
    "all": lambda: plot_curves(
        [Curve(series=Series(steps=np.arange(1.0, 900), values=np.sin(np.arange(899))), noise="raw", is_dashed=True)],
        name="a",
        label="L",
        title="t",
        levels=[Level(value=3.0, text="<level>")],
        ranges=[Range(steps=(1, 10), low=None, high=2.0)],
    ),
}


def draw(steps: list[float], values: list[float], **options: object) -> str:
    series = Series(steps=np.array(steps), values=np.array(values))
    return plot_curves([Curve(series=series)], name="f", label="L", title="t", **options)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_an_element_whose_colours_are_the_pages(name: str) -> None:
    svg = FIGURES[name]()
    root = ElementTree.fromstring(svg)
    assert set(root.attrib) == {"viewBox", "role", "aria-label"}
    assert not re.search("#[0-9a-f]{6}", svg)
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= {"ink", "muted", "grid", "first", "second", "third", "good"}
    assert FIGURES[name]() == svg


def test_curve_has_the_heights_of_its_values() -> None:
    svg = draw([0.0, 1.0, 2.0, 3.0], [1.0, 4.0, 2.0, 3.0])
    (path,) = [path for path in ElementTree.fromstring(svg).iter("path") if "var(--first)" in path.attrib.get("style", "")]  # fmt: skip
    points = np.array(re.findall(r"[-\d.]+", path.attrib["d"]), dtype=float).reshape(-1, 2)
    assert (points[:, 0] - points[0, 0]) / (points[3, 0] - points[0, 0]) == pytest.approx(np.arange(4) / 3, abs=0.01)
    assert (points[:, 1] - points[0, 1]) / (points[1, 1] - points[0, 1]) == pytest.approx(
        [0, 1, 1 / 3, 2 / 3], abs=0.01
    )


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
def test_page_fits_at_any_width_and_prints(htmls: dict[str, str], tmp_path: Path) -> None:
    pages = [htmls[name] for name in ("finished", "older rows", "many")]
    found = measure_at_widths(pages, tmp_path=tmp_path)
    for number, (width, values) in enumerate(found):
        values["numTexts"] += 100 * (number % 3 == 1)  # the one of older rows has few figures
        check_fits(values, width=width)
    page, target = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(htmls["finished"])
    run_browser(page, f"--print-to-pdf={target}", "--no-pdf-header-footer", tmp_path=tmp_path)
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) <= 9
