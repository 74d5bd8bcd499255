"""What a model makes of one sample, step by step: embeddings, layers, predictions and losses, all as numbers.

    token ids -> three embeddings, their sum -> layers -> words at masked positions -> MLM loss \
                                                       -> [CLS] -> next sentence    -> NSP loss  -> their sum

Suffixes of tensor names as in `trainer.model`: S tokens of the sample, H hidden size, L layers, N heads, P predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bertdata.blocks import Sample
from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from trainer.attention import layout_of
from trainer.batch import Batch
from trainer.checkpoint import load_latest
from trainer.initial import initial_model_options, load_initial
from trainer.model import BertForPreTraining, Projections, build_model

__all__ = [
    "Answer",
    "Guess",
    "LayerAnswer",
    "LoadedModel",
    "Prediction",
    "Trace",
    "answer_per_layer",
    "answer_sample",
    "attention_shares",
    "load_model",
    "make_batch",
    "trace_sample",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model to look into.

    Attributes:
        model: The model, in evaluation mode; it predicts next sentences where it has learned to and the data set has
            such labels.
        step: Optimizer steps of its checkpoint; None of an exported model.
        warnings: What else is to be known of it.
    """

    model: BertForPreTraining
    step: int | None
    warnings: tuple[str, ...]


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


def load_model(place: Path, *, data_set: DataSet) -> LoadedModel:
    """Loads the model of a run, or of a folder for transformers, and checks that it reads this data set.

    Args:
        place: Folder of a run or of an exported model.
        data_set: What the samples will be of.

    Raises:
        TrainingError: There is no model, it is of another vocabulary, it has fewer positions than samples may have
            tokens, or it cannot predict words.
    """
    pairs = data_set.manifest.options["pairs"]
    options = initial_model_options(
        place,
        load_latest(place / "checkpoints"),
        vocab_size=data_set.manifest.tokenizer.vocab_size,
        hidden_dropout_prob=0.0,
        max_seq_length=pairs["max_seq_length"],
    )
    has_labels = pairs["next_sentence"] != "none"
    initial = load_initial(place, options=options, next_sentence=has_labels, data_set=data_set)
    new = {name.split(".")[1] for name in initial.new}
    if "predictions" in new:
        raise TrainingError(f"{place} has no head for masked words, so it has nothing to say here; train it first")
    warnings = ["It has not learned to predict next sentences, so that part is left out."] if has_labels and new else []
    model = build_model(options, next_sentence=has_labels and not new).eval()
    initial.load_into(model)
    return LoadedModel(model=model, step=initial.step, warnings=tuple(warnings))


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
                guesses=_guesses(log_probs_V, number=num_guesses),
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
            guesses=_guesses(log_probs_V, number=num_guesses),
            truth=float(log_probs_V[token].exp()),
            similarity=float(similarity),
        )
        for number, (log_probs_V, similarity) in enumerate(zip(log_probs_LV, similarities, strict=True))
    ]


def _guesses(log_probs_V: Tensor, *, number: int) -> tuple[Guess, ...]:
    values, tokens = log_probs_V.topk(number)
    return tuple(
        Guess(token=token, probability=math.exp(value))
        for token, value in zip(tokens.tolist(), values.tolist(), strict=True)
    )


def _pair(values: Tensor) -> tuple[float, float]:
    first, second = values.tolist()
    return first, second
