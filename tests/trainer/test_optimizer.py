from typing import Any

import pytest
import torch

from trainer.config import ModelOptions, TrainOptions
from trainer.model import build_model
from trainer.optimizer import learning_rate_at, make_optimizer

MODEL = ModelOptions(vocab_size=9, num_hidden_layers=1, hidden_size=4, num_attention_heads=1, intermediate_size=8)


def options_for(**values: Any) -> TrainOptions:
    given = {"max_steps": 1, "learning_rate": 0.5, "warmup_steps": 0, "batch_size": 1, "micro_batch_size": 1}
    return TrainOptions(out="run", model=MODEL, **(given | values))


def test_learning_rate_warms_up_and_falls_linearly() -> None:
    options = options_for(learning_rate=4.0, warmup_steps=4, max_steps=12)
    rates = [learning_rate_at(step, options) for step in range(12)]
    assert rates == pytest.approx([1, 2, 3, 4, 4, 3.5, 3, 2.5, 2, 1.5, 1, 0.5])
    assert learning_rate_at(12, options) == 0


def test_learning_rate_without_warm_up_starts_at_its_peak() -> None:
    assert learning_rate_at(0, options_for(learning_rate=1.0, max_steps=5)) == 1.0


def test_learning_rate_that_only_warms_up() -> None:
    options = options_for(learning_rate=1.0, warmup_steps=5, max_steps=5)
    assert [learning_rate_at(step, options) for step in (4, 5)] == [1.0, 0.0]


def test_optimizer_decays_neither_biases_nor_layer_norm() -> None:
    model = build_model(MODEL)
    optimizer = make_optimizer(model, options_for(weight_decay=0.5))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        kept = 1.0 if "LayerNorm" in name or name.endswith("bias") else 0.75
        torch.testing.assert_close(parameter.detach(), before[name] * kept, msg=name)


def test_optimizer_leaves_out_what_is_not_trained() -> None:
    model = build_model(MODEL, next_sentence=False)
    optimizer = make_optimizer(model, options_for(weight_decay=0.5))
    in_groups = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert id(model.bert.pooler.dense.weight) not in in_groups
    assert id(model.bert.embeddings.word_embeddings.weight) in in_groups
