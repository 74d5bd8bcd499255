"""A sample's way through a model: the vectors at each stage, attention, and what each layer would answer.

Suffixes of tensor names as in `trainer.model`: S tokens of the sample, H hidden size, L layers, N heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.attention import layout_of
from trainer.batch import Batch
from trainer.follow_answer import Guess, guesses_of
from trainer.model import BertForPreTraining, Projections

__all__ = ["LayerAnswer", "Trace", "answer_per_layer", "attention_shares", "trace_sample"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """A sample's way through the model.

    Attributes:
        words_SH: Embeddings of its tokens.
        segments_SH: Those of their segments.
        positions_SH: Those of their positions.
        hidden: The vectors [S, H] that go into the first layer, and those that come out of each: L + 1.
        attention: Of each layer, how much each token draws from each other one [N, S, S]; rows add up to 1.
    """

    words_SH: Tensor
    segments_SH: Tensor
    positions_SH: Tensor
    hidden: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]

    @property
    def sum_SH(self) -> Tensor:
        """The three embeddings added up, before they are normalized."""
        return self.words_SH + self.segments_SH + self.positions_SH


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerAnswer:
    """What the head for masked words would say if the model ended after a layer.

    Attributes:
        layer: The layer, from 1 on; 0 before the first one.
        guesses: The most probable tokens.
        truth: Probability of the token that belongs there.
        similarity: Cosine between the vector here and before the first layer.
    """

    layer: int
    guesses: tuple[Guess, ...]
    truth: float
    similarity: float


@torch.no_grad()
def trace_sample(model: BertForPreTraining, batch: Batch) -> Trace:
    """Returns the vectors of a sample at each stage.

    Args:
        model: The model, in evaluation mode.
        batch: One sample.
    """
    layout = layout_of(batch)
    embeddings, hidden, attention = model.bert.embeddings, [model.bert.embeddings(batch, layout)], []
    for layer in model.bert.encoder.layer:
        attention.append(attention_shares(layer.attention.self, hidden[-1]))  # type: ignore[arg-type, union-attr]
        hidden.append(layer(hidden[-1], layout, None))
    return Trace(
        words_SH=embeddings.word_embeddings(batch.token_ids),
        segments_SH=embeddings.token_type_embeddings(batch.token_type_ids),
        positions_SH=embeddings.position_embeddings(layout.position_ids),
        hidden=tuple(hidden),
        attention=tuple(attention),
    )


@torch.no_grad()
def attention_shares(projections: Projections, hidden_SH: Tensor) -> Tensor:
    """Returns how much each token of a sample draws from each other one, which fused attention never writes down.

    Args:
        projections: Those of a layer.
        hidden_SH: What goes into the layer.

    Returns:
        [N, S, S]: of each head and each token, shares that add up to 1.
    """
    query_NSD, key_NSD = (
        projection(hidden_SH).unflatten(-1, (projections.num_heads, -1)).transpose(0, 1)
        for projection in (projections.query, projections.key)
    )
    scores_NSS = query_NSD @ key_NSD.transpose(-1, -2) / math.sqrt(key_NSD.shape[-1])
    shares_NSS: Tensor = scores_NSS.softmax(dim=-1)
    return shares_NSS


@torch.no_grad()
def answer_per_layer(
    model: BertForPreTraining, hidden: Sequence[Tensor], *, position: int, token: int, num_guesses: int = 3
) -> list[LayerAnswer]:
    """Returns what the head for masked words would say of one position after each layer.

    The head has learned to read what the last layer writes, so of earlier ones this shows a direction only.

    Args:
        model: The model, in evaluation mode.
        hidden: `Trace.hidden`.
        position: The position.
        token: What belongs there.
        num_guesses: Guesses after each layer.
    """
    vectors_LH = torch.stack([layer[position] for layer in hidden])
    logits_LV = model.cls.predictions(vectors_LH, model.bert.embeddings.word_embeddings.weight)
    log_probs_LV = F.log_softmax(logits_LV.double(), dim=-1)
    similarities = F.cosine_similarity(vectors_LH, vectors_LH[:1])
    return [
        LayerAnswer(
            layer=number,
            guesses=guesses_of(log_probs_V, number=num_guesses),
            truth=float(log_probs_V[token].exp()),
            similarity=float(similarity),
        )
        for number, (log_probs_V, similarity) in enumerate(zip(log_probs_LV, similarities, strict=True))
    ]
