import dataclasses
import json
from typing import Any

import pytest

from bertdata.errors import TrainingError
from trainer.state import DataState

STATE = DataState(
    data_sets=("0123456789abcdef", "fedcba9876543210"),
    weights=(0.7, 0.3),
    seed=2**64 - 1,
    batch_size=256,
    window_blocks=8,
    shuffle_shards=100,
    samples_seen=512,
)


def test_state_survives_json() -> None:
    again = DataState.from_json(json.loads(json.dumps(STATE.to_json())))
    assert again == STATE
    bare = DataState(data_sets=("00",), seed=0, batch_size=8)
    assert DataState.from_json(json.loads(json.dumps(bare.to_json()))) == bare


def test_state_is_small() -> None:
    many = dataclasses.replace(
        STATE, data_sets=("0123456789abcdef",) * 16, weights=(0.0123456789,) * 16, samples_seen=10**15
    )
    assert len(json.dumps(many.to_json())) < 1000


def test_state_counts_steps() -> None:
    assert STATE.step == 2
    assert STATE.at_step(10).samples_seen == 2560


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 18446744073709551615, not 1"),
        ({"batch_size": 128}, "batch_size is 256, not 128"),
        ({"data_sets": ("0123456789abcdef",)}, "data_sets is 0123456789abcdef, fedcba9876543210, not 0123456789abcdef"),
        ({"weights": None}, "weights is 0.7, 0.3, not the default"),
        ({"window_blocks": None}, "window_blocks is 8, not the default"),
        ({"shuffle_shards": 99}, "shuffle_shards is 100, not 99"),
    ],
)
def test_state_of_another_order_is_refused(change: dict[str, Any], message: str) -> None:
    other = dataclasses.replace(STATE, **change)
    with pytest.raises(TrainingError, match=rf"{message}\. Give .*processes, loader workers, .* may differ"):
        other.check_continues(STATE)


def test_state_of_the_same_order_is_taken_at_any_sample() -> None:
    STATE.at_step(99).check_continues(STATE)


@pytest.mark.parametrize("samples_seen", [1, -256, "512", None, 2.5])
def test_state_that_was_never_saved_is_refused(samples_seen: Any) -> None:
    state = DataState.from_json(STATE.to_json() | {"samples_seen": samples_seen})
    with pytest.raises(TrainingError, match="no whole number of batches of 256; give a state as it was saved"):
        state.check_continues(STATE)
    with pytest.raises(TrainingError, match="cannot be continued so: seed is"):
        state.check_continues(dataclasses.replace(STATE, seed=1))


def test_state_of_another_version_is_refused() -> None:
    with pytest.raises(TrainingError, match="has format version 2; this release continues version 1"):
        DataState.from_json(STATE.to_json() | {"format_version": 2})
    with pytest.raises(TrainingError, match="has format version None"):
        DataState.from_json({"step": 3})
    with pytest.raises(TrainingError, match="has the fields .* it must have"):
        DataState.from_json({"format_version": 1, "seed": 0})
