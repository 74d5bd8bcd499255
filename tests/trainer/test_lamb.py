import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.lamb import Lamb

SHAPES = ((4, 3), (7,), (1,), (2, 3, 2), (5, 5), (3,))


def paper(
    weights: list[Tensor],
    gradients: list[list[Tensor]],
    *,
    rates: list[float],
    decays: list[float],
    betas: tuple[float, float],
    eps: float,
    bias_correction: bool = True,
) -> list[Tensor]:
    """You et al. 2020, algorithm 2, one number at a time."""
    weights = [weight.clone() for weight in weights]
    moments = [[[0.0] * weight.numel() for weight in weights] for _ in range(2)]
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        for place, weight in enumerate(weights):
            updates = []
            for index, (w, g) in enumerate(
                zip(weight.flatten().tolist(), gradient[place].flatten().tolist(), strict=True)
            ):
                first, second = moments[0][place], moments[1][place]
                first[index] = betas[0] * first[index] + (1 - betas[0]) * g
                second[index] = betas[1] * second[index] + (1 - betas[1]) * g * g
                m = first[index] / (1 - betas[0] ** number) if bias_correction else first[index]
                v = second[index] / (1 - betas[1] ** number) if bias_correction else second[index]
                updates.append(m / (math.sqrt(v) + eps) + decays[place] * w)
            update = torch.tensor(updates, dtype=torch.float64).reshape(weight.shape)
            ratio = 1.0
            if decays[place] and weight.norm() > 0 and update.norm() > 0:
                ratio = float(weight.norm() / update.norm())
            weight -= rate * ratio * update
    return weights


def start(*, seed: int) -> tuple[list[nn.Parameter], torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    weights[2].zero_()
    weights[4].zero_()  # never a gradient either
    return [nn.Parameter(weight) for weight in weights], generator


def groups_of(params: list[nn.Parameter], *, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups; all but the second and the last tensor decay."""
    plain = [params[1], params[5]]
    decayed = [param for param in params if all(param is not other for other in plain)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bias_correction", [True, False])
def test_lamb_equals_the_paper(seed: int, bias_correction: bool) -> None:
    params, generator = start(seed=seed)
    before = [param.detach().clone() for param in params]
    betas, eps = ((0.9, 0.999), 1e-6) if seed % 2 else ((0.8, 0.95), 1e-3)
    optimizer = Lamb(
        groups_of(params, weight_decay=0.01), lr=0.0, betas=betas, eps=eps, bias_correction=bias_correction
    )
    rates = [0.01 * (number + 1) / (number % 7 + 1) for number in range(60)]
    gradients = []
    for number, rate in enumerate(rates):
        # Sizes over nine orders of magnitude, and steps in which all gradients are 0.
        scale = 0.0 if number in (0, 17) and seed == 3 else 10.0 ** (number % 10 - 6)
        gradient = [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
        gradient[4].zero_()
        gradient[3][0].zero_()
        gradients.append(gradient)
        for param, values in zip(params, gradient, strict=True):
            param.grad = values.clone()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        for param, values in zip(params, gradient, strict=True):
            assert torch.equal(param.grad, values)  # type: ignore[arg-type]
    decays = [0.01, 0.0, 0.01, 0.01, 0.01, 0.0]
    wanted = paper(before, gradients, rates=rates, decays=decays, betas=betas, eps=eps, bias_correction=bias_correction)
    for param, other in zip(params, wanted, strict=True):
        torch.testing.assert_close(param.detach(), other, rtol=1e-10, atol=1e-12)
    assert not params[4].any()


def test_lamb_scales_each_tensor_by_its_own_size() -> None:
    small, large = nn.Parameter(torch.full((4,), 0.01)), nn.Parameter(torch.full((4,), 10.0))
    optimizer = Lamb([small, large], lr=0.1, weight_decay=0.5)
    for param in (small, large):
        param.grad = torch.ones(4)
    optimizer.step()
    torch.testing.assert_close(small.detach(), torch.full((4,), 0.009))  # a tenth of its own norm
    torch.testing.assert_close(large.detach(), torch.full((4,), 9.0))


def test_lamb_leaves_parameters_without_gradient_alone() -> None:
    params = [nn.Parameter(torch.ones(3)) for _ in range(3)]
    optimizer = Lamb(params, lr=0.1)
    for number in range(3):
        params[0].grad = torch.ones(3)
        params[1].grad = torch.ones(3) if number == 2 else None
        assert optimizer.step(lambda: 7) == 7
    assert float(optimizer.state[params[0]]["step"]) == 3
    assert float(optimizer.state[params[1]]["step"]) == 1  # corrected as in a first step
    assert params[2] not in optimizer.state
    assert torch.equal(params[2].detach(), torch.ones(3))
    assert params[1].detach()[0] < 1


def test_lamb_in_half_precision_gradients_stays_close() -> None:
    weight = torch.randn(64, generator=torch.Generator().manual_seed(1))
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        param = nn.Parameter(weight.to(dtype).clone())
        optimizer = Lamb([param], lr=0.01)
        generator = torch.Generator().manual_seed(2)
        for _ in range(5):
            param.grad = torch.randn(64, generator=generator).to(dtype)
            optimizer.step()
        results.append(param.detach().float())
    torch.testing.assert_close(results[1], results[0], rtol=0.05, atol=0.05)


def test_lamb_continues_from_its_saved_state_bit_for_bit() -> None:
    def run(params: list[nn.Parameter], optimizer: Lamb, *, first: int, last: int) -> None:
        for number in range(first, last):
            generator = torch.Generator().manual_seed(number)
            for param in params:
                param.grad = torch.randn(param.shape, generator=generator, dtype=param.dtype)
            optimizer.step()

    whole, _ = start(seed=0)
    run(whole, Lamb(groups_of(whole, weight_decay=0.01), lr=0.02), first=0, last=20)

    params, _ = start(seed=0)
    optimizer = Lamb(groups_of(params, weight_decay=0.01), lr=0.02)
    run(params, optimizer, first=0, last=13)
    file = io.BytesIO()
    torch.save({"params": [param.detach() for param in params], "optimizer": optimizer.state_dict()}, file)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    again = [nn.Parameter(param) for param in saved["params"]]
    continued = Lamb(groups_of(again, weight_decay=0.01), lr=0.02)
    continued.load_state_dict(saved["optimizer"])
    run(again, continued, first=13, last=20)
    for one, other in zip(again, whole, strict=True):
        assert torch.equal(one, other)
