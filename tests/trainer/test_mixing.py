"""How often samples of one document meet in a batch, against a shuffle of the whole data set."""

import numpy as np
import pytest

from trainer.order import BlockTable, Order
from trainer.plan import num_lanes_of

SHARD_BLOCKS, BLOCK_SAMPLES, DOCUMENT_SAMPLES = 16, 32, 16


def documents_of(num_shards: int) -> np.ndarray:
    """Returns the document of each sample: all samples of a document lie anywhere in one shard."""
    generator = np.random.default_rng(0)
    numbers = np.repeat(np.arange(SHARD_BLOCKS * BLOCK_SAMPLES // DOCUMENT_SAMPLES), DOCUMENT_SAMPLES)
    return np.concatenate([generator.permutation(numbers) + shard * len(numbers) for shard in range(num_shards)])


def lane_samples(order: Order, lane: int, *, start: int, stop: int) -> np.ndarray:
    """Returns the ids of samples of a lane."""
    parts, position = [], start
    while position < stop:
        window = order.window(lane, position)
        rows = slice(position - window.start, stop - window.start)
        parts.append(window.blocks[window.part[rows]] * BLOCK_SAMPLES + window.sample[rows])
        position = window.stop
    return np.concatenate(parts)


def meetings(num_shards: int, *, batch_size: int, num_samples: int = 100_000, **options: int) -> float:
    """Returns how many pairs of samples of a document a batch has, for each that a full shuffle has."""
    table = BlockTable(
        sizes=np.full(num_shards * SHARD_BLOCKS, BLOCK_SAMPLES),
        shards=np.repeat(np.arange(num_shards), SHARD_BLOCKS),
        num_mask_sets=1,
    )
    num_lanes = num_lanes_of(batch_size)
    order = Order(table, seed=1, num_lanes=num_lanes, **options)
    num_steps, share = num_samples // batch_size, batch_size // num_lanes
    lanes = [lane_samples(order, lane, start=0, stop=num_steps * share) for lane in range(num_lanes)]
    documents = documents_of(num_shards)
    batches = documents[np.concatenate([lane.reshape(num_steps, share) for lane in lanes], axis=1)]
    counts = [np.unique(batch, return_counts=True)[1] for batch in batches]
    found = sum(int((count * (count - 1) // 2).sum()) for count in counts)
    chance = (DOCUMENT_SAMPLES - 1) / (len(documents) - 1)
    return found / (num_steps * batch_size * (batch_size - 1) / 2 * chance)


@pytest.mark.parametrize(
    ("num_shards", "batch_size"), [(3, 64), (40, 256), (500, 256), (500, 4096), (1500, 1024), (1500, 8192)]
)
def test_samples_of_a_document_meet_at_most_twice_as_often_as_under_a_full_shuffle(
    num_shards: int, batch_size: int
) -> None:
    assert meetings(num_shards, batch_size=batch_size) < 2


def test_fewer_blocks_in_a_window_or_fewer_shards_together_make_them_meet_more_often() -> None:
    assert meetings(1500, batch_size=4096) < 2 < meetings(1500, batch_size=4096, window_blocks=4)
    assert 4 < meetings(300, batch_size=256, shuffle_shards=20) < 15  # 300 / 20, were windows small against groups
