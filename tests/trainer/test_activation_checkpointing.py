import dataclasses

import pytest
import torch

from bertdata.data_set import DataSet
from tests.trainer.oracle import one_batch
from tests.trainer.references import Step, step_of_ours
from trainer.batch import Batch
from trainer.config import ModelOptions
from trainer.model import BertForPreTraining, build_model

OPTIONS = ModelOptions(
    vocab_size=120,
    num_hidden_layers=3,
    hidden_size=32,
    num_attention_heads=4,
    intermediate_size=48,
    hidden_dropout_prob=0.2,
)


@pytest.fixture
def batch(data_set: DataSet) -> Batch:
    return one_batch(data_set, batch_size=8)


def model_and_calls(*, is_checkpointed: bool) -> tuple[BertForPreTraining, list[int]]:
    model = build_model(OPTIONS, seed=1, activation_checkpointing=is_checkpointed)
    calls: list[int] = []
    for number, layer in enumerate(model.bert.encoder.layer):
        layer.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    return model, calls


def seeded_step(model: BertForPreTraining, batch: Batch) -> Step:
    torch.manual_seed(3)
    return step_of_ours(model, batch, vocab_size=120)


def check_same(one: Step, other: Step) -> None:
    assert torch.equal(one.mlm_logits, other.mlm_logits)
    assert one.gradients.keys() == other.gradients.keys()
    for name, gradient in one.gradients.items():
        assert torch.equal(gradient, other.gradients[name]), name


def test_checkpointed_gradient_is_the_same_bit_for_bit(batch: Batch) -> None:
    plain, plain_calls = model_and_calls(is_checkpointed=False)
    other, calls = model_and_calls(is_checkpointed=True)
    expected = seeded_step(plain, batch)
    check_same(seeded_step(other, batch), expected)
    assert plain_calls == [0, 1, 2]
    assert calls == [0, 1, 2, 2, 1, 0]  # once more in the backward pass
    torch.manual_seed(4)
    assert not torch.equal(step_of_ours(other, batch, vocab_size=120).mlm_logits, expected.mlm_logits)  # dropout is on


def test_checkpointed_gradient_is_the_same_in_bfloat16(batch: Batch) -> None:
    steps = []
    for is_checkpointed in (False, True):
        model, _ = model_and_calls(is_checkpointed=is_checkpointed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            steps.append(seeded_step(model, batch))
    check_same(*steps)


def test_checkpointed_model_keeps_less_for_the_backward_pass(batch: Batch) -> None:
    kept = []
    for is_checkpointed in (False, True):
        model, _ = model_and_calls(is_checkpointed=is_checkpointed)
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = model(batch)
        kept.append(sum(sizes.values()))
        del outputs
    assert kept[1] < 0.7 * kept[0]


def test_evaluation_computes_nothing_twice(batch: Batch) -> None:
    model, calls = model_and_calls(is_checkpointed=True)
    with torch.no_grad():
        model(batch)
    assert calls == [0, 1, 2]


@pytest.mark.slow
def test_compiled_checkpointed_gradient_is_the_same(batch: Batch) -> None:
    torch._dynamo.reset()
    steps = []
    for is_checkpointed in (False, True):
        options = dataclasses.replace(OPTIONS, num_hidden_layers=1)
        model = build_model(options, seed=1, activation_checkpointing=is_checkpointed)
        model.compile(dynamic=True)
        steps.append(seeded_step(model, batch))
    check_same(*steps)
    torch._dynamo.reset()
