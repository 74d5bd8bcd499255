"""Samples read in the plainest way, and batches taken apart again."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from bertdata.data_set import DataSet
from bertdata.shard_reading import iter_blocks
from trainer.batch import Batch, StepBatches
from trainer.cutting import cut_step
from trainer.data import TrainingData
from trainer.reader import BlockReader

Sample = dict[str, list[int]]


def slow_samples(data_set: DataSet, split: str = "train") -> list[list[Sample]]:
    """Returns each sample of a split as each of its mask sets shows it."""
    found = []
    for shard in data_set.manifest.shards:
        if shard.split != split:
            continue
        for block in iter_blocks(data_set.folder / shard.name):
            next_mask = 0
            for sample in range(block.num_samples):
                tokens = block.tokens[block.token_offsets[sample] : block.token_offsets[sample + 1]].tolist()
                sets = []
                for count in block.num_predictions[sample].tolist():
                    positions = block.mask_positions[next_mask : next_mask + count].tolist()
                    shown = list(tokens)
                    for position, token in zip(positions, block.mask_tokens[next_mask:].tolist(), strict=False):
                        shown[position] = token
                    next_mask += count
                    sets.append(
                        {
                            "input": shown,
                            "types": [int(place >= block.segment_b[sample]) for place in range(len(tokens))],
                            "positions": positions,
                            "labels": [tokens[position] for position in positions],
                            "next": [int(block.next_sentence_label[sample])],
                        }
                    )
                found.append(sets)
    return found


def unpack(batch: Batch) -> list[tuple[int, Sample]]:
    """Returns the samples of a batch, each with its id."""
    samples = []
    ends = batch.cu_seqlens.tolist()[: batch.num_samples + 1]
    assert batch.max_seqlen >= max(end - start for start, end in pairwise(ends))
    for number, (start, end) in enumerate(pairwise(ends)):
        masked = (batch.mask_rows >= start) & (batch.mask_rows < end) & (batch.mask_labels >= 0)
        sample = {
            "input": batch.token_ids[start:end].tolist(),
            "types": batch.token_type_ids[start:end].tolist(),
            "positions": (batch.mask_rows[masked] - start).tolist(),
            "labels": batch.mask_labels[masked].tolist(),
            "next": [int(batch.next_sentence_labels[number])],
        }
        samples.append((int(batch.sample_ids[number]), sample))
    return samples


def unpack_step(batches: StepBatches) -> list[tuple[int, Sample]]:
    """Returns the samples of a step in the order of their ids, and checks what is said twice."""
    samples = [sample for batch in batches.micro_batches if batch.num_samples for sample in unpack(batch)]
    assert len(samples) == batches.num_samples
    assert batches.num_tokens == sum(len(sample["input"]) for _, sample in samples)
    assert batches.num_predictions == sum(len(sample["labels"]) for _, sample in samples)
    return sorted(samples, key=lambda pair: (pair[0], pair[1]["positions"]))


def one_batch(data_set: DataSet, *, batch_size: int, mask_set: int = 0) -> Batch:
    """Returns samples from all over the training split as one batch."""
    reader = BlockReader([data_set], split="train")
    numbers = np.arange(batch_size) * reader.num_samples // batch_size
    shown, ids = reader.show(numbers, mask_set=mask_set)
    cutting = TrainingData(data_sets=(data_set,)).make_cutting()
    (batch,) = cut_step(shown, ids, 0, batch_size, cutting=cutting).micro_batches
    return batch


def masks_of(reader: BlockReader, sample_ids: Sequence[int], *, mask_set: int) -> list[tuple[list[int], list[int]]]:
    """Returns the positions and shown tokens of samples, in the given order."""
    shown, found = reader.show(np.array(sample_ids), mask_set=mask_set)
    masks = {}
    for row, number in enumerate(found.tolist()):
        rows = shown.mask_rows[shown.mask_offsets[row] : shown.mask_offsets[row + 1]]
        masks[number] = ((rows - shown.token_offsets[row]).tolist(), shown.token_ids[rows].tolist())
    return [masks[number] for number in sample_ids]


def sample_ids(block_sizes: list[int], pairs: list[tuple[int, int]]) -> list[int]:
    """Returns the ids of samples given by block and number in the block."""
    starts = [0, *accumulate(block_sizes)]
    return [starts[block] + sample for block, sample in pairs]
