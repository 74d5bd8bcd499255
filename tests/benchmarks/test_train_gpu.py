"""That the benchmark of training on a GPU runs, on the CPU; how fast things are is not a test's business."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from tests.benchmarks import gpu_curve, gpu_parts
from tests.benchmarks.gpu_bet import random_batch
from tests.benchmarks.gpu_measuring import iter_rows, timed
from tests.benchmarks.gpu_ways import OURS, THEIRS, WAYS, Way, train_options
from tests.benchmarks.train_gpu import main
from tests.small_data_set import make_data_set
from trainer.data import open_training_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "shards"
    make_data_set(folder, train_blocks=((200, 200),))
    return folder


def run(*arguments: object, out: Path) -> tuple[Result, dict]:
    settings = ["--device", "cpu", "--model", "tiny", "--length", "128", "--tokens", 128, "--seconds", 0.05]
    command = [*settings, "--backend", "eager", "--out", out, *arguments]
    result = CliRunner().invoke(main, [str(part) for part in command])
    return result, json.loads(out.read_text()) if out.exists() else {}


@pytest.mark.slow
def test_bet_prints_its_table(tmp_path: Path) -> None:
    result, found = run("--part", "bet", out=tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    assert re.search(r"^one product of matrices +[\d.e-]+ TFLOP/s +[\d.]+% of the peak$", result.output, re.M)
    for what in ("layers", "layers, heads, losses"):
        for mode in ("eager", "compiled"):
            assert re.search(rf"^{what} +128 {mode} +[\d,]+ +[\d.]+% +[\d.]+ +[\d.]+$", result.output, re.M)
        assert re.search(rf"^{what} +128 CUDA graph no GPU$", result.output, re.M)
    assert len(found["parts"]["bet"]) == 7
    assert found["device"].startswith("CPU")


@pytest.mark.slow
def test_speed_compares_with_transformers(tmp_path: Path, shards: Path) -> None:
    ways = ("--way", "ours, 64k", "--way", "longest")
    result, found = run("--part", "speed", "--shards", shards, *ways, out=tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    numbers = r" +[\d,]+ +[\d.]+% +[\d.]+ +[\d.]+ +[\d,]+ +[\d.]+% +[\d.]+% +\d+ +\d+\.\d+$"
    for name in ("ours, 64k tokens", "transformers, padded to longest"):
        assert re.search(rf"^tiny +128  {name}{numbers}", result.output, re.M), result.output
    assert re.search(r"^tiny +128  waits for data +[\d.]+% +1% (reached|missed)$", result.output, re.M)
    assert re.search(r"^tiny +128  against transformers +[\d.]+ x", result.output, re.M)
    ours, longest = found["parts"]["speed"]
    assert ours["padding"] == 0
    assert longest["padding"] > 0.1
    # The same weights and the first batches of the same data, but another dropout.
    assert abs(ours["loss"] - longest["loss"]) < 0.5


@pytest.mark.slow
def test_ways_go_on_when_one_fails(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Way(name="broken", changes={"learning_rate": -1.0})
    fixed = Way(name="fixed shapes", changes={"pad_to_multiple": 64, "activation_checkpointing": True})
    layers = Way(name="layer by layer", by_layer=True, half_residuals=True, half_weights=True)
    held = Way(name="held", compile="reduce-overhead")
    monkeypatch.setattr(gpu_parts, "WAYS", (Way(name="eager", compile=None), broken, fixed, layers, held))
    result, found = run("--part", "ways", "--shards", shards, out=tmp_path / "found.json")
    assert result.exit_code == 1
    assert re.search(r"^tiny +128  broken +TrainingError: --learning-rate is -1.0", result.output, re.M)
    assert "1 ways failed" in result.output
    assert [row.get("mfu", 0) > 0 for row in found["parts"]["ways"]] == [True, False, True, True, True]
    assert re.search(r"^  eager +1\.00 x of eager$", result.output, re.M)


@pytest.mark.slow
def test_curves_of_both_libraries_lie_on_each_other(tmp_path: Path, shards: Path) -> None:
    settings = ("--part", "curve", "--shards", shards, "--curve-batch-size", 16, "--curve-steps", 12)
    ours, _ = run(*settings, "--curve", OURS, "--keep", tmp_path, out=tmp_path / "found.json")
    assert ours.exit_code == 0, ours.output
    assert "transformers.json is not there" in ours.output
    both, found = run(*settings, "--curve", THEIRS, "--keep", tmp_path, out=tmp_path / "found.json")
    assert both.exit_code == 0, both.output
    assert found["curve"]["steps"] == 12
    assert found["curve"]["mean"] < 0.01
    assert found["curve"]["reached"]
    curves = [json.loads((tmp_path / f"curve-{name}.json").read_text())["losses"] for name in (OURS, THEIRS)]
    assert len(curves[0]) == len(curves[1]) == 12
    assert curves[0][-1] < curves[0][0]
    assert (tmp_path / "curve.svg").stat().st_size > 1000


@pytest.mark.slow
def test_shards_for_the_benchmark_are_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--make", str(tmp_path / "made"), "--megabytes", "0.3"])
    assert result.exit_code == 0, result.output
    assert re.search(r"made: [\d.]+ MiB$", result.output, re.M)
    for length in gpu_parts.LENGTHS:
        data = open_training_data([str(tmp_path / "made" / str(length))])
        assert data.max_seq_length == length
        assert data.num_samples("train") > 50


def settings_of(way: Way, shards: Path) -> dict:
    values = {"device": "cpu", "model": "tiny", "dropout": 0.1, "peak": 1e12, "seconds": 0.05}
    return values | {"way": way.to_json(), "shards": str(shards)}


@pytest.mark.slow
def test_way_in_a_process_of_its_own_ends_alone(shards: Path) -> None:
    way = Way(name="eager", compile=None, tokens=128)
    (row,) = iter_rows("way", settings_of(way, shards), isolated=True, seconds=300)
    assert row["num_steps"] >= 3
    (row,) = iter_rows("way", settings_of(way, shards), isolated=True, seconds=1)
    assert row == {"error": "not done after 1 s"}


def test_time_that_is_over_is_said(tmp_path: Path, shards: Path) -> None:
    result, found = run("--shards", shards, "--minutes", 0, "--keep", tmp_path, out=tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    rows = [row for part in found["parts"].values() for row in part]
    assert sorted(found["parts"]) == ["bet", "curve", "speed", "ways"]
    assert len(rows) > 20
    assert all(row.get("skipped") in ("no time left", "no GPU") for row in rows if "tflops" not in row)


def test_benchmark_goes_on_without_transformers(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result, found = run("--part", "speed", "--shards", shards, "--minutes", 0, out=tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    assert "transformers is not installed" in result.output
    assert {row["library"] for row in found["parts"]["speed"]} == {OURS}


def test_benchmark_says_what_is_missing(tmp_path: Path) -> None:
    result, _ = run("--part", "speed", out=tmp_path / "found.json")
    assert result.exit_code == 1
    assert "give --shards" in result.output
    if not torch.cuda.is_available():
        result = CliRunner().invoke(main, ["--part", "bet"])
        assert result.exit_code == 1
        assert "no GPU" in result.output


def test_distance_of_curves_is_that_of_their_moving_means() -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, 5000)
    falling = np.linspace(10, 2, 5000)
    apart = gpu_curve.distance((falling + noise).tolist(), (falling + noise + 0.1).tolist())
    assert apart["mean"] == pytest.approx(0.1)
    assert apart["most"] == pytest.approx(0.1)
    assert apart["noise"] == pytest.approx(0.3, rel=0.1)
    assert apart["window"] == 100
    late = np.where(np.arange(5000) < 4000, 0.0, 1.0)
    apart = gpu_curve.distance(falling.tolist(), (falling + late).tolist())
    assert apart["most"] == pytest.approx(1)
    assert apart["at"] >= 4000
    short = gpu_curve.distance(falling.tolist(), falling[:70].tolist())  # one that was cut short
    assert (short["steps"], short["mean"]) == (70, 0)
    assert gpu_curve.smoothed([1.0, 2.0, 3.0], 2).tolist() == [1.5, 2.5]


def test_random_batch_has_the_tokens_asked_for() -> None:
    batch = random_batch(128, num_tokens=1000)
    lengths = batch.cu_seqlens.diff()
    assert int(batch.cu_seqlens[-1]) == len(batch.token_ids) == 1000
    assert int(lengths.min()) > 0
    assert int(lengths.max()) == batch.max_seqlen == 128
    assert len(set(lengths.tolist())) > 3
    assert len(batch.mask_rows) == len(batch.mask_labels) == 150
    assert batch.num_samples == len(lengths)


def test_micro_batches_have_about_the_tokens_asked_for(shards: Path) -> None:
    data = open_training_data([str(shards)])
    for library, longest in ((OURS, data.num_tokens("train") / data.num_samples("train")), (THEIRS, 24)):
        way = Way(name="", library=library, tokens=4096, micro_batches=2)
        options = train_options(way, data=data, model="tiny", device=CPU, dropout=0.1)
        assert options.batch_size == 2 * options.micro_batch_size
        assert 0.7 < options.micro_batch_size * longest / 4096 < 1.5
        assert options.micro_batch_size.bit_count() == 1


def test_all_ways_are_options_that_can_be(shards: Path) -> None:
    data = open_training_data([str(shards)])
    for way in WAYS:
        train_options(way, data=data, model="base", device=CPU, dropout=0.1)
        assert Way(**json.loads(json.dumps(way.to_json()))) == way
    assert len({way.name for way in WAYS}) == len(WAYS)


def test_timed_counts_steps_behind_the_first_ones() -> None:
    calls: list[int] = []
    timing = timed(lambda: calls.append(1), device=CPU, seconds=0.001, warm_up=3)
    assert len(calls) == timing.num_steps + 4
    assert timing.seconds >= 0
