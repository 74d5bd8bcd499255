from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from bertdata.data_set import DataSet, open_data_set
from bertdata.errors import ShardError
from bertdata.shard_reading import iter_blocks
from trainer.loader import Batch, BlockReader, Loader, make_batch
from trainer.plan import Plan
from trainer.samples import span_indices

NewDataSet = Callable[..., DataSet]


def slow_samples(data_set: DataSet, split: str) -> dict[tuple[int, int, int], dict[str, list[int]]]:
    """Returns each sample and mask set by (block, sample, set), read in the plainest way."""
    found, number = {}, 0
    for shard in data_set.manifest.shards:
        if shard.split != split:
            continue
        for block in iter_blocks(data_set.folder / shard.name):
            next_mask = 0
            for sample in range(block.num_samples):
                tokens = block.tokens[block.token_offsets[sample] : block.token_offsets[sample + 1]].tolist()
                for mask_set in range(block.num_predictions.shape[1]):
                    count = int(block.num_predictions[sample, mask_set])
                    positions = block.mask_positions[next_mask : next_mask + count].tolist()
                    shown = list(tokens)
                    for position, token in zip(positions, block.mask_tokens[next_mask:].tolist(), strict=False):
                        shown[position] = token
                    next_mask += count
                    found[number, sample, mask_set] = {
                        "input": shown,
                        "types": [int(place >= block.segment_b[sample]) for place in range(len(tokens))],
                        "positions": positions,
                        "labels": [tokens[position] for position in positions],
                        "next": [int(block.next_sentence_label[sample])],
                    }
            number += 1
    return found


def unpack(batch: Batch) -> list[dict[str, list[int]]]:
    """Returns the samples of a batch, and checks what is said twice in it."""
    samples = []
    ends = batch.cu_seqlens.tolist()
    assert batch.max_seqlen == max(np.diff(ends))
    for number, (start, end) in enumerate(pairwise(ends)):
        assert batch.position_ids[start:end].tolist() == list(range(end - start))
        assert batch.padded_rows[start:end].tolist() == [number * batch.max_seqlen + i for i in range(end - start)]
        masked = (batch.mask_rows >= start) & (batch.mask_rows < end)
        samples.append(
            {
                "input": batch.token_ids[start:end].tolist(),
                "types": batch.token_type_ids[start:end].tolist(),
                "positions": (batch.mask_rows[masked] - start).tolist(),
                "labels": batch.mask_labels[masked].tolist(),
                "next": [int(batch.next_sentence_labels[number])],
            }
        )
    return samples


def key(sample: dict[str, list[int]]) -> tuple[object, ...]:
    return tuple(map(tuple, sample.values()))


def make_plan(data_set: DataSet, *, batch_size: int = 16, window_blocks: int = 2) -> tuple[Plan, BlockReader]:
    reader = BlockReader(data_set, split="train")
    plan = Plan(
        reader.block_sizes,
        num_mask_sets=reader.num_mask_sets,
        seed=3,
        batch_size=batch_size,
        window_blocks=window_blocks,
    )
    return plan, reader


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_loader_gives_the_samples_of_the_plan(data_set: DataSet, world_size: int) -> None:
    plan, reader = make_plan(data_set)
    oracle = slow_samples(data_set, "train")
    for rank in range(world_size):
        loader = Loader(plan, reader, rank=rank, world_size=world_size, micro_batch_size=3)
        for step, batches in enumerate(loader.steps(0, 25)):
            refs = plan.step_samples(step, rank=rank, world_size=world_size)
            triples = zip(refs.block.tolist(), refs.sample.tolist(), refs.mask_set.tolist(), strict=True)
            wanted = [oracle[triple] for triple in triples]
            found = [sample for batch in batches.micro_batches for sample in unpack(batch)]
            assert sorted(map(key, found)) == sorted(map(key, wanted))
            assert batches.num_samples == len(wanted)
            assert batches.num_tokens == sum(len(sample["input"]) for sample in wanted)
            assert batches.num_predictions == sum(len(sample["labels"]) for sample in wanted)


def test_loader_sorts_by_length_before_it_cuts(data_set: DataSet) -> None:
    plan, reader = make_plan(data_set)
    batches = Loader(plan, reader, rank=0, world_size=1, micro_batch_size=5).load(0).micro_batches
    assert [batch.num_samples for batch in batches] == [5, 5, 5, 1]
    lengths = torch.cat([batch.cu_seqlens.diff() for batch in batches])
    assert torch.equal(lengths, lengths.sort(descending=True).values)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_loader_workers_change_nothing(data_set: DataSet, num_workers: int) -> None:
    plan, reader = make_plan(data_set)
    alone = Loader(plan, reader, rank=0, world_size=1, micro_batch_size=7)
    ahead = Loader(plan, reader, rank=0, world_size=1, micro_batch_size=7, num_workers=num_workers)
    for expected, found in zip(alone.steps(5, 40), ahead.steps(5, 40), strict=True):
        for one, other in zip(expected.micro_batches, found.micro_batches, strict=True):
            assert key(unpack(one)[0]) == key(unpack(other)[0])
            assert torch.equal(one.token_ids, other.token_ids)


def test_loader_draws_masks_where_none_are_stored(new_data_set: NewDataSet, data_set: DataSet) -> None:
    bare = new_data_set(num_mask_sets=0)
    refs = Plan(bare.blocks("train").num_samples, num_mask_sets=0, seed=0, batch_size=16).step_samples(0)
    drawn = BlockReader(bare, split="train").read(refs)
    stored = BlockReader(data_set, split="train").read(refs)  # the same samples, with sets 0, 1 and 2 stored
    assert set(refs.mask_set.tolist()) == {0}
    for one, other in zip(unpack(make_batch(drawn)), unpack(make_batch(stored)), strict=True):
        assert one == other


def test_reader_names_a_damaged_block(new_data_set: NewDataSet) -> None:
    broken = new_data_set()
    path = broken.folder / broken.manifest.shards[0].name
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    plan, reader = make_plan(open_data_set(broken.folder))
    with pytest.raises(ShardError, match=path.name):
        list(Loader(plan, reader, rank=0, world_size=1, micro_batch_size=16).steps(0, 10))


def test_span_indices_of_nothing() -> None:
    assert span_indices(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist() == []
    assert span_indices(np.array([4, 9, 2]), np.array([0, 2, 0])).tolist() == [9, 10]
