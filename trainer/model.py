"""BERT as published (Devlin et al. 2018), on samples without padding.

Modules and parameters carry the names that `transformers.BertForPreTraining` gives them, so weights go both ways. Two
things differ inside: the word embeddings have rows up to a multiple of 64, and the samples of a batch lie end to end.

Suffixes of tensor names: B samples, S tokens of the longest one, T tokens of all, H hidden size, N heads,
D size of a head, P masked positions, R tokens that the heads look at (in layers before the last: all T), V vocabulary
(padded).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.attention import Layout, attend, layout_of
from trainer.batch import Batch
from trainer.config import ModelOptions
from trainer.dropout import Dropout

__all__ = ["Bert", "BertForPreTraining", "Outputs", "Projections", "build_model"]


class Outputs(NamedTuple):
    """What the model says.

    Attributes:
        mlm_logits: [P, V], for the masked positions only; ids past the vocabulary are at -inf.
        nsp_logits: [B, 2], IsNext and NotNext; None where next sentences are not predicted.
    """

    mlm_logits: Tensor
    nsp_logits: Tensor | None


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalized."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(options.padded_vocab_size, options.hidden_size)
        self.position_embeddings = nn.Embedding(options.max_position_embeddings, options.hidden_size)
        self.token_type_embeddings = nn.Embedding(options.type_vocab_size, options.hidden_size)
        self.LayerNorm = nn.LayerNorm(options.hidden_size, eps=options.layer_norm_eps)
        self.dropout = Dropout(options.hidden_dropout_prob)

    def forward(self, batch: Batch, layout: Layout) -> Tensor:
        words_TH = self.word_embeddings(batch.token_ids)
        positions_TH = self.position_embeddings(layout.position_ids)
        types_TH = self.token_type_embeddings(batch.token_type_ids)
        hidden_TH: Tensor = self.dropout(self.LayerNorm(words_TH + types_TH + positions_TH))
        return hidden_TH


class Projections(nn.Module):
    """Query, key and value projections; `attention.self` in the published names."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.query = nn.Linear(options.hidden_size, options.hidden_size)
        self.key = nn.Linear(options.hidden_size, options.hidden_size)
        self.value = nn.Linear(options.hidden_size, options.hidden_size)
        self.num_heads = options.num_attention_heads

    def forward(self, hidden_TH: Tensor, layout: Layout) -> Tensor:
        """Returns [T, H]: what each token takes from those of its sample."""
        # One product instead of three; joining the weights costs less than two more passes over the hidden states.
        weight = torch.cat([self.query.weight, self.key.weight, self.value.weight])  # [3 * H, H]
        bias = torch.cat([self.query.bias, self.key.bias, self.value.bias])
        qkv_T3ND = F.linear(hidden_TH, weight, bias).view(len(hidden_TH), 3, self.num_heads, -1)
        return attend(qkv_T3ND, layout).flatten(-2)


class ResidualOutput(nn.Module):
    """Projection back to the hidden size, added to what went in, normalized."""

    def __init__(self, options: ModelOptions, *, input_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(input_size, options.hidden_size)
        self.LayerNorm = nn.LayerNorm(options.hidden_size, eps=options.layer_norm_eps)
        self.dropout = Dropout(options.hidden_dropout_prob)

    def forward(self, inner: Tensor, residual_RH: Tensor) -> Tensor:
        hidden_RH: Tensor = self.LayerNorm(self.dropout(self.dense(inner), residual_RH))
        return hidden_RH


class Attention(nn.Module):
    """Self-attention with its output projection."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.self = Projections(options)
        self.output = ResidualOutput(options, input_size=options.hidden_size)

    def forward(self, hidden_TH: Tensor, layout: Layout, rows_R: Tensor | None) -> Tensor:
        inner_RH, residual_RH = self.self(hidden_TH, layout), hidden_TH
        if rows_R is not None:
            inner_RH, residual_RH = inner_RH.index_select(0, rows_R), residual_RH.index_select(0, rows_R)
        attended_RH: Tensor = self.output(inner_RH, residual_RH)
        return attended_RH


class Intermediate(nn.Module):
    """The widening half of the feed-forward layer."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.dense = nn.Linear(options.hidden_size, options.intermediate_size)

    def forward(self, attended_RH: Tensor) -> Tensor:
        return F.gelu(self.dense(attended_RH))


class Layer(nn.Module):
    """One transformer layer; of the tokens `rows_R` alone where they are given, which attend to all."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.attention = Attention(options)
        self.intermediate = Intermediate(options)
        self.output = ResidualOutput(options, input_size=options.intermediate_size)

    def forward(self, hidden_TH: Tensor, layout: Layout, rows_R: Tensor | None) -> Tensor:
        attended_RH = self.attention(hidden_TH, layout, rows_R)
        return self.output(self.intermediate(attended_RH), attended_RH)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """The stack of layers; with activation checkpointing only what goes into each is kept for the backward pass.

    The last layer computes the tokens that the heads look at and no others: for base that is a twentieth of all work.
    """

    def __init__(self, options: ModelOptions, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(options) for _ in range(options.num_hidden_layers))
        self.activation_checkpointing = activation_checkpointing

    def forward(self, hidden_TH: Tensor, layout: Layout, rows_R: Tensor | None = None) -> Tensor:
        for number, layer in enumerate(self.layer, start=1):
            rows = rows_R if number == len(self.layer) else None
            if self.activation_checkpointing and torch.is_grad_enabled():
                # The state of the generator is put back, so that the second pass drops the same values.
                hidden_TH = checkpoint(layer, hidden_TH, layout, rows, use_reentrant=False)
            else:
                hidden_TH = layer(hidden_TH, layout, rows)
        return hidden_TH  # [R, H] where rows are given


class Pooler(nn.Module):
    """Summary of each sample from its [CLS] token."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.dense = nn.Linear(options.hidden_size, options.hidden_size)

    def forward(self, cls_BH: Tensor) -> Tensor:
        return torch.tanh(self.dense(cls_BH))


class Bert(nn.Module):
    """Embeddings, encoder and pooler; `bert` in the published names."""

    def __init__(self, options: ModelOptions, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.embeddings = Embeddings(options)
        self.encoder = Encoder(options, activation_checkpointing=activation_checkpointing)
        self.pooler = Pooler(options)


class Transform(nn.Module):
    """Last non-linear layer before the words are scored."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.dense = nn.Linear(options.hidden_size, options.hidden_size)
        self.LayerNorm = nn.LayerNorm(options.hidden_size, eps=options.layer_norm_eps)

    def forward(self, masked_PH: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(masked_PH)))  # type: ignore[no-any-return]


class MaskedLMHead(nn.Module):
    """Scores of all words at masked positions; the output matrix is that of the word embeddings."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.transform = Transform(options)
        self.bias = nn.Parameter(torch.zeros(options.vocab_size))

    def forward(self, masked_PH: Tensor, word_embeddings_VH: Tensor) -> Tensor:
        masked_PH = self.transform(masked_PH)
        # -inf keeps the padding of the vocabulary out of softmax and gradient without a copy of the logits.
        padding = len(word_embeddings_VH) - len(self.bias)
        return F.linear(masked_PH, word_embeddings_VH, F.pad(self.bias, (0, padding), value=float("-inf")))


class PreTrainingHeads(nn.Module):
    """Both heads; `cls` in the published names."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.predictions = MaskedLMHead(options)
        self.seq_relationship = nn.Linear(options.hidden_size, 2)


class BertForPreTraining(nn.Module):
    """BERT with masked-language-model and next-sentence heads.

    Args:
        options: The shape.
        next_sentence: Whether next sentences are predicted. If not, pooler and NSP head keep their initial weights, so
            that an exported model is still complete.
        activation_checkpointing: Whether the activations of layers are computed again in the backward pass instead of
            kept: the same gradient from less memory.
    """

    def __init__(
        self, options: ModelOptions, *, next_sentence: bool = True, activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.options = options
        self.next_sentence = next_sentence
        self.bert = Bert(options, activation_checkpointing=activation_checkpointing)
        self.cls = PreTrainingHeads(options)
        if not next_sentence:
            self.bert.pooler.requires_grad_(False)
            self.cls.seq_relationship.requires_grad_(False)

    def forward(self, batch: Batch) -> Outputs:
        """Returns the logits of a batch, see `Outputs`."""
        layout = layout_of(batch)
        rows_R = batch.mask_rows
        if self.next_sentence:
            rows_R = torch.cat([rows_R, batch.cu_seqlens[: batch.num_samples].long()])  # of [CLS]
        hidden_RH = self.bert.encoder(self.bert.embeddings(batch, layout), layout, rows_R)
        masked_PH, cls_BH = hidden_RH.tensor_split([len(batch.mask_rows)])
        mlm_logits_PV = self.cls.predictions(masked_PH, self.bert.embeddings.word_embeddings.weight)
        if not self.next_sentence:
            return Outputs(mlm_logits_PV, None)
        return Outputs(mlm_logits_PV, self.cls.seq_relationship(self.bert.pooler(cls_BH)))


def build_model(
    options: ModelOptions, *, next_sentence: bool = True, seed: int = 0, activation_checkpointing: bool = False
) -> BertForPreTraining:
    """Returns a model with initial weights: normal(0, initializer_range), biases 0, LayerNorm 1.

    Args:
        options: The shape.
        next_sentence: Whether next sentences are predicted.
        seed: Number that the weights are drawn from.
        activation_checkpointing: See `BertForPreTraining`.
    """
    generator = torch.Generator().manual_seed(seed)
    model = BertForPreTraining(options, next_sentence=next_sentence, activation_checkpointing=activation_checkpointing)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=options.initializer_range, generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return model
