"""What a model answers to one sample, and what that costs: words at masked positions, next sentence, losses.

Suffixes of tensor names as in `trainer.model`: S tokens of the sample, P predictions, V vocabulary (padded).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bertdata.blocks import Sample
from trainer.batch import Batch
from trainer.model import BertForPreTraining

__all__ = ["Answer", "Guess", "Prediction", "answer_sample", "guesses_of", "make_batch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """A word, and how probable the model takes it to be."""

    token: int
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What the model says at one masked position.

    Attributes:
        position: Where in the sample.
        shown: Token that the model saw there.
        truth: Probability that it gives to the token that belongs there.
        rank: How many tokens it takes to be as probable as that one or more so, itself among them.
        guesses: Its most probable tokens, the first one first.
        loss: -ln of `truth.probability`, in nats.
    """

    position: int
    shown: int
    truth: Guess
    rank: int
    guesses: tuple[Guess, ...]
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the model says to a sample with one of its mask sets.

    Attributes:
        predictions: Of each masked position.
        next_sentence: Scores of label 0 and 1; None where next sentences are not predicted.
        next_sentence_probabilities: The same as probabilities.
        mlm_loss: Mean of the predictions' losses, in nats.
        nsp_loss: -ln of the probability of the right label; None where next sentences are not predicted.
    """

    predictions: tuple[Prediction, ...]
    next_sentence: tuple[float, float] | None
    next_sentence_probabilities: tuple[float, float] | None
    mlm_loss: float
    nsp_loss: float | None

    @property
    def loss(self) -> float:
        """What training makes smaller: both losses together."""
        return self.mlm_loss + (self.nsp_loss or 0.0)


def make_batch(sample: Sample, *, mask_set: int) -> Batch:
    """Returns a batch of one sample as one of its mask sets shows it.

    Args:
        sample: The sample.
        mask_set: Its place among the sample's mask sets.
    """
    positions, shown = sample.mask_sets[mask_set]
    token_ids = np.array(sample.tokens, dtype=np.int32)
    mask_labels = token_ids[positions].astype(np.int64)
    token_ids[positions] = shown
    return Batch(
        token_ids=torch.from_numpy(token_ids),
        token_type_ids=torch.tensor(sample.segment_ids, dtype=torch.int32),
        cu_seqlens=torch.tensor([0, len(token_ids)], dtype=torch.int32),
        max_seqlen=len(token_ids),
        mask_rows=torch.tensor(positions, dtype=torch.int64),
        mask_labels=torch.from_numpy(mask_labels),
        next_sentence_labels=torch.tensor([sample.next_sentence_label]),
        label_forced=torch.tensor([bool(sample.label_forced)]),
        sample_ids=torch.zeros(1, dtype=torch.int64),
    )


@torch.no_grad()
def answer_sample(model: BertForPreTraining, sample: Sample, *, mask_set: int, num_guesses: int = 5) -> Answer:
    """Returns what the model says to a sample, and what that costs.

    Args:
        model: The model, in evaluation mode.
        sample: The sample.
        mask_set: Which of its mask sets is shown.
        num_guesses: Guesses at each position.
    """
    batch = make_batch(sample, mask_set=mask_set)
    outputs = model(batch)
    log_probs_PV = F.log_softmax(outputs.mlm_logits.double(), dim=-1)
    predictions = []
    for position, label, log_probs_V in zip(batch.mask_rows.tolist(), batch.mask_labels, log_probs_PV, strict=True):
        truth = float(log_probs_V[label])
        predictions.append(
            Prediction(
                position=position,
                shown=int(batch.token_ids[position]),
                truth=Guess(token=int(label), probability=math.exp(truth)),
                rank=int((log_probs_V >= truth).sum()),
                guesses=guesses_of(log_probs_V, number=num_guesses),
                loss=-truth,
            )
        )
    losses = [prediction.loss for prediction in predictions]
    scores = probabilities = nsp_loss = None
    if outputs.nsp_logits is not None:
        scores = _pair(outputs.nsp_logits[0].double())
        log_probs = F.log_softmax(outputs.nsp_logits[0].double(), dim=-1)
        probabilities, nsp_loss = _pair(log_probs.exp()), -float(log_probs[sample.next_sentence_label])
    return Answer(
        predictions=tuple(predictions),
        next_sentence=scores,
        next_sentence_probabilities=probabilities,
        mlm_loss=sum(losses) / max(len(losses), 1),
        nsp_loss=nsp_loss,
    )


def guesses_of(log_probs_V: Tensor, *, number: int) -> tuple[Guess, ...]:
    """Returns the most probable tokens, given the logarithms of their probabilities."""
    values, tokens = log_probs_V.topk(number)
    return tuple(
        Guess(token=token, probability=math.exp(value))
        for token, value in zip(tokens.tolist(), values.tolist(), strict=True)
    )


def _pair(values: Tensor) -> tuple[float, float]:
    first, second = values.tolist()
    return first, second
