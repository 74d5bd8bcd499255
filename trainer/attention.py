"""Attention among the tokens of each sample, for samples that lie end to end.

Where the device has it, `torch.nn.attention.varlen` takes them as they are (CUDA from compute capability 8.0 on, half
precision). Elsewhere they are padded for scaled_dot_product_attention and unpadded again. Both take and return the same
tensors.

Suffixes of tensor names as in `trainer.model`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.batch import Batch

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch < 2.10
    varlen_attn = None  # type: ignore[assignment]

__all__ = ["Layout", "attend", "layout_of", "needs_padding", "put_rows", "take_rows"]


class Layout(NamedTuple):
    """Where the tokens of a batch stand, the same for all layers.

    Attributes:
        position_ids: int64 [T], position of each token in its sample.
        padded_rows: int64 [T], row of each token when the samples are padded to [B, S].
        cu_seqlens: int32 [B + 1], where each sample starts, those that are padding among them.
        max_seqlen: S, tokens of the longest sample.
    """

    position_ids: Tensor
    padded_rows: Tensor
    cu_seqlens: Tensor
    max_seqlen: int


def layout_of(batch: Batch) -> Layout:
    """Returns the layout of a batch."""
    ends = batch.cu_seqlens.long()
    rows_T = torch.arange(len(batch.token_ids), device=ends.device)
    sample_T = torch.bucketize(rows_T, ends[1:], right=True)
    position_ids = rows_T - ends[sample_T]
    return Layout(position_ids, sample_T * batch.max_seqlen + position_ids, batch.cu_seqlens, batch.max_seqlen)


def needs_padding(device: torch.device, *, dtype: torch.dtype, head_size: int) -> bool:
    """Returns whether `attend` has to pad samples to the longest of a batch."""
    is_half = dtype in (torch.bfloat16, torch.float16)
    if varlen_attn is None or device.type != "cuda" or not is_half or head_size % 8 != 0:
        return True
    return not _has_flash_attention(device.index)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_flash_attention(index: int | None) -> bool:
    """Returns whether FlashAttention, which `varlen_attn` is made of, runs on a CUDA device."""
    return _capability_of(index) >= (8, 0)


@functools.cache
def _capability_of(index: int | None) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


class _TakeRows(torch.autograd.Function):
    """Chosen rows, each at most once, so that the gradient is a copy too and not a slow scattered sum."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.num_rows = len(rows)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _spread(grads[0], index, ctx.num_rows), None


class _PutRows(torch.autograd.Function):
    """The counterpart of `_TakeRows`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(index)
        return _spread(rows, index, num_rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return grads[0].index_select(0, index), None, None


def _spread(rows: Tensor, index: Tensor, num_rows: int) -> Tensor:
    return rows.new_zeros(num_rows, *rows.shape[1:]).index_copy_(0, index, rows)


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Returns `rows[index]`, where no row is taken twice."""
    taken: Tensor = _TakeRows.apply(rows, index)  # type: ignore[no-untyped-call]
    return taken


def put_rows(rows: Tensor, index: Tensor, num_rows: int) -> Tensor:
    """Returns zeros [num_rows, ...] with row i of `rows` at `index[i]`, where no index comes twice."""
    spread: Tensor = _PutRows.apply(rows, index, num_rows)  # type: ignore[no-untyped-call]
    return spread


def attend(qkv_T3ND: Tensor, layout: Layout) -> Tensor:
    """Returns what each token draws from the tokens of its own sample.

    Args:
        qkv_T3ND: Queries, keys and values of all tokens.
        layout: Where the samples begin and end.

    Returns:
        [T, N, D].
    """
    if varlen_attn is not None and not needs_padding(
        qkv_T3ND.device, dtype=qkv_T3ND.dtype, head_size=qkv_T3ND.shape[-1]
    ):
        query, key, value = qkv_T3ND.unbind(1)
        ends = layout.cu_seqlens
        attended = varlen_attn(query, key, value, ends, ends, layout.max_seqlen, layout.max_seqlen)
        assert isinstance(attended, Tensor)  # a tuple only where return_aux is given
        return attended
    return _attend_padded(qkv_T3ND, layout)


def _attend_padded(qkv_T3ND: Tensor, layout: Layout) -> Tensor:
    num_samples, max_seqlen = len(layout.cu_seqlens) - 1, layout.max_seqlen
    num_rows = num_samples * max_seqlen
    # As most batches of long documents are: nothing to pad, mask or copy. Compiled, it would be one more graph.
    is_full = not torch.compiler.is_compiling() and len(qkv_T3ND) == num_rows
    qkv, mask = qkv_T3ND, None
    if not is_full:
        qkv = put_rows(qkv_T3ND.flatten(1), layout.padded_rows, num_rows)
        lengths = layout.cu_seqlens.diff().clamp(min=1)  # a sample without tokens would make the softmax divide by zero
        is_padding = torch.arange(max_seqlen, device=lengths.device) >= lengths[:, None]  # [B, S]
        # Added to the scores; on a CPU this takes three quarters of the time of a boolean mask.
        mask = qkv.new_zeros(is_padding.shape).masked_fill_(is_padding, float("-inf"))[:, None, None, :]
    qkv = qkv.view(num_samples, max_seqlen, *qkv_T3ND.shape[1:])  # [B, S, 3, N, D]
    query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, N, S, D]
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    attended = attended.transpose(1, 2).reshape(num_rows, -1)  # [B * S, N * D]
    attended = attended if is_full else take_rows(attended, layout.padded_rows)
    return attended.view(-1, *qkv_T3ND.shape[2:])
