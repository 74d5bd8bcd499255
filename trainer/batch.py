"""Batches: samples end to end without padding, as a model takes them.

    token_ids       a a a a a a a a a b b b b b b b b b c c c c c c c c d d d d d d d d
    cu_seqlens      0                 9                 18              26              34
    mask_rows           2     5           11                22

B samples, S tokens of the longest one, T tokens, P predictions of a micro-batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["IGNORED", "Batch", "StepBatches"]

IGNORED = -100
"""Label of what is not predicted, as in torch and transformers."""


class Batch(NamedTuple):
    """A micro-batch: everything the model sees, and the labels. Padding comes only with fixed shapes, at the end.

    Attributes:
        token_ids: int32 [T], the masked input of all samples, end to end.
        token_type_ids: int32 [T], 0 in segment A, 1 in segment B.
        cu_seqlens: int32 [B + 1], where each sample starts in the two, and the end of the last. With fixed shapes, some
            more for the padding, which is made up of further samples that have no label.
        max_seqlen: S, tokens of the longest sample.
        mask_rows: int64 [P], index into the token arrays of each position to predict; each comes once.
        mask_labels: int64 [P], the original token there; `IGNORED` in padding.
        next_sentence_labels: int64 [B], 0 IsNext, 1 NotNext.
        label_forced: bool [B], where this label was not drawn; see `bertdata.shards.Block`.
        sample_ids: int64 [B], number of each sample in its split, counted through blocks, shards and data sets.
    """

    token_ids: Tensor
    token_type_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    mask_rows: Tensor
    mask_labels: Tensor
    next_sentence_labels: Tensor
    label_forced: Tensor
    sample_ids: Tensor

    @property
    def num_samples(self) -> int:
        """Number of samples B, without padding."""
        return len(self.next_sentence_labels)

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on another device; to a GPU the copy runs beside the computation."""
        if device.type == "cpu":
            return self
        moved = [
            value.pin_memory().to(device, non_blocking=True) if isinstance(value, Tensor) else value for value in self
        ]
        return Batch(*moved)  # type: ignore[arg-type]

    def padded(
        self, *, pad_token_id: int, pad_to_multiple: int = 1, max_seq_length: int | None = None
    ) -> dict[str, Tensor]:
        """Returns the batch as `transformers.BertForPreTraining` takes it.

        Args:
            pad_token_id: What stands behind the end of a sample.
            pad_to_multiple: The width S of the result is rounded up to a multiple of this.
            max_seq_length: But not beyond this; None for no limit.

        Returns:
            `input_ids`, `token_type_ids`, `attention_mask` and `labels` (`IGNORED` where nothing is predicted), int64
            [B, S], and `next_sentence_label`, int64 [B].
        """
        ends = self.cu_seqlens[: self.num_samples + 1].long()
        num_tokens, width = int(ends[-1]), -(-self.max_seqlen // pad_to_multiple) * pad_to_multiple
        width = max(self.max_seqlen, min(width, max_seq_length or width))
        is_token = torch.arange(width) < ends.diff()[:, None]  # [B, S]; its true cells are the tokens in order

        def place(values: Tensor, filling: int) -> Tensor:
            return torch.full(is_token.shape, filling).masked_scatter_(is_token, values[:num_tokens].long())

        labels = torch.full((len(self.token_ids),), IGNORED)
        labels[self.mask_rows] = self.mask_labels
        return {
            "input_ids": place(self.token_ids, pad_token_id),
            "token_type_ids": place(self.token_type_ids, 0),
            "attention_mask": is_token.long(),
            "labels": place(labels, IGNORED),
            "next_sentence_label": self.next_sentence_labels,
        }


class StepBatches(NamedTuple):
    """One rank's share of a global batch.

    Attributes:
        micro_batches: Its micro-batches; at least one, which may be without samples where damaged blocks are left out.
        num_samples: Samples in all of them.
        num_tokens: Tokens in all of them, without padding.
        num_predictions: Masked positions in all of them.
    """

    micro_batches: list[Batch]
    num_samples: int
    num_tokens: int
    num_predictions: int
