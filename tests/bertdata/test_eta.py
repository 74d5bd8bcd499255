"""Builds of a made-up machine, whose stages take other times than expected."""

import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from bertdata.build_state import Snapshot
from bertdata.config import BuildOptions, MaskOptions, PairOptions, TokenizerOptions
from bertdata.costs import STAGES, InputCosts, expected_disk, expected_seconds
from bertdata.eta import RemainingTime
from bertdata.splits import Split

GB = 10**9


def splits_of(num_bytes, *, file_format="jsonl", compression="none"):
    values = {"path": "/a", "start": 0, "stop": num_bytes, "format": file_format, "compression": compression}
    fields = {field.name for field in dataclasses.fields(Split)}
    values |= {name: value for name, value in (("file_bytes", num_bytes), ("file_version", 0)) if name in fields}
    return [Split(**values, language=None)]


def simulate(options, *, speeds, text_scale=1.0, start=None, step=1.0, num_workers=2):
    """Yields (remaining seconds in truth, those estimated) of a build whose stages take `speeds` times as long."""
    splits = splits_of(4 * GB)
    costs = InputCosts.of(splits)
    seconds = expected_seconds(costs, options=options, text_scale=text_scale)
    durations = {stage: seconds[stage] * speeds[stage] for stage in STAGES}
    durations["vocabulary"] *= num_workers
    shares = dict.fromkeys(STAGES, 0.0) | (start or {})
    remaining = RemainingTime(splits, options=options)
    now = 0.0
    while True:
        stage = next((stage for stage in STAGES if shares[stage] < 1 and durations[stage]), "finishing")
        shown = {name: 1.0 if not durations[name] else share for name, share in shares.items()}
        if stage != "finishing" and stage == "vocabulary":
            shown["vocabulary"] = 0.0
        tokens = int(shares["tokenizing"] * costs.tokens * text_scale)
        snapshot = Snapshot(
            stage=stage,
            shares=shown,
            read_bytes=0,
            input_bytes=4 * GB,
            documents=0,
            tokens=tokens,
            tokenized_bytes=int(shares["tokenizing"] * 4 * GB),
            pairs=0,
            portions=0,
            num_portions=1,
            shards=0,
            num_shards=None,
        )
        if not now:  # before the first task nothing is done, not even a stage that there is not
            nothing = dict.fromkeys(STAGES, 0.0) | (start or {})
            remaining.update(dataclasses.replace(snapshot, stage="starting", shares=nothing), now=-1, num_workers=0)
        remaining.update(snapshot, now=now, num_workers=num_workers)
        truth = sum((1 - shares[name]) * durations[name] for name in STAGES)
        yield truth, remaining.seconds(), remaining.share_done
        if stage == "finishing":
            return
        now += step
        shares[stage] = min(1.0, shares[stage] + step / durations[stage])


def speeds_of(*values):
    return dict(zip(STAGES, values, strict=True))


TRAINED = BuildOptions()
GIVEN = BuildOptions(tokenizer=TokenizerOptions(path="x"))


@pytest.mark.parametrize("options", [TRAINED, GIVEN])
@pytest.mark.parametrize("speed", [0.1, 1.0, 7.0])
def test_known_ratios_give_the_truth_for_any_machine(options, speed):
    known = 0
    for truth, estimate, _ in simulate(options, speeds=speeds_of(*[speed] * 4), step=4 * speed):
        if estimate is not None:
            known += 1
            assert estimate == pytest.approx(truth, rel=0.05, abs=3 + 4 * speed)
    assert known > 10


def test_nothing_is_said_before_anything_is_known():
    estimates = [estimate for _, estimate, _ in simulate(GIVEN, speeds=speeds_of(1, 1, 1, 1), step=0.5)]
    assert estimates[:6] == [None] * 6
    assert None not in estimates[40:]


@settings(max_examples=10)
@given(
    st.tuples(st.floats(0.5, 2.0), st.floats(0.7, 1.3), st.floats(0.5, 2.0), st.floats(0.5, 2.0)),
    st.sampled_from([TRAINED, GIVEN]),
    st.floats(0.3, 1.5),
    st.floats(0.0, 0.9),
)
def test_no_wild_jumps_and_true_in_the_end(speeds, options, text_scale, start):
    """Stages that take half or twice as long as expected: what is said stays within that, and moves steadily."""
    words, vocabulary, *others = speeds
    speeds = words, words * vocabulary, *others  # how far a vocabulary is, nobody knows
    first = "reading words" if options is TRAINED else "tokenizing"
    found = {first: start}
    last, total, done = None, None, 0.0
    for truth, estimate, share in simulate(
        options, speeds=speeds_of(*speeds), text_scale=text_scale, start=found, step=4.0
    ):
        assert done <= share <= 1.0 + 1e-9
        done = share
        total = total or truth
        if estimate is None:
            assert last is None
            continue
        if last is not None:
            assert abs(estimate - last) <= 0.25 * total + 4
        last = estimate
        assert estimate <= 5 * truth + 0.05 * total + 5
    assert last == 0.0
    assert done == pytest.approx(1.0)


def test_costs_know_what_is_asked_for():
    costs = InputCosts.of(splits_of(GB))
    plain = expected_seconds(costs, options=GIVEN)
    assert plain["reading words"] == plain["vocabulary"] == 0
    assert expected_seconds(costs, options=TRAINED)["vocabulary"] > 0
    both = dataclasses.replace(GIVEN, max_seq_lengths=(128, 512))
    assert expected_seconds(costs, options=both)["building shards"] == 2 * plain["building shards"]
    more = dataclasses.replace(GIVEN, masks=MaskOptions(num_mask_sets=20))
    assert expected_seconds(costs, options=more)["building shards"] > plain["building shards"]
    packed = InputCosts.of(splits_of(GB, file_format="mediawiki", compression="bz2"))
    assert expected_seconds(packed, options=GIVEN)["tokenizing"] > 2 * plain["tokenizing"]


def test_disk_grows_with_what_is_stored():
    costs = InputCosts.of(splits_of(GB))
    usual = expected_disk(costs, options=GIVEN).usual
    once = dataclasses.replace(GIVEN, pairs=PairOptions(dupe_factor=1))
    assert expected_disk(costs, options=once).usual < 0.7 * usual
    both = dataclasses.replace(GIVEN, max_seq_lengths=(128, 512))
    assert expected_disk(costs, options=both).usual > 1.7 * usual
    assert 0 < expected_disk(costs, options=GIVEN).least < 0.2 * usual
