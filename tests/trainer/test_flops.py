import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trainer.batch import Batch
from trainer.config import ModelOptions
from trainer.flops import flops_per_token, peak_of, training_flops
from trainer.metrics import pretraining_sums
from trainer.model import build_model


def batch_of(lengths: list[int], *, predictions: int) -> Batch:
    ends = np.cumsum([0, *lengths])
    rows = np.concatenate([start + np.arange(1, predictions + 1) for start in ends[:-1]])
    return Batch(
        token_ids=torch.full((int(ends[-1]),), 7, dtype=torch.int32),
        token_type_ids=torch.zeros(int(ends[-1]), dtype=torch.int32),
        cu_seqlens=torch.from_numpy(ends.astype(np.int32)),
        max_seqlen=max(lengths),
        mask_rows=torch.from_numpy(rows),
        mask_labels=torch.full((len(rows),), 9),
        next_sentence_labels=torch.zeros(len(lengths), dtype=torch.int64),
        label_forced=torch.zeros(len(lengths), dtype=torch.bool),
        sample_ids=torch.arange(len(lengths)),
    )


def counted_flops(options: ModelOptions, batch: Batch) -> float:
    """Returns what torch counts of the products that really run, forward and backward."""
    model = build_model(options)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused kernels compute scores twice
        mlm_loss, nsp_loss, _ = pretraining_sums(model(batch), batch)
        (mlm_loss + nsp_loss).backward()
    return float(counter.get_total_flops())


def ours(options: ModelOptions, lengths: list[int], *, predictions: int) -> float:
    return training_flops(
        options,
        num_tokens=sum(lengths),
        squared_lengths=sum(length**2 for length in lengths),
        num_predictions=predictions * len(lengths),
    )


def not_in_formula(options: ModelOptions, lengths: list[int], *, predictions: int) -> float:
    """Returns pooler and NSP head, less what the last layer does not compute: output and feed-forward of most tokens."""
    hidden, num_needed = options.hidden_size, len(lengths) * (predictions + 1)
    skipped = 6 * (hidden**2 + 2 * hidden * options.intermediate_size) * (sum(lengths) - num_needed)
    return 6 * (hidden**2 + 2 * hidden) * len(lengths) - skipped


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("length", [16, 96])
def test_formula_is_what_torch_counts(size: str, length: int) -> None:
    # A vocabulary that is a multiple of 64, because the products that run have rows up to one.
    options = ModelOptions.of_size(size, vocab_size=1024, hidden_dropout_prob=0.0)
    lengths = [length] * 3
    beside = not_in_formula(options, lengths, predictions=5)
    counted = counted_flops(options, batch_of(lengths, predictions=5))
    assert counted == pytest.approx(ours(options, lengths, predictions=5) + beside, rel=1e-9)


def test_padding_is_not_counted() -> None:
    options = ModelOptions.of_size("tiny", vocab_size=1000, hidden_dropout_prob=0.0)
    lengths = [96, 24, 8]
    beside = not_in_formula(options, lengths, predictions=5)
    padding = 12 * options.num_hidden_layers * options.hidden_size * (3 * 96**2 - 96**2 - 24**2 - 8**2)
    padding += 6 * 24 * options.hidden_size * 15  # 1,000 ids have 1,024 rows
    counted = counted_flops(options, batch_of(lengths, predictions=5))
    assert counted == pytest.approx(ours(options, lengths, predictions=5) + beside + padding, rel=1e-9)


@pytest.mark.parametrize(("size", "megaflops"), [("base", 545), ("large", 1879)])
def test_published_sizes_cost_what_is_known(size: str, megaflops: float) -> None:
    options = ModelOptions.of_size(size, vocab_size=30522)
    assert flops_per_token(options, length=128, predicted=0.15) / 1e6 == pytest.approx(megaflops, rel=0.02)


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H200", 989, 67),
        ("NVIDIA H200 NVL", 835, 60),
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA GH200 480GB", 989, 67),
        ("NVIDIA GB200", 2500, 80),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("NVIDIA A100-PCIE-40GB", 312, 19.5),
        ("NVIDIA A10G", 70, 35),
        ("NVIDIA A10", 125, 31.2),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA L40S", 362, 91.6),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("NVIDIA GeForce RTX 3090 Ti", 80, 40),
        ("Tesla V100-PCIE-16GB", None, 14),
        ("Tesla V100-SXM2-16GB", None, 15.7),
        ("Tesla T4", None, 8.1),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA T400", None, None),
        ("cpu", None, None),
    ],
)
def test_peak_goes_by_the_device_name(name: str, bf16: float | None, fp32: float | None) -> None:
    for precision, expected in (("bf16", bf16), ("fp32", fp32)):
        found = peak_of(name, precision=precision)  # type: ignore[arg-type]
        assert found == (None if expected is None else pytest.approx(expected * 1e12))
