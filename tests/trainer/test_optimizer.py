import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bertdata.errors import TrainingError
from trainer.config import ModelOptions, TrainOptions
from trainer.lamb import FAR_ON
from trainer.model import build_model
from trainer.optimizer import clip_by_global_norm, is_decayed, load_optimizer_state, make_optimizer

MODEL = ModelOptions(vocab_size=9, num_hidden_layers=1, hidden_size=4, num_attention_heads=1, intermediate_size=8)


def options_for(**values: Any) -> TrainOptions:
    given = {"max_steps": 1, "learning_rate": 0.5, "warmup_steps": 0, "batch_size": 1, "micro_batch_size": 1}
    return TrainOptions(out="run", model=MODEL, **(given | values))


def fill_gradients(model: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class Google:
    """AdamWeightDecayOptimizer of google-research/bert, stated plainly: no bias correction, decay beside the update."""

    def __init__(self, weights: dict[str, Tensor], *, decay: float, betas: tuple[float, float], eps: float) -> None:
        self.weights, self.decay, self.betas, self.eps = weights, decay, betas, eps
        self.moments = {name: (torch.zeros_like(weight), torch.zeros_like(weight)) for name, weight in weights.items()}

    def step(self, gradients: dict[str, Tensor], rate: float) -> None:
        for name, weight in self.weights.items():
            m, v = self.moments[name]
            m = self.betas[0] * m + (1 - self.betas[0]) * gradients[name]
            v = self.betas[1] * v + (1 - self.betas[1]) * gradients[name] ** 2
            self.moments[name] = (m, v)
            update = m / (v.sqrt() + self.eps)
            if not any(word in name for word in ("LayerNorm", "layer_norm", "bias")):
                update = update + self.decay * weight
            self.weights[name] = weight - rate * update


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_without_bias_correction_equals_googles_optimizer(dtype: torch.dtype) -> None:
    model = build_model(MODEL).to(dtype)
    google = Google(weights_of(model), decay=0.1, betas=(0.8, 0.98), eps=1e-5)
    options = options_for(weight_decay=0.1, adam_beta1=0.8, adam_beta2=0.98, adam_epsilon=1e-5, bias_correction=False)
    optimizer = make_optimizer(model, options)
    for step in range(30):
        rate = 0.01 * (1 + math.sin(step))
        fill_gradients(model, seed=step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        google.step({name: parameter.grad for name, parameter in model.named_parameters()}, rate)  # type: ignore[misc]
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for name, weight in weights_of(model).items():
        torch.testing.assert_close(weight, google.weights[name], rtol=tolerance, atol=tolerance, msg=name)


def test_bias_correction_makes_the_first_step_as_large_as_the_rate() -> None:
    for correction, moved in ((True, 0.5), (False, 0.5 * 0.1 / math.sqrt(0.001))):
        model = build_model(MODEL)
        before = weights_of(model)
        optimizer = make_optimizer(model, options_for(weight_decay=0.0, bias_correction=correction))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        for name, weight in weights_of(model).items():
            torch.testing.assert_close(before[name] - weight, torch.full_like(weight, moved), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["adamw", "lamb"])
def test_optimizer_decays_all_but_biases_and_layer_norm(kind: str) -> None:
    model = build_model(MODEL)
    optimizer = make_optimizer(model, options_for(optimizer=kind, weight_decay=0.5))
    before = weights_of(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    plain = set()
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name or name.endswith("bias"):
            plain.add(name)
            assert torch.equal(parameter.detach(), before[name])
        else:
            kept = 0.75 if kind == "adamw" else 0.5  # LAMB makes the step as long as the rate says
            torch.testing.assert_close(parameter.detach(), before[name] * kept, msg=name)
    assert plain == {name for name in before if not is_decayed(name)}


def test_decayed_parameters_are_the_matrices() -> None:
    for name, parameter in build_model(MODEL).named_parameters():
        assert is_decayed(name) == (parameter.ndim == 2), name


def test_optimizer_leaves_out_what_is_not_trained() -> None:
    model = build_model(MODEL, next_sentence=False)
    optimizer = make_optimizer(model, options_for(weight_decay=0.5))
    in_groups = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert id(model.bert.pooler.dense.weight) not in in_groups
    assert id(model.bert.embeddings.word_embeddings.weight) in in_groups


def trained(options: TrainOptions, *, first: int, last: int, state: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """Returns weights and optimizer's state after some steps, through a file."""
    model = build_model(MODEL)
    optimizer = make_optimizer(model, options)
    if state is not None:
        model.load_state_dict(state[0])
        assert load_optimizer_state(optimizer, state[1]) == []
    for step in range(first, last):
        fill_gradients(model, seed=step)
        optimizer.step()
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["adamw", "lamb"])
@pytest.mark.parametrize("bias_correction", [True, False])
def test_loaded_state_continues_bit_for_bit(kind: str, bias_correction: bool) -> None:
    options = options_for(optimizer=kind, learning_rate=0.01, bias_correction=bias_correction)
    whole = trained(options, first=0, last=9)
    half = trained(options, first=0, last=4)
    again = trained(options, first=4, last=9, state=half)
    for name, weight in whole[0].items():
        assert torch.equal(weight, again[0][name]), name


def test_loaded_state_leaves_rate_and_decay_as_they_are() -> None:
    _, state = trained(options_for(weight_decay=0.25), first=0, last=1)
    options = options_for(weight_decay=0.5, adam_beta1=0.5, learning_rate=0.125)
    model = build_model(MODEL)
    optimizer = make_optimizer(model, options)
    load_optimizer_state(optimizer, state)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert {(group["betas"], group["lr"]) for group in optimizer.param_groups} == {((0.5, 0.999), 0.125)}


def test_state_goes_by_name_to_a_model_with_other_parameters() -> None:
    _, state = trained(options_for(), first=0, last=3)
    model = build_model(MODEL, next_sentence=False)
    optimizer = make_optimizer(model, options_for())
    assert load_optimizer_state(optimizer, state) == []
    names = [name for group in state["param_groups"] for name in group["param_names"]]
    saved = dict(zip(names, (state["state"][place] for place in range(len(names))), strict=True))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(optimizer.state[parameter]["exp_avg"], saved[name]["exp_avg"])

    without = make_optimizer(model, options_for()).state_dict() | {"state": {}}
    complete = build_model(MODEL)
    fresh = load_optimizer_state(make_optimizer(complete, options_for()), without)
    assert set(fresh) == {name for name, _ in complete.named_parameters()}


@pytest.mark.parametrize("bias_correction", [True, False])
def test_moments_of_adamw_are_those_of_lamb(bias_correction: bool) -> None:
    _, state = trained(options_for(bias_correction=bias_correction), first=0, last=3)
    optimizer = make_optimizer(build_model(MODEL), options_for(optimizer="lamb", bias_correction=bias_correction))
    assert load_optimizer_state(optimizer, state) == []
    for value in optimizer.state.values():
        assert float(value["step"]) == (3 if bias_correction else pytest.approx(1e30))


@pytest.mark.parametrize("kind", ["adamw", "lamb"])
def test_loaded_steps_count_for_nothing_without_bias_correction(kind: str) -> None:
    _, state = trained(options_for(optimizer=kind), first=0, last=3)
    assert {float(value["step"]) for value in state["state"].values()} == {3}
    dropped = state["state"].pop(0)  # a parameter that the other model did not have
    model = build_model(MODEL)
    optimizer = make_optimizer(model, options_for(optimizer=kind, bias_correction=False))
    assert len(load_optimizer_state(optimizer, state)) == 1
    assert len(optimizer.state) == len(state["state"]) + 1

    before = weights_of(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert {float(value["step"]) for value in optimizer.state.values()} == {float(torch.tensor(FAR_ON))}
    first = optimizer.param_groups[0]["params"][0]
    assert first.shape == dropped["exp_avg"].shape
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            moments = optimizer.state[parameter]
            update = moments["exp_avg"] / (moments["exp_avg_sq"].sqrt() + 1e-6)  # nothing is corrected
            update = update + group["weight_decay"] * before[name]
            if kind == "lamb" and group["weight_decay"]:
                update *= before[name].norm() / update.norm()
            expected = before[name] - 0.5 * update
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["adamw", "lamb"])
def test_loaded_steps_stay_with_bias_correction(kind: str) -> None:
    _, state = trained(options_for(optimizer=kind), first=0, last=3)
    del state["state"][0]
    optimizer = make_optimizer(build_model(MODEL), options_for(optimizer=kind))
    assert len(load_optimizer_state(optimizer, state)) == 1
    assert {float(value["step"]) for value in optimizer.state.values()} == {3}


def test_state_of_other_shapes_is_refused() -> None:
    _, state = trained(options_for(), first=0, last=1)
    wider = ModelOptions(vocab_size=9, num_hidden_layers=1, hidden_size=6, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(TrainingError, match=r"has shape \[64, 4\], the model's is \[64, 6\]"):
        load_optimizer_state(make_optimizer(build_model(wider), options_for()), state)
    for group in state["param_groups"]:
        del group["param_names"]
    with pytest.raises(TrainingError, match="does not name its parameters"):
        load_optimizer_state(make_optimizer(build_model(MODEL), options_for()), state)


@pytest.mark.parametrize(("max_norm", "length"), [(1.0, 1.0), (10.0, 5.0), (0.0, 5.0)])
def test_gradients_are_clipped_by_their_norm_over_all(max_norm: float, length: float) -> None:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert float(clip_by_global_norm(parameters, max_norm)) == pytest.approx(5.0)
    assert float(parameters[0].grad.norm()) == pytest.approx(3 * length / 5, rel=1e-5)
    assert float(parameters[1].grad.norm()) == pytest.approx(4 * length / 5, rel=1e-5)
