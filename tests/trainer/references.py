"""What the model is held against: transformers' own BERT, and attention written in the plainest way."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig
from transformers import BertForPreTraining as HfBertForPreTraining

from trainer.attention import layout_of
from trainer.batch import Batch
from trainer.compiling import LossSums
from trainer.config import ModelOptions
from trainer.export import hf_config
from trainer.metrics import pretraining_sums

WORDS = "bert.embeddings.word_embeddings.weight"


def small_options(**changes: Any) -> ModelOptions:
    """Returns the shape of a model of two layers for the vocabulary of `tests.small_data_set`."""
    values: dict[str, Any] = {
        "vocab_size": 120,
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "initializer_range": 0.3,  # larger than published, so that differences show
    }
    return ModelOptions(**values | changes)


class Step(NamedTuple):
    """Logits, loss and gradients of one batch.

    Attributes:
        mlm_logits: [P, vocab_size], of masked positions.
        nsp_logits: [B, 2].
        loss: As transformers defines it: mean over predictions plus mean over samples.
        gradients: Of each parameter, by name, without padding of the vocabulary.
    """

    mlm_logits: Tensor
    nsp_logits: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]


def hf_model(options: ModelOptions, weights: dict[str, Tensor]) -> HfBertForPreTraining:
    """Returns transformers' model with the given weights, and attention in plain products."""
    model = HfBertForPreTraining(BertConfig(**hf_config(options, pad_token_id=0), attn_implementation="eager"))
    loading = model.load_state_dict(
        weights
        | {
            "cls.predictions.decoder.weight": weights[WORDS],
            "cls.predictions.decoder.bias": weights["cls.predictions.bias"],
        }
    )
    assert not loading.missing_keys
    assert not loading.unexpected_keys
    model.tie_weights()
    return model


def step_of_transformers(model: HfBertForPreTraining, batch: Batch) -> Step:
    """Returns what transformers makes of a batch, padded; the model's gradients are replaced."""
    model.zero_grad()
    outputs = model(**batch.padded(pad_token_id=0))
    outputs.loss.backward()
    real = batch.mask_rows[batch.mask_labels >= 0]
    width = int(batch.cu_seqlens[: batch.num_samples + 1].diff().max())
    rows = layout_of(batch._replace(max_seqlen=max(width, batch.max_seqlen))).padded_rows[real]
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    logits = outputs.prediction_logits.flatten(0, 1)[rows]
    return Step(logits.detach(), outputs.seq_relationship_logits.detach(), outputs.loss.detach(), gradients)


def step_of_ours(model: nn.Module, batch: Batch, *, vocab_size: int, loss_sums: LossSums = pretraining_sums) -> Step:
    """Returns what our model makes of a batch; its gradients are replaced."""
    model.zero_grad()
    outputs = model(batch)
    mlm_loss, nsp_loss, _ = loss_sums(outputs, batch)
    is_real = batch.mask_labels >= 0
    loss = mlm_loss / is_real.sum() + nsp_loss / batch.num_samples
    loss.backward()
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    gradients[WORDS] = gradients[WORDS][:vocab_size]
    logits = outputs.mlm_logits[is_real, :vocab_size]
    return Step(logits.detach(), outputs.nsp_logits.detach(), loss.detach(), gradients)


def check_equal(found: Step, expected: Step, *, tolerance: float) -> None:
    """Checks that two steps are equal in relative norm, each tensor by itself."""
    for name in ("mlm_logits", "nsp_logits", "loss"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape, name
        assert relative_error(one, other) <= tolerance, (name, relative_error(one, other))
    check_gradients(found.gradients, expected.gradients, tolerance=tolerance)


def check_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], *, tolerance: float) -> None:
    """Checks that gradients are equal in relative norm, each tensor by itself.

    Attention does not change with the bias of its keys, so the gradient of that is 0 but for rounding, and is measured
    by that of the queries' bias, which goes through the same sums.
    """
    assert found.keys() == expected.keys()
    for name, other in expected.items():
        assert found[name].shape == other.shape, name
        scale = expected[name.replace("key.bias", "query.bias")]
        error = float((found[name] - other).double().norm() / scale.double().norm())
        assert error <= tolerance, (name, error)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Returns the norm of the difference over that of what is expected."""
    return float((found - expected).double().norm() / expected.double().norm())


def plain_varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
) -> Tensor:
    """Attention as `torch.nn.attention.varlen.varlen_attn` has it, with the arguments of all its versions.

    Every token looks at every other; what belongs to another sample weighs nothing.
    """
    rows = torch.arange(len(query), device=query.device)
    samples = torch.searchsorted(cu_seq_q, rows.to(cu_seq_q.dtype), right=True)
    scores = torch.einsum("qnd,knd->nqk", query, key) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(samples[:, None] != samples[None, :], float("-inf"))
    return torch.einsum("nqk,knd->qnd", scores.softmax(-1), value)


def attend_without_padding(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes the model attend as on a GPU in half precision, on any device.

    Returns:
        The tokens of each call, for checking that there were some; they stay away where it is compiled.
    """
    calls: list[int] = []

    def varlen_attn(*arguments: object) -> Tensor:
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k = arguments
        assert isinstance(query, Tensor)
        assert isinstance(cu_seq_q, Tensor)
        if not torch.compiler.is_compiling():
            assert cu_seq_q is cu_seq_k
            assert cu_seq_q.dtype == torch.int32
            assert int(cu_seq_q[-1]) == len(query)
            assert int(cu_seq_q.diff().max()) <= max_q == max_k  # type: ignore[operator]
            calls.append(len(query))
        return plain_varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)  # type: ignore[arg-type]

    monkeypatch.setattr("trainer.attention.varlen_attn", varlen_attn)
    monkeypatch.setattr("trainer.attention.needs_padding", lambda *_, **__: False)
    return calls
