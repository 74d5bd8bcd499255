"""The comparison with reference curves, and the quickest of the named runs."""

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.reference.curves import (
    FIELDS,
    RUNS,
    SEEDS,
    Curve,
    band,
    departures,
    kept_names,
    load_reference,
    train_curve,
)


def curves_of(name: str) -> dict[int, Curve]:
    return {int(seed): curve for seed, curve in load_reference(name)["curves"].items()}


@pytest.mark.parametrize("name", kept_names())
def test_reference_is_of_the_run_that_its_name_means(name: str) -> None:
    reference = load_reference(name)
    assert reference["options"] == RUNS[name].options
    assert set(curves_of(name)) == set(SEEDS)
    for curve in curves_of(name).values():
        assert curve["step"][-1] == RUNS[name].options["max_steps"]
        assert set(curve) == {"step", *FIELDS}
        assert curve["mlm_loss"][0] == pytest.approx(np.log(RUNS[name].vocab_size), abs=0.6)
        assert curve["mlm_loss"][-1] < curve["mlm_loss"][0] - 1.5
    if name == "topics":
        assert min(curve["nsp_accuracy"][-1] for curve in curves_of(name).values()) > 0.85


@pytest.mark.parametrize("name", kept_names())
def test_each_curve_lies_within_the_band(name: str) -> None:
    curves = list(curves_of(name).values())
    assert [departures(curves, curve) for curve in curves] == [[], [], []]


@pytest.mark.parametrize(
    ("field", "change"), [("mlm_loss", 1.05), ("mlm_loss", 0.95), ("mlm_accuracy", 0.8), ("nsp_loss", 1.5)]
)
def test_curve_that_is_off_by_little_leaves_the_band(field: str, change: float) -> None:
    curves = list(curves_of("topics").values())
    changed = dict(curves[0])
    changed[field] = [value * change for value in curves[0][field]]
    (found,) = departures(curves, changed)
    assert found.startswith(f"{field} is outside at ")


def test_rows_at_other_steps_are_no_match() -> None:
    curves = list(curves_of("topics").values())
    assert departures(curves, {name: values[:-1] for name, values in curves[0].items()})[0].startswith("rows are at")


def test_band_is_that_of_another_seed() -> None:
    """Of curves of pure noise, one in thousands of rows lies outside."""
    noise = np.random.default_rng(0)
    outside = total = 0
    for _ in range(200):
        curves = [{"mlm_loss": noise.normal(3, 0.2, 30).tolist()} for _ in range(4)]
        middle, reach = band(curves[:3], "mlm_loss")
        outside += int((np.abs(np.array(curves[3]["mlm_loss"]) - middle) > reach).sum())
        total += 30
    assert outside / total < 0.01
    assert np.median(reach) < 8 * 0.2


@pytest.mark.slow
def test_quickest_run_lies_within_its_band(tmp_path: Path) -> None:
    run, reference = RUNS["topics"], load_reference("topics")
    data_set = run.make_data(tmp_path / "data")
    assert data_set.manifest.fingerprint == reference["data"]
    curve = train_curve(run, data_set=data_set, seed=0, out=tmp_path / "run")
    assert departures(list(curves_of("topics").values()), curve) == []
