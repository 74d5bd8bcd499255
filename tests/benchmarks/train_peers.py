"""The other way to train: a plain loop over `transformers.BertForPreTraining`, on any device.

Samples come in random order, are padded to the longest of their micro-batch, and the head scores every position: that
is what a loop does that knows nothing of the data. All else is as in our trainer: the same weights, optimizer, clipping
and dropout, attention by scaled_dot_product_attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForPreTraining

from trainer.batch import Batch
from trainer.config import ModelOptions
from trainer.export import hf_config

__all__ = ["TransformersWay", "hf_model", "padded_batches"]


def hf_model(
    options: ModelOptions, *, weights: dict[str, Tensor] | None = None, attention_dropout: float = 0.0
) -> BertForPreTraining:
    """Returns transformers' model of a shape.

    Args:
        options: The shape; its vocabulary stays as it is, without padding.
        weights: From `trainer.export.hf_weights`; None for random ones.
        attention_dropout: Dropout of the attention weights; transformers' own default is 0.1.
    """
    config = BertConfig(**hf_config(options, pad_token_id=0) | {"attention_probs_dropout_prob": attention_dropout})
    config._attn_implementation = "sdpa"
    model = BertForPreTraining(config)
    if weights is not None:
        tied = {"cls.predictions.decoder.weight": weights["bert.embeddings.word_embeddings.weight"]}
        tied["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"]
        model.load_state_dict(weights | tied)
        model.tie_weights()
    return model


def padded_batches(whole: Batch, *, micro_batch_size: int, pad_token_id: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yields a global batch as micro-batches for transformers, each padded to its longest sample.

    Args:
        whole: All samples of the global batch, on the CPU, sorted as the loader delivers them.
        micro_batch_size: Samples of a micro-batch.
        pad_token_id: What stands behind the end of a sample.
        seed: Number that decides the order, which has nothing to do with the lengths.
    """
    padded = whole.padded(pad_token_id=pad_token_id)
    order = torch.randperm(whole.num_samples, generator=torch.Generator().manual_seed(seed))
    for rows in order.split(micro_batch_size):
        part = {name: values[rows] for name, values in padded.items()}
        longest = int(part["attention_mask"].sum(dim=1).max())
        yield {name: values[:, :longest] if values.dim() == 2 else values for name, values in part.items()}


class TransformersWay:
    """A plain training loop.

    Args:
        model: From `hf_model`, on its device.
        bf16: Whether it runs in bfloat16 autocast.
        learning_rate: Constant rate of AdamW, whose other settings are BERT's.
        max_grad_norm: Global norm that gradients are clipped to.
    """

    def __init__(
        self, model: nn.Module, *, bf16: bool = False, learning_rate: float = 1e-4, max_grad_norm: float = 1.0
    ) -> None:
        self.model = model.train()
        self.device = next(model.parameters()).device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, eps=1e-6, fused=True)
        self._bf16 = bf16
        self._max_grad_norm = max_grad_norm

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self._bf16 else nullcontext()

    def step(self, batches: Sequence[dict[str, Tensor]]) -> Tensor:
        """Takes one optimizer step and returns its loss, a tensor that nothing waits for.

        Args:
            batches: Its micro-batches, on the CPU.
        """
        total = torch.zeros((), device=self.device)
        for batch in batches:
            if self.device.type == "cuda":
                moved = {name: value.pin_memory().to(self.device, non_blocking=True) for name, value in batch.items()}
            else:
                moved = batch
            with self._autocast():
                loss = self.model(**moved).loss / len(batches)
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total
