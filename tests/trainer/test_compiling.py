import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bertdata.data_set import DataSet
from tests.trainer.test_train import ALONE, MODEL, comparable, options_for, train_on
from trainer import compiling
from trainer.config import ModelOptions
from trainer.data import TrainingData
from trainer.loader import Loader
from trainer.metrics import pretraining_sums
from trainer.model import build_model
from trainer.step import backward, cutting_for

WAITS = {
    "_local_scalar_dense",  # item(), float(), bool()
    "equal",
    "nonzero",
    "masked_select",
    "bincount",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "histc",
}
"""Operations for whose result, or for its shape, the program waits when they run on a GPU."""


class Watch(TorchDispatchMode):
    """Counts operations that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        picks = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(isinstance(pick, torch.Tensor) and pick.dtype == torch.bool for pick in picks)
        if name in WAITS or by_mask or (name == "repeat_interleave" and isinstance(args[-1], torch.Tensor)):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("pad_to_multiple", [None, 64])
def test_samples_are_dealt_where_attention_needs_no_padding(
    data_set: DataSet, pad_to_multiple: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.attention._capability_of", lambda _: (9, 0))
    data = TrainingData(data_sets=(data_set,))
    model = ModelOptions.of_size("tiny", vocab_size=120)
    for precision, device, is_dealt in (("bf16", "cuda", True), ("bf16", "cpu", False), ("fp32", "cuda", False)):
        options = options_for(Path("out"), model=model, precision=precision, pad_to_multiple=pad_to_multiple)
        cutting = cutting_for(data, options, device=torch.device(device))
        assert cutting.is_dealt == is_dealt
        assert (cutting.max_padding is None) == (is_dealt or pad_to_multiple is not None)


def small_steps(data_set: DataSet, *, number: int, **options: Any) -> Iterator[Any]:
    data = TrainingData(data_sets=(data_set,))
    plan = data.make_plan(data.initial_state(seed=0, batch_size=16))
    cutting = data.make_cutting(**options)
    return Loader(plan, data.open_split("train"), rank=0, world_size=1, cutting=cutting).steps(0, number)


@pytest.mark.parametrize(
    ("operation", "waits"),
    [
        (lambda values: values.sum().item(), True),
        (lambda values: values[values > 0], True),
        (lambda values: bool((values > 0).all()), True),
        (lambda values: torch.where(values > 0, values, 0).sum(), False),
        (lambda values: values[torch.tensor([1, 0])], False),
    ],
)
def test_watch_sees_what_waits(operation: Callable[[torch.Tensor], Any], waits: bool) -> None:
    with Watch() as watch:
        operation(torch.ones(3))
    assert bool(watch.found) == waits


def test_no_step_waits_for_the_device(data_set: DataSet, tmp_path: Path) -> None:
    found = []
    for steps in (3, 8):
        model = ModelOptions(**(MODEL.to_json() | {"hidden_dropout_prob": 0.1}))
        options = options_for(
            tmp_path / str(steps), model=model, max_steps=steps, log_every=100, save_every=100, eval_every=100
        )
        with Watch() as watch:
            train_on(data_set, options)
        found.append(watch.found)
    assert found[0] == found[1]  # what waits belongs to the end of the run
    assert found[0]["_local_scalar_dense"] > 0


@pytest.mark.slow
def test_compiled_step_has_few_graphs_and_no_breaks(data_set: DataSet) -> None:
    options = ModelOptions(**(MODEL.to_json() | {"hidden_dropout_prob": 0.0, "num_hidden_layers": 1}))
    plain = build_model(options, seed=1).double()
    compiled = copy.deepcopy(plain)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    loss_sums = compiling.compile_step(compiled, backend="aot_eager")
    num_batches = 0
    for shapes in ({"micro_batch_size": 3}, {"max_padding": 0.03}, {"micro_batch_size": 8, "pad_to_multiple": 32}):
        for step in small_steps(data_set, number=12, **shapes):
            num_batches += len(step.micro_batches)
            counts = {"num_predictions": step.num_predictions, "num_samples": step.num_samples}
            found = [
                backward(model, step.micro_batches, **counts, world=ALONE, seed=0, autocast=nullcontext(), **sums)
                for model, sums in ((plain, {}), (compiled, {"loss_sums": loss_sums}))
            ]
            torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-10)
    assert num_batches > 150
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 6  # of model and losses, some for shares of one sample


def test_compile_mode_reaches_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda _, **options: asked.append(options))
    compiling.compile_step(build_model(MODEL), mode="reduce-overhead")
    compiling.compile_step(build_model(MODEL))
    modes = [options["mode"] for options in asked]
    assert modes == ["reduce-overhead", "reduce-overhead", None, None]
    assert all(options["dynamic"] for options in asked)


def test_gradients_of_cuda_graphs_keep_their_memory(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[list[int]] = []

    def compile_step(model: torch.nn.Module, *, mode: str) -> Any:
        assert mode == "reduce-overhead"

        def loss_sums(*arguments: Any) -> Any:
            places.append([value.grad.data_ptr() for value in model.parameters() if value.grad is not None])
            return pretraining_sums(*arguments)

        return loss_sums

    monkeypatch.setattr("trainer.train.compile_step", compile_step)
    changes = {"max_steps": 6, "micro_batch_size": 5, "log_every": 1}
    graphs = options_for(tmp_path / "graphs", compile=True, compile_mode="reduce-overhead", **changes)
    assert comparable(train_on(data_set, graphs)) == comparable(
        train_on(data_set, options_for(tmp_path / "plain", **changes))
    )
    assert len(places) >= 6 * 4
    assert places[0]
    assert all(one == places[0] for one in places)
