import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.timing import Clock, Lap, Work, remaining_pauses, speed_of


class FakeTime:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_pauses_do_not_count() -> None:
    time = FakeTime()
    clock = Clock(first_step=40, now=time)
    time.seconds += 3
    with clock.pause("evaluation"):
        time.seconds += 50
    time.seconds += 4
    assert clock.end_interval(50) == Lap(10, pytest.approx(7.0))
    time.seconds += 2
    assert clock.end_interval(52) == Lap(2, pytest.approx(2.0))


def test_pauses_do_not_count_when_they_fail() -> None:
    time = FakeTime()
    clock = Clock(first_step=0, now=time)
    with pytest.raises(OSError, match="full"), clock.pause("checkpoint"):
        time.seconds += 9
        raise OSError("full")
    time.seconds += 1
    assert clock.end_interval(1).seconds == pytest.approx(1.0)


def test_remaining_time_has_the_pauses_that_remain() -> None:
    time = FakeTime()
    clock = Clock(first_step=0, now=time)
    assert clock.seconds_left(num_steps=10, pauses={}) is None
    time.seconds += 10
    clock.end_interval(10)
    assert clock.seconds_left(num_steps=10, pauses={"evaluation": 3}) == pytest.approx(10.0)  # none seen so far
    for seconds in (4, 6):
        with clock.pause("evaluation"):
            time.seconds += seconds
    assert clock.seconds_left(num_steps=10, pauses={"evaluation": 3, "checkpoint": 1}) == pytest.approx(25.0)


def test_first_interval_counts_only_while_there_is_no_other() -> None:
    time = FakeTime()
    clock = Clock(first_step=0, now=time)
    time.seconds += 500  # compiling
    clock.end_interval(10)
    assert clock.seconds_left(num_steps=10, pauses={}) == pytest.approx(500)
    time.seconds += 5
    clock.end_interval(20)
    assert clock.seconds_left(num_steps=10, pauses={}) == pytest.approx(5)
    time.seconds += 10
    clock.end_interval(30)
    assert 5 < clock.seconds_left(num_steps=10, pauses={}) < 10  # type: ignore[operator]


@given(max_steps=st.integers(1, 60), every=st.integers(1, 70), step=st.integers(1, 60))
def test_remaining_pauses_are_those_that_come(max_steps: int, every: int, step: int) -> None:
    come = [number for number in range(step + 1, max_steps + 1) if number % every == 0 or number == max_steps]
    assert remaining_pauses(min(step, max_steps), max_steps=max_steps, every=every) == len(come)


def test_remaining_pauses_at_the_ends_of_epochs() -> None:
    # 100 samples in batches of 16: epochs end in steps 7, 13, 19, 25; the run with step 30
    assert [remaining_pauses(step, max_steps=30, every=100 / 16) for step in (1, 8, 14, 26, 30)] == [5, 4, 3, 1, 0]


def test_speed_is_per_second_and_device() -> None:
    work = Work(num_samples=40, num_tokens=900.0, padding=0.1, flops=6e12)
    speed = speed_of(work, Lap(10, 2.0), seconds_waited=0.5, num_devices=3, peak=4e12)
    assert speed == {
        "padding": pytest.approx(0.1),
        "data_wait": 0.25,
        "sequences_per_second": 20.0,
        "tokens_per_second": 450.0,
        "tflops_per_device": pytest.approx(1.0),
        "mfu": pytest.approx(0.25),
    }
    assert "mfu" not in speed_of(work, Lap(10, 2.0), seconds_waited=0.0, num_devices=3, peak=None)
