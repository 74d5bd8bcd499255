"""The same weights give the same logits, loss and gradients as in transformers, in float32."""

import inspect
from collections.abc import Iterator

import pytest
import torch
from transformers import BertConfig
from transformers import BertForPreTraining as HfBertForPreTraining

from bertdata.data_set import DataSet
from tests.small_data_set import make_data_set
from tests.trainer.oracle import one_batch
from tests.trainer.references import (
    WORDS,
    attend_without_padding,
    check_equal,
    hf_model,
    plain_varlen_attn,
    step_of_ours,
    step_of_transformers,
)
from trainer import attention
from trainer.attention import attend, layout_of, needs_padding, varlen_attn
from trainer.batch import Batch
from trainer.compiling import compile_step
from trainer.config import ModelOptions
from trainer.cutting import Cutting, _fix_shapes
from trainer.export import hf_config, hf_weights
from trainer.model import BertForPreTraining, build_model
from trainer.weight_files import put_weights, rename_weights

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def batch(data_set: DataSet) -> Batch:
    batch = one_batch(data_set, batch_size=8)
    lengths = batch.cu_seqlens.diff()
    assert int(lengths.min()) < batch.max_seqlen  # there is padding
    return batch


def model_of_size(size: str, *, vocab_size: int = 120) -> BertForPreTraining:
    model = build_model(ModelOptions.of_size(size, vocab_size=vocab_size, hidden_dropout_prob=0.0), seed=1)
    with torch.no_grad():  # initial ones are 0 and 1, and hide what is done with them
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return model


def with_fixed_shapes(batch: Batch) -> Batch:
    cutting = Cutting(pad_to_multiple=32, max_seq_length=24, max_predictions=4, pad_token_id=0)
    fixed = _fix_shapes(batch, cutting=cutting)
    assert len(fixed.token_ids) > len(batch.token_ids)
    assert len(fixed.mask_labels) > len(batch.mask_labels)
    return fixed


def check_against_transformers(model: BertForPreTraining, batch: Batch) -> None:
    vocab_size = model.options.vocab_size
    expected = step_of_transformers(hf_model(model.options, hf_weights(model)), batch)
    check_equal(step_of_ours(model, batch, vocab_size=vocab_size), expected, tolerance=TOLERANCE)


@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize("size", ["tiny", pytest.param("base", marks=pytest.mark.slow)])
def test_model_equals_transformers(batch: Batch, size: str, is_padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [] if is_padded else attend_without_padding(monkeypatch)
    model = model_of_size(size)
    check_against_transformers(model, batch)
    assert len(calls) == (0 if is_padded else model.options.num_hidden_layers)


@pytest.mark.slow
def test_base_model_with_its_whole_vocabulary_equals_transformers_on_long_samples(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    long = make_data_set(tmp_path_factory.mktemp("long"), train_blocks=((40,),), max_seq_length=512)
    batch = one_batch(long, batch_size=2)
    assert 256 < batch.max_seqlen <= 512
    check_against_transformers(model_of_size("base", vocab_size=30522), batch)


@pytest.mark.parametrize("is_padded", [True, False])
def test_model_equals_transformers_on_fixed_shapes(
    batch: Batch, is_padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_padded:
        attend_without_padding(monkeypatch)
    check_against_transformers(model_of_size("tiny"), with_fixed_shapes(batch))


@pytest.fixture
def compiler() -> Iterator[None]:
    """Leaves nothing compiled behind."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("size", "is_padded"), [("tiny", True), ("tiny", False), ("base", True)])
def test_compiled_model_equals_transformers(
    data_set: DataSet, batch: Batch, size: str, is_padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_padded:
        attend_without_padding(monkeypatch)
    model = model_of_size(size)
    other = hf_model(model.options, hf_weights(model))
    # Base would take the compiler minutes for the same kernels in wider loops: its graphs run as they were captured.
    loss_sums = compile_step(model, backend="inductor" if size == "tiny" else "aot_eager")
    for shapes in (batch, one_batch(data_set, batch_size=5), with_fixed_shapes(batch)):
        expected = step_of_transformers(other, shapes)
        found = step_of_ours(model, shapes, vocab_size=120, loss_sums=loss_sums)
        check_equal(found, expected, tolerance=TOLERANCE)


def test_both_ways_to_attend_are_equal(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    for shapes in (batch, with_fixed_shapes(batch)):
        layout = layout_of(shapes)
        qkv = torch.randn(len(shapes.token_ids), 3, 2, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        weights = torch.randn(len(shapes.token_ids), 2, 8, generator=generator, dtype=torch.float64)
        results = []
        for is_padded in (True, False):
            with monkeypatch.context() as patch:
                calls = [] if is_padded else attend_without_padding(patch)
                attended = attend(qkv, layout)
                assert len(calls) == (not is_padded)
            (gradient,) = torch.autograd.grad((attended * weights).sum(), qkv)
            results.append((attended, gradient))
        torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def test_varlen_attn_takes_what_it_is_given() -> None:
    assert varlen_attn is not None
    names = list(inspect.signature(plain_varlen_attn).parameters)
    assert list(inspect.signature(varlen_attn).parameters)[: len(names)] == names
    defaults = {name: one.default for name, one in inspect.signature(varlen_attn).parameters.items()}
    assert defaults.get("window_size", (-1, -1)) == (-1, -1)  # torch 2.11 and later
    assert defaults.get("is_causal", False) is False  # torch 2.10


@pytest.fixture
def capabilities(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Makes GPU 0 one of capability 7.5 and all others of 8.0; holds the GPUs that were asked."""
    asked: list[int] = []

    def get_device_capability(index: int) -> tuple[int, int]:
        asked.append(index)
        return (8, 0) if index else (7, 5)

    attention._capability_of.cache_clear()
    monkeypatch.setattr("torch.cuda.get_device_capability", get_device_capability)
    yield asked
    attention._capability_of.cache_clear()


@pytest.mark.skipif(varlen_attn is None, reason="needs torch 2.10")
def test_old_gpus_pad_for_attention(capabilities: list[int]) -> None:
    for _ in range(3):
        padded = [needs_padding(torch.device("cuda", i), dtype=torch.bfloat16, head_size=64) for i in range(3)]
        assert padded == [True, False, False]
    assert capabilities == [0, 1, 2]  # once each
    assert needs_padding(torch.device("cuda", 1), dtype=torch.float32, head_size=64)
    assert needs_padding(torch.device("cuda", 1), dtype=torch.bfloat16, head_size=12)
    assert needs_padding(torch.device("cpu"), dtype=torch.bfloat16, head_size=64)
    assert capabilities == [0, 1, 2]


@pytest.mark.usefixtures("compiler", "capabilities")
def test_capability_is_a_constant_of_compiled_graphs(recwarn: pytest.WarningsRecorder) -> None:
    def one_if_padded(values: torch.Tensor, device: torch.device) -> torch.Tensor:
        return values + needs_padding(device, dtype=torch.bfloat16, head_size=64)

    compiled = torch.compile(one_if_padded, backend="eager", fullgraph=True)
    assert [compiled(torch.zeros(()), torch.device("cuda", index)).item() for index in (0, 1)] == [1, 0]
    assert not recwarn.list


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("is_fixed", [False, True])
def test_gpu_attends_without_padding_as_with_it(batch: Batch, is_fixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    shapes = (with_fixed_shapes(batch) if is_fixed else batch).to(device)
    expected_model = model_of_size("tiny").to(device)
    expected = step_of_ours(expected_model, shapes, vocab_size=120)  # float32
    assert not needs_padding(device, dtype=torch.bfloat16, head_size=64)
    errors = []
    for is_padded in (False, True):
        model = model_of_size("tiny").to(device)
        with monkeypatch.context() as patch, torch.autocast("cuda", dtype=torch.bfloat16):
            if is_padded:
                patch.setattr("trainer.attention.needs_padding", lambda *_, **__: True)
            found = step_of_ours(model, shapes, vocab_size=120)
        torch.testing.assert_close(found.mlm_logits.float(), expected.mlm_logits, rtol=0.03, atol=0.03)
        difference = [(found.gradients[name] - other).norm() for name, other in expected.gradients.items()]
        whole = torch.stack([other.norm() for other in expected.gradients.values()]).norm()
        errors.append(float(torch.stack(difference).norm() / whole))
    # Neither is further from float32 than bfloat16 makes it.
    assert max(errors) < 0.03
    assert errors[0] < 2 * errors[1]


def test_initial_weights_of_transformers_come_back_bit_for_bit() -> None:
    options = ModelOptions.of_size("tiny", vocab_size=120)
    torch.manual_seed(8)
    other = HfBertForPreTraining(BertConfig(**hf_config(options, pad_token_id=0)))
    model = build_model(options, seed=9)
    put_weights(model, rename_weights(other.state_dict(), own=model.state_dict())[0])
    back = hf_model(options, hf_weights(model)).state_dict()
    assert back.keys() == other.state_dict().keys()
    for name, tensor in other.state_dict().items():
        assert torch.equal(back[name], tensor), name
    assert not model.state_dict()[WORDS][120:].isnan().any()
