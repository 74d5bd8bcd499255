import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from tests.trainer.oracle import unpack, unpack_step
from trainer.batch import Batch, StepBatches
from trainer.config import ModelOptions
from trainer.cutting import Cutting, _find_cuts, cut_step, deal
from trainer.data import TrainingData
from trainer.loader import Loader
from trainer.metrics import pretraining_sums
from trainer.model import build_model

SIZES = {"max_seq_length": 512, "max_predictions": 77, "pad_token_id": 0}


def cut(data_set: DataSet, numbers: list[int], **options: float) -> StepBatches:
    data = TrainingData(data_sets=(data_set,))
    shown, ids = data.open_split("train").show(np.array(numbers), mask_set=1)
    return cut_step(shown, ids, 0, len(ids), cutting=data.make_cutting(**options))  # type: ignore[arg-type]


def padding_of(batches: StepBatches) -> int:
    return sum(batch.max_seqlen * batch.num_samples for batch in batches.micro_batches) - batches.num_tokens


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return build_model(
        ModelOptions(
            vocab_size=120,
            num_hidden_layers=2,
            hidden_size=16,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout_prob=0.0,
            initializer_range=0.3,
        ),
        seed=1,
    ).double()


@given(
    lengths=st.lists(st.integers(2, 512), min_size=1, max_size=300),
    micro_batch_size=st.none() | st.integers(1, 300),
    max_padding=st.floats(1e-6, 0.3),
)
def test_cuts_keep_the_size_and_the_padding(
    lengths: list[int], micro_batch_size: int | None, max_padding: float
) -> None:
    descending = np.sort(np.array(lengths))[::-1]
    cuts = _find_cuts(descending, cutting=Cutting(micro_batch_size=micro_batch_size, max_padding=max_padding, **SIZES))
    groups = [descending[start:stop] for start, stop in pairwise(cuts)]
    assert np.concatenate(groups).tolist() == descending.tolist()
    assert all(0 < len(group) <= (micro_batch_size or 300) for group in groups)
    assert sum(int(group[0]) * len(group) for group in groups) - sum(lengths) <= max_padding * sum(lengths)
    free = _find_cuts(descending, cutting=Cutting(micro_batch_size=micro_batch_size, **SIZES))
    assert len(free) - 1 == -(-len(lengths) // (micro_batch_size or 300))


def test_padding_stays_below_what_is_allowed_with_few_micro_batches(data_set: DataSet) -> None:
    numbers = list(range(160))
    free, limited = cut(data_set, numbers), cut(data_set, numbers, max_padding=0.03)
    assert padding_of(free) > 0.3 * free.num_tokens
    assert padding_of(limited) <= 0.03 * limited.num_tokens
    assert len(limited.micro_batches) < 20
    assert unpack(free.micro_batches[0]) == [pair for batch in limited.micro_batches for pair in unpack(batch)]


def shapes(batch: Batch) -> list[int]:
    return [batch.max_seqlen, *(len(value) for value in batch if isinstance(value, torch.Tensor))]


@pytest.mark.parametrize("multiple", [1, 7, 16, 24, 100, 256, 500])
def test_fixed_shapes_change_nothing_but_shapes(data_set: DataSet, model: torch.nn.Module, multiple: int) -> None:
    numbers = list(range(0, 160, 3))
    losses, gradients = [], []
    for options in ({}, {"pad_to_multiple": multiple}):
        (batch,) = cut(data_set, numbers, **options).micro_batches
        mlm_loss, nsp_loss, sums = pretraining_sums(model(batch), batch)
        model.zero_grad()
        (mlm_loss + nsp_loss).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
        losses.append(sums)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-10, atol=1e-10)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert len(batch.token_ids) % multiple == 0
    assert batch.max_seqlen % multiple == 0 or batch.max_seqlen == 24  # the data set's longest
    by_share = math.ceil(0.15 * len(batch.token_ids) + len(numbers) / 2)
    (bare,) = cut(data_set, numbers).micro_batches
    expected = max(min(4 * len(numbers), by_share, len(batch.token_ids)), len(bare.mask_rows))
    assert len(batch.mask_rows) == expected
    assert len(set(batch.mask_rows.tolist())) == len(batch.mask_rows)
    assert unpack(batch) == unpack(bare)


def test_fixed_shapes_are_few(data_set: DataSet) -> None:
    generator = np.random.default_rng(0)
    found, free = set(), set()
    for _ in range(50):
        numbers = generator.choice(160, size=32, replace=False).tolist()
        found |= {tuple(shapes(batch)) for batch in cut(data_set, numbers, pad_to_multiple=256).micro_batches}
        free |= {tuple(shapes(batch)) for batch in cut(data_set, numbers).micro_batches}
    assert len(found) <= 2
    assert len(free) > 30


def test_fixed_shapes_of_a_share_without_samples(data_set: DataSet, model: torch.nn.Module) -> None:
    data = TrainingData(data_sets=(data_set,))
    shown, ids = data.open_split("train").show(np.array([3]), mask_set=0)
    for options in ({}, {"pad_to_multiple": 16}):
        batches = cut_step(shown, ids, 0, 0, cutting=data.make_cutting(**options))
        (batch,) = batches.micro_batches
        mlm_loss, nsp_loss, sums = pretraining_sums(model(batch), batch)
        model.zero_grad()
        (mlm_loss + nsp_loss).backward()
        assert float((mlm_loss + nsp_loss).detach()) == 0
        assert not sums.any()
        for parameter in model.parameters():
            assert parameter.grad is None or not parameter.grad.any()


REFUSED = [
    {"micro_batch_size": 0},
    {"pad_to_multiple": 0},
    {"max_padding": 0.0},
    {"max_padding": 0.1, "is_dealt": True},
]


@pytest.mark.parametrize("change", REFUSED)
def test_cutting_refuses_what_cannot_be(change: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match="it must be|leave one of the two out"):
        Cutting(**SIZES, **change)  # type: ignore[arg-type]


@given(
    shares=st.lists(st.lists(st.integers(2, 512), max_size=40), min_size=1, max_size=6),
    micro_batch_size=st.none() | st.integers(1, 50),
)
def test_dealt_samples_come_once_and_make_equal_micro_batches(
    shares: list[list[int]], micro_batch_size: int | None
) -> None:
    cutting = Cutting(micro_batch_size=micro_batch_size, is_dealt=True, **SIZES)
    lengths = np.concatenate([np.sort(np.array(share, dtype=np.int64))[::-1] for share in shares])
    counts = np.array([len(share) for share in shares])
    order = deal(counts, cutting=cutting)
    order = np.arange(len(lengths)) if order is None else order
    assert sorted(order.tolist()) == list(range(len(lengths)))
    for start, stop in pairwise([0, *np.cumsum(counts).tolist()]):
        assert sorted(order[start:stop].tolist()) == list(range(start, stop))  # of its own share
        dealt = lengths[order[start:stop]]
        groups = [dealt[first:last] for first, last in pairwise(_find_cuts(dealt, cutting=cutting))]
        assert len(groups) == -(-len(dealt) // (micro_batch_size or 300))
        assert sum(len(group) for group in groups) == len(dealt)
        if groups:
            assert max(len(group) for group in groups) - min(len(group) for group in groups) <= 1
            assert all(group[0] == group.max() for group in groups)  # which is taken for S
            # Each round of dealing differs by no more than from the first to the last card, and these follow each other.
            sums = [int(group.sum()) for group in groups]
            assert max(sums) - min(sums) <= dealt.max()


def test_dealt_share_has_the_gradient_of_one_that_is_cut(data_set: DataSet, model: torch.nn.Module) -> None:
    data = TrainingData(data_sets=(data_set,))
    plan, reader = data.make_plan(data.initial_state(seed=0, batch_size=64)), data.open_split("train")
    gradients, samples, tokens = [], [], []
    for options in ({}, {"is_dealt": True}, {"is_dealt": True, "pad_to_multiple": 64}):
        cutting = data.make_cutting(micro_batch_size=24, **options)  # type: ignore[arg-type]
        steps = list(Loader(plan, reader, rank=0, world_size=1, cutting=cutting).steps(3, 7))
        model.zero_grad()
        for batch in steps[0].micro_batches:
            mlm_loss, nsp_loss, _ = pretraining_sums(model(batch), batch)
            (mlm_loss + nsp_loss).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
        samples.append([unpack_step(step) for step in steps])
        tokens.append([int(batch.cu_seqlens[batch.num_samples]) for step in steps for batch in step.micro_batches])
    assert samples[0] == samples[1] == samples[2]
    assert max(tokens[0]) > 1.5 * min(tokens[0])
    assert max(tokens[1]) < 1.2 * min(tokens[1])
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


def test_dealt_micro_batches_with_fixed_shapes_have_few_shapes(data_set: DataSet) -> None:
    data = TrainingData(data_sets=(data_set,))
    plan, reader = data.make_plan(data.initial_state(seed=0, batch_size=64)), data.open_split("train")
    found = []
    for options in ({"pad_to_multiple": 32}, {"pad_to_multiple": 32, "is_dealt": True}):
        cutting = data.make_cutting(micro_batch_size=16, **options)  # type: ignore[arg-type]
        steps = Loader(plan, reader, rank=0, world_size=1, cutting=cutting).steps(0, 40)
        found.append({tuple(shapes(batch)) for step in steps for batch in step.micro_batches})
    assert len(found[1]) < 4 < len(found[0])


@pytest.mark.slow
def test_compiled_model_takes_batches_of_all_shapes_in_one_graph(data_set: DataSet, model: torch.nn.Module) -> None:
    compiled = copy.deepcopy(model)
    compiled.compile(dynamic=True, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    for options in ({"micro_batch_size": 30}, {"micro_batch_size": 30, "pad_to_multiple": 64}):
        for batch in cut(data_set, list(range(0, 160, 2)), **options).micro_batches:
            expected, found = (pretraining_sums(one(batch), batch)[2] for one in (model, compiled))
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
