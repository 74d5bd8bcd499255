import itertools
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from trainer.schedule import rate_at

SCHEDULES = st.tuples(st.integers(0, 40), st.integers(0, 80)).map(
    lambda pair: {"warmup_steps": pair[0], "num_steps": pair[0] + pair[1] + 1}
)
SHAPES = st.fixed_dictionaries(
    {"decay_power": st.sampled_from([0.25, 0.5, 1.0, 2.0]), "decay_to": st.sampled_from([0.0, 0.02, 0.5, 1.0])}
)
STARTS = st.sampled_from(["peak", "start"])


def test_rate_warms_up_and_falls_linearly() -> None:
    rates = [rate_at(step, peak=4.0, warmup_steps=4, num_steps=12) for step in range(12)]
    assert rates == pytest.approx([1, 2, 3, 4, 4, 3.5, 3, 2.5, 2, 1.5, 1, 0.5])
    assert rate_at(12, peak=4.0, warmup_steps=4, num_steps=12) == 0


def test_rate_without_warm_up_starts_at_its_peak() -> None:
    assert rate_at(0, peak=1.0, warmup_steps=0, num_steps=5) == 1.0


def test_rate_that_only_warms_up() -> None:
    assert rate_at(4, peak=1.0, warmup_steps=5, num_steps=5) == 1.0
    assert rate_at(5, peak=1.0, warmup_steps=5, num_steps=5) == 0.0


def test_rate_decays_to_a_share_of_the_peak() -> None:
    rates = [rate_at(step, peak=10.0, warmup_steps=0, num_steps=4, decay_to=0.2) for step in range(6)]
    assert rates == pytest.approx([10, 8, 6, 4, 2, 2])


@given(SCHEDULES, SHAPES, STARTS)
def test_rate_rises_to_its_peak_once_and_then_falls(
    schedule: dict[str, int], shape: dict[str, float], decay_from: str
) -> None:
    num_steps, warmup_steps = schedule["num_steps"], schedule["warmup_steps"]
    rates = [
        rate_at(step, peak=3.0, decay_from=decay_from, **schedule, **shape)  # type: ignore[arg-type]
        for step in range(num_steps + 5)
    ]
    assert all(0 <= rate <= 3.0 for rate in rates)
    warming, decaying = rates[:warmup_steps], rates[warmup_steps:]
    assert all(later > earlier for earlier, later in itertools.pairwise(warming))
    assert all(later <= earlier for earlier, later in itertools.pairwise(decaying))
    if shape["decay_to"] < 1:
        assert all(later < earlier for earlier, later in itertools.pairwise(decaying[: num_steps - warmup_steps + 1]))
    if decay_from == "peak":
        assert decaying[0] == pytest.approx(3.0)
    if warmup_steps:
        assert warming[-1] == pytest.approx(3.0)
    assert rates[num_steps] == pytest.approx(3.0 * shape["decay_to"])
    assert all(rate == rates[num_steps] for rate in rates[num_steps:])
    # No jumps but the one where the warm-up ends and the decay was counted from the start.
    steps_down = [earlier - later for earlier, later in itertools.pairwise(decaying[: num_steps - warmup_steps + 1])]
    begin = warmup_steps if decay_from == "peak" else 0
    largest = 3.0 * (1 - shape["decay_to"]) * max(1.0, shape["decay_power"]) / (num_steps - begin)
    if shape["decay_power"] >= 1:
        assert max(steps_down) <= largest + 1e-9


def test_rate_equals_googles_to_one_step() -> None:
    """google-research/bert, optimization.py: polynomial_decay from step 0, replaced by the warm-up before its end."""

    def google(step: int) -> float:
        if step < 100:
            return 1e-4 * step / 100
        return 1e-4 * (1 - min(step, 1000) / 1000)

    rates = [rate_at(step, peak=1e-4, warmup_steps=100, num_steps=1000, decay_from="start") for step in range(1000)]
    assert rates[:99] == pytest.approx([google(step + 1) for step in range(99)])  # theirs begins with a rate of 0
    assert rates[100:] == pytest.approx([google(step) for step in range(100, 1000)])
    assert rates[99] == 1e-4


@pytest.mark.parametrize(("num_steps", "proportion", "warmup_steps"), [(7038, 0.2843, 2000), (1563, 0.128, 200)])
def test_rate_equals_nvidias_to_one_step(num_steps: int, proportion: float, warmup_steps: int) -> None:
    """DeepLearningExamples, schedulers.py, PolyWarmUpScheduler: steps from 1, the power of what is left of all steps."""

    def nvidia(step: int) -> float:
        progress = step / num_steps
        return 6e-3 * (progress / proportion if progress < proportion else math.sqrt(1 - progress))

    rates = [
        rate_at(step, peak=6e-3, warmup_steps=warmup_steps, num_steps=num_steps, decay_power=0.5, decay_from="start")
        for step in range(num_steps)
    ]
    assert rates[:warmup_steps] == pytest.approx([nvidia(step + 1) for step in range(warmup_steps)], rel=1e-3)
    assert rates[warmup_steps:] == pytest.approx(
        [nvidia(step) if step > warmup_steps else nvidia(step + 1) for step in range(warmup_steps, num_steps)], rel=1e-3
    )
