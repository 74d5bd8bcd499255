"""The study: its verdicts on made-up runs, and a miniature of it from text to figures."""

import importlib
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

from bertdata import read_samples
from bertdata.cli import main as bertdata_command
from bertdata.errors import InputError
from tests.corpus import iter_texts
from trainer.cli import main as train_command

STUDY = Path(__file__).parents[2] / "examples" / "study"
NAMES = ("analyse", "figures", "held_out", "run", "text")
EIGHT = (1.6, -0.3, 0.9, 0.3, 1.5, -0.2, 0.5, 0.9)  # their mean is less than their spread, and settled by their number
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def modules():
    """The modules of the study, which lie beside its program."""
    sys.path.insert(0, str(STUDY))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(STUDY))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture
def analyse(modules):
    return modules["analyse"]


def made_run(*, pairs, singles, seen, training, steps=20):
    """A run whose losses fall to what is given; the best checkpoint is the last but one."""
    held_out = [
        {
            "step": step,
            "pairs": {"mlm_loss": pairs + more, "nsp_accuracy": 0.5},
            "singles": {"mlm_loss": singles + more},
            "seen": {"mlm_loss": seen + more},
        }
        for step, more in ((5, 1.0), (15, -0.5), (20, 0.0))
    ]
    train = [{"step": step, "epoch": step / 10, "mlm_loss": training} for step in range(1, steps + 1)]
    return {"train": train, "held_out": held_out}


def made_results(*, static, none):
    """Three seeds; `static` and `none` are how much worse these arms are than "dynamic", a number per seed."""
    runs = {"dynamic": {}, "static": {}, "none": {}}
    for seed, (first, second) in enumerate(zip(static, none, strict=True)):
        level = 6 + seed  # what seeds alone do, far more than arms: pairing takes it out
        for arm, more in (("dynamic", 0.0), ("static", first), ("none", second)):
            runs[arm][str(seed)] = made_run(pairs=level + more, singles=level - more, seen=level + more, training=2.0)
    scale = {"model": "tiny", "batch_size": 8}
    text = {name: {"documents": 2, "characters": 1000} for name in ("train", "held-out")}
    return {
        "plan": {
            "asked": {"scale": scale, "seeds": len(static)},
            "text": text,
            "sizes": dict.fromkeys(runs, (80, 4000)),
            "steps": dict.fromkeys(runs, 20),
        },
        "facts": {"parameters": 1000, "word_entropy": 6.5, "device": "a CPU", "versions": {}},
        "runs": runs,
    }


@pytest.mark.parametrize(
    ("differences", "words", "better"),
    [
        ((0.50, 0.52, 0.48), "dynamic has the lower loss, beyond the spread", "dynamic"),
        ((-0.50, -0.52, -0.48), "static has the lower loss, beyond the spread", "static"),
        ((0.1, -0.2, 0.15), "smaller than the spread of the seeds: no difference was found", None),
        ((0.1, 0.3, 0.5), "larger than the spread, but 3 seeds do not settle it", None),
        (EIGHT, "dynamic has the lower loss, beyond the spread", "dynamic"),
        ((0.7,), "one seed: the spread is not known", None),
    ],
)
def test_verdict_holds_the_mean_against_the_spread_of_seeds(analyse, differences, words, better):
    runs = made_results(static=differences, none=differences)["runs"]
    (end,) = [
        one for one in analyse.compare(runs) if one.arms[0] == "static" and one.measure == "held-out pairs, at the end"
    ]
    assert end.differences == pytest.approx(differences)  # seeds differ by 1 and more among themselves
    assert words in end.verdict
    assert end.better == better
    if len(differences) > 1:
        assert end.spread == pytest.approx(statistics.stdev(differences))
        assert (end.better is not None) == (abs(end.mean) > end.half_width > 0)


def test_interval_is_student_t(analyse):
    stats = pytest.importorskip("scipy.stats")
    for number in range(2, 11):
        differences = [math.sin(seed) for seed in range(number)]
        _, half_width, _ = analyse.verdict(differences, arms=("static", "dynamic"))
        interval = stats.t.interval(0.95, number - 1, scale=stats.sem(differences))
        assert half_width == pytest.approx(interval[1], rel=1e-3)


def test_best_checkpoint_is_the_lowest_and_unpaired_seeds_do_not_count(analyse):
    results = made_results(static=(0.1, 0.2, 0.3), none=(0.0, 0.0, 0.0))
    run = results["runs"]["static"]["1"]
    assert analyse.MEASURES["held-out pairs, best checkpoint"](run) == pytest.approx(7.2 - 0.5)
    assert analyse.MEASURES["held-out pairs, at the end"](run) == pytest.approx(7.2)
    del results["runs"]["static"]["1"]
    assert {len(one.differences) for one in analyse.compare(results["runs"]) if one.arms[0] == "static"} == {2}


def test_conclusions_do_not_take_the_form_of_samples_for_the_task(analyse):
    results = made_results(static=(0.50, 0.52, 0.48), none=(0.50, 0.52, 0.48))
    masks, *next_sentences = analyse.conclude(analyse.compare(results["runs"]))
    assert masks == "Mask sets, on held-out pairs: at the end, dynamic is better; best checkpoint, dynamic is better."
    assert all("on pairs, dynamic is better; on segments, none is better; each arm" in text for text in next_sentences)
    same = made_results(static=(0.1, -0.1, 0.0), none=(0.1, -0.1, 0.0))
    masks, *next_sentences = analyse.conclude(analyse.compare(same["runs"]))
    assert masks.count("the arms are not told apart") == 2
    assert not any("each arm" in text for text in next_sentences)


def test_write_makes_numbers_tables_and_figures(modules, tmp_path):
    results = made_results(static=(0.50, 0.52, 0.48), none=(0.1, -0.2, 0.15))
    modules["analyse"].write(results, out=tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert len(written["comparisons"]) == 8
    page = (tmp_path / "results.md").read_text()
    row = "| held-out pairs, at the end | static minus dynamic | +0.500 | +0.500, +0.520, +0.480 | ± 0.050 |"
    assert row in page
    assert "| static | 80 | 4,000 | 20 | 2.0 | 3 |" in page
    for name in modules["figures"].FILES:
        assert (tmp_path / name).read_bytes().startswith(PNG)
        assert f"({name})" in page


def test_text_is_divided_by_its_hashes_alone(modules, tmp_path):
    text = modules["text"]
    texts = [f"Document {number} has a few words. " * (1 + number % 7) for number in range(50)]
    chosen = text.sample(iter(texts), num_chars=1000)
    assert chosen == text.sample(iter([*reversed(texts), *texts]), num_chars=1000)
    assert sum(map(len, chosen)) >= 1000 > sum(map(len, chosen[:-1]))
    assert len(text.sample(iter(texts), num_chars=10**9)) == 50

    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": one + "\nA second paragraph."}) + "\n" for one in texts))
    facts = text.divide(str(source), out=tmp_path, train_chars=2000, held_out_chars=500, document_chars=100)
    parts = {
        name: [json.loads(line)["text"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in facts
    }
    assert not set(parts["train"]) & set(parts["held-out"])
    assert all(len(one) <= 100 for part in parts.values() for one in part)
    assert {name: sum(map(len, part)) for name, part in parts.items()} == {
        name: one["characters"] for name, one in facts.items()
    }
    assert 500 <= facts["held-out"]["characters"] <= 600
    source.write_text(json.dumps({"text": "Too little."}) + "\n")
    with pytest.raises(InputError, match="only 1 documents"):
        text.divide(str(source), out=tmp_path, train_chars=100, held_out_chars=100, document_chars=None)


@pytest.fixture
def study(modules, monkeypatch):
    """Runs the study in this process, its commands too, and keeps what commands these were."""
    commands = []

    def run_here(*command):
        words = [str(word) for word in command]
        commands.append(words)
        if words[:2] == ["bertdata", "build"]:
            words = [*words, "--num-workers", "1"]  # a second one would take longer to start than to work
        {"bertdata": bertdata_command, "bert-train": train_command}[words[0]].main(words[1:], standalone_mode=False)

    monkeypatch.setattr(modules["run"], "run", run_here)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices are too small for more
    yield commands, lambda *words: modules["run"].main.main([str(word) for word in words], standalone_mode=False)
    torch.set_num_threads(threads)


def test_steps_are_the_epochs_or_what_the_time_allows(modules, monkeypatch, tmp_path):
    module = modules["run"]

    def probe(out, arm, *, folder, scale, num_steps, seed):
        folder.mkdir(exist_ok=True)
        speeds = (5.0, 40.0, 41.0)  # the first steps are slow
        rows = [{"kind": "train", "step": step, "sequences_per_second": speed} for step, speed in enumerate(speeds)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.setattr(module, "train", probe)
    monkeypatch.setattr(module, "sizes", lambda *_: (500, 30_000))
    asked = {"scale": module.SCALES["cpu"], "num_runs": 9}
    steps = {
        (minutes, most): module.choose_steps(tmp_path, **asked, minutes=minutes, max_steps=most)
        for minutes, most in ((None, None), (None, 7), (9, None), (1000, None))
    }
    assert steps == {(None, None): 1500, (None, 7): 7, (9, None): 225, (1000, None): 1500}  # 45 s at 5 steps a second


def test_a_run_that_was_stopped_is_not_taken_for_finished(modules, monkeypatch, tmp_path):
    module = modules["run"]
    monkeypatch.setattr(module, "run", lambda *_: None)  # bert-train ends with 0 when it is asked to stop
    run = tmp_path / "static-0"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 5}\n')
    (run / "run.json").write_text(json.dumps({"format_version": 1, "options": {"max_steps": 20}, "starts": [{}]}))
    with pytest.raises(click.ClickException, match="was stopped; the same command goes on"):
        module.train(tmp_path, "static", folder=run, scale=module.SCALES["cpu"], num_steps=20, seed=0)


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """40 documents of a few sentences."""
    path = tmp_path_factory.mktemp("text") / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in iter_texts(40)))
    return path


@pytest.mark.slow
def test_miniature_goes_the_whole_way_and_then_has_nothing_left_to_do(documents, study, tmp_path, capsys):
    commands, run_study = study
    out = tmp_path / "study"
    arguments = ["--out", out, "--input", documents, "--seeds", 2, "--train-chars", 10_000]
    run_study(*arguments, "--max-steps", 3)
    assert [words[0] for words in commands] == ["bertdata"] * 7 + ["bert-train"] * 6
    written = json.loads((out / "results.json").read_text())
    assert set(written["runs"]) == {"dynamic", "static", "none"}
    for arm, seeds in written["runs"].items():
        assert set(seeds) == {"0", "1"}
        for run in seeds.values():
            assert [row["step"] for row in run["held_out"]] == list(range(1, written["plan"]["steps"][arm] + 1))
            assert all(4 < row["pairs"]["mlm_loss"] < 12 for row in run["held_out"])
            assert ("nsp_loss" in run["held_out"][0]["pairs"]) == (arm != "none")
    first = {arm: seeds["0"]["held_out"][0] for arm, seeds in written["runs"].items()}
    assert {row["pairs"]["num_predictions"] for row in first.values()} == {first["static"]["pairs"]["num_predictions"]}
    assert "Differences, paired by seed" in capsys.readouterr().out

    dynamic, static = (list(read_samples(out / "shards" / arm)) for arm in ("dynamic", "static"))
    assert [one.tokens for one in dynamic] == [one.tokens for one in static]
    for several, one in zip(dynamic, static, strict=True):  # the static set is the first of the five
        assert (len(several.mask_sets), len(one.mask_sets)) == (5, 1)
        assert several.mask_sets[0] == one.mask_sets[0]
    keys = {name: keys_of(out / "shards" / name) for name in ("dynamic", "none", "eval-pairs", "eval-singles")}
    assert keys["dynamic"].isdisjoint(keys["eval-pairs"] | keys["eval-singles"])
    assert keys["none"].isdisjoint(keys["eval-pairs"] | keys["eval-singles"])

    before = (out / "results.md").read_text()
    commands.clear()
    run_study(*arguments, "--max-steps", 3)
    assert commands == []
    assert (out / "results.md").read_text() == before
    with pytest.raises(click.UsageError, match="holds another study: max_steps is 4, not 3"):
        run_study(*arguments, "--max-steps", 4)


@pytest.mark.slow
def test_dry_run_does_nothing(documents, tmp_path):
    paths = os.pathsep.join([str(STUDY.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, STUDY / "run.py", "--out", tmp_path / "study", "--input", documents, "--dry-run"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
        check=True,
    )
    assert "3 arms (dynamic, static, none) x 3 seeds" in result.stdout
    assert not (tmp_path / "study").exists()


def keys_of(folder):
    return {int(key) for sample in read_samples(folder) for key in sample.document_keys}
