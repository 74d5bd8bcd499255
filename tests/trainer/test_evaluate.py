import math
from collections import Counter
from contextlib import nullcontext

import pytest
import torch

from bertdata.data_set import DataSet
from bertdata.shard_reading import iter_blocks
from trainer.config import ModelOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.evaluate import evaluate, held_out_share
from trainer.model import BertForPreTraining, build_model

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
MODEL = ModelOptions(vocab_size=120, num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=32)


def run(model: BertForPreTraining, data_set: DataSet, **changes: int) -> dict[str, float]:
    data = TrainingData(data_sets=(data_set,))
    cutting = data.make_cutting(micro_batch_size=changes.pop("micro_batch_size", 8))
    values = {"max_samples": None, "next_sentence": True, "vocab_size": 120} | changes
    reader = data.open_split("eval")
    return evaluate(model, reader, world=ALONE, cutting=cutting, autocast=nullcontext(), **values)


@pytest.mark.parametrize("max_samples", [None, 35, 7, 1000])
def test_shares_of_all_processes_are_the_first_samples_of_each_data_set(max_samples: int | None) -> None:
    sizes = [30, 1, 11]
    whole = held_out_share(sizes, max_samples=max_samples, rank=0, world_size=1).tolist()
    assert len(whole) == min(max_samples or 42, 42)
    ranges = [range(0, 30), range(30, 31), range(31, 42)]
    chosen = [[number for number in whole if number in numbers] for numbers in ranges]
    assert [number for part in chosen for number in part] == whole
    for numbers, found in zip(ranges, chosen, strict=True):
        assert found == list(numbers)[: len(found)]
        assert abs(len(found) - len(whole) * len(numbers) / 42) <= 1
    for world_size in (2, 3, 8):
        shares = [
            held_out_share(sizes, max_samples=max_samples, rank=rank, world_size=world_size).tolist()
            for rank in range(world_size)
        ]
        assert [number for share in shares for number in share] == whole


def test_evaluate_does_not_depend_on_micro_batches_or_training_mode(data_set: DataSet) -> None:
    model = build_model(MODEL)
    one, other = run(model, data_set), run(model.eval(), data_set, micro_batch_size=41)
    assert one == pytest.approx(other, rel=1e-6)
    assert one["num_samples"] == 41
    assert one["mlm_loss"] == pytest.approx(math.log(120), abs=0.2)


def test_evaluate_restores_the_training_mode(data_set: DataSet) -> None:
    model = build_model(MODEL)
    run(model, data_set)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_evaluate_baseline_is_the_share_of_the_most_frequent_label(data_set: DataSet) -> None:
    labels: Counter[int] = Counter()
    (shard,) = [shard for shard in data_set.manifest.shards if shard.split == "eval"]
    for block in iter_blocks(data_set.folder / shard.name):
        start = 0
        for sample, counts in enumerate(block.num_predictions.tolist()):
            positions = block.mask_positions[start : start + counts[0]]
            labels.update(block.tokens[block.token_offsets[sample] + positions].tolist())
            start += sum(counts)
    result = run(build_model(MODEL), data_set)
    assert result["num_predictions"] == labels.total()
    assert result["mlm_baseline"] == labels.most_common(1)[0][1] / labels.total()
