import pytest
import torch
import torch.nn.functional as F

from trainer.dropout import Dropout


def test_dropout_keeps_the_share_and_the_mean() -> None:
    torch.manual_seed(1)
    values = torch.ones(1000, 1001)  # of an odd number, so that the last draw is not used up
    dropped = Dropout(0.1)(values)
    share = float((dropped == 0).double().mean())
    assert share == pytest.approx(0.1, abs=4 * (0.09 / values.numel()) ** 0.5)
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(65536 / (65536 - 6554)).item()}


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 0.9])
def test_dropout_drops_each_value_on_its_own(probability: float) -> None:
    torch.manual_seed(2)
    dropout = Dropout(probability)
    is_dropped = torch.stack([dropout(torch.ones(16)) == 0 for _ in range(4000)]).double()
    most = 5 * 0.5 / 4000**0.5  # five times the greatest standard error of a share
    torch.testing.assert_close(is_dropped.mean(0), torch.full_like(is_dropped[0], probability), atol=most, rtol=0)
    both = is_dropped.T @ is_dropped / 4000
    expected = torch.full_like(both, probability**2).fill_diagonal_(probability)
    torch.testing.assert_close(both, expected, atol=most, rtol=0)


def test_dropout_is_that_of_the_seed() -> None:
    dropout, values = Dropout(0.5), torch.randn(7, 9)
    torch.manual_seed(3)
    first, second = dropout(values), dropout(values)
    torch.manual_seed(3)
    assert torch.equal(dropout(values), first)
    assert torch.equal(dropout(values), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("with_residual", [True, False])
def test_dropout_has_the_gradient_of_its_mask(with_residual: bool) -> None:
    values = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(5, 6, dtype=torch.float64, requires_grad=True) if with_residual else None

    def run(values: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        torch.manual_seed(4)  # the same mask in each call
        return Dropout(0.3)(values, residual)

    inputs = [one for one in (values, residual) if one is not None]
    assert torch.autograd.gradcheck(run, inputs)
    added = run(*inputs) - (0 if residual is None else residual)
    kept = added != 0
    num_dropped = round(0.3 * 65536)
    torch.testing.assert_close(added[kept], values[kept] * 65536 / (65536 - num_dropped))
    assert 0 < int(kept.sum()) < kept.numel()


def test_dropout_does_nothing_in_evaluation() -> None:
    values, residual = torch.randn(4, 4), torch.randn(4, 4)
    assert torch.equal(Dropout(0.5).eval()(values, residual), values + residual)
    assert torch.equal(Dropout(0.5).eval()(values), F.dropout(values, 0.5, training=False))


def test_dropout_keeps_half_precision_where_it_gets_it() -> None:
    values = torch.randn(8, 8).bfloat16().requires_grad_()
    residual = torch.randn(8, 8)
    added = Dropout(0.5)(values, residual)
    added.sum().backward()
    assert added.dtype == torch.float32  # as that of values + residual
    assert values.grad is not None
    assert values.grad.dtype == torch.bfloat16
    assert set(values.grad.unique().tolist()) == {0.0, 2.0}


def test_dropout_of_almost_all_keeps_one_step_in_65536() -> None:
    torch.manual_seed(5)
    dropped = Dropout(0.999999)(torch.ones(1 << 20))
    assert set(dropped.unique().tolist()) == {0.0, 65536.0}
    assert 0 < int((dropped != 0).sum()) < 64  # 16 on average
