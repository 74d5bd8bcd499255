"""What is normal in a run: which loss at which step.

A healthy run goes through three levels of the MLM loss:

    ln(V)        at the start, where every word is as likely: 10.33 for the published vocabulary
    entropy      of the words alone, once their frequencies are known but nothing of the sentence is used: about 7.2
                 there, with 4 to 7 % of the words right. It rests there for a while, as the NSP loss does at ln 2
    below        once the rest of the sentence is used

How long the first two last goes by how far the weights can have moved: the sum of the learning rates of all steps, here
*travel*, because Adam moves each weight by about the learning rate in a step. LAMB moves it by the rate times its own
size, about 0.02. The limits below are several times what was measured: tiny models and batches of 32, on the synthetic
corpus of the quickstart, on novels and on Wikipedia, with vocabularies of 2,542, 4,000 and 30,522. A mini model, twice
as wide, needed a quarter of the travel.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertdata.errors import ShardError
from trainer.config import TrainOptions

if TYPE_CHECKING:
    from trainer.data import TrainingData

__all__ = [
    "NEXT_SENTENCE_SAMPLES",
    "NEXT_SENTENCE_TRAVEL",
    "PLATEAU_SAMPLES",
    "PLATEAU_TRAVEL",
    "START_TRAVEL",
    "Expectation",
    "word_entropy",
]

_log = logging.getLogger(__name__)

START_TRAVEL = 0.1
"""Travel by which the loss has left its start. Measured: 0.01 to 0.02."""

PLATEAU_TRAVEL = 1.0
"""Travel by which the loss has left the level of the words alone. Measured: 0.2."""

PLATEAU_SAMPLES = 10_000
"""Samples before which no loss is said to rest."""

NEXT_SENTENCE_TRAVEL = 3.0
"""Travel by which next sentences are predicted better than by chance. Measured: 0.5."""

NEXT_SENTENCE_SAMPLES = 1_000_000
"""Samples before which next sentences are not said to be stuck."""

_LAMB_SCALE = 0.02
"""Weights begin with about this size."""


def word_entropy(data: TrainingData) -> float | None:
    """Returns the MLM loss of a model that knows how frequent each word is, and nothing else.

    Every position but [CLS] and [SEP] is as likely to be predicted, so the labels are distributed as the tokens are.

    Returns:
        Nats; None where a data set has no statistics.
    """
    shares = np.zeros(data.tokenizer.vocab_size)
    weights = data.weights or [data_set.manifest.num_samples("train") for data_set in data.data_sets]
    for data_set, weight in zip(data.data_sets, weights, strict=True):
        try:
            counts = data_set.load_statistics().token_counts.astype(np.float64)
        except ShardError as error:
            _log.info("how low the loss should be is not known: %s", error)
            return None
        for role in ("pad", "cls", "sep", "mask"):
            counts[data.tokenizer.roles[role]] = 0
        shares += weight * counts / max(counts.sum(), 1.0)
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * np.log(shares)).sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """What is normal in a run.

    Attributes:
        entropy: See `word_entropy`; None where it is not known.
        options: What the run does.
        num_samples: Training samples of the data set.
    """

    entropy: float | None
    options: TrainOptions
    num_samples: int

    @property
    def start(self) -> float:
        """MLM loss of a model that knows nothing."""
        return math.log(self.options.model.vocab_size)

    @property
    def step_scale(self) -> float:
        """How far a weight moves in a step, per learning rate."""
        return _LAMB_SCALE if self.options.optimizer == "lamb" else 1.0

    @property
    def planned_travel(self) -> float:
        """Travel of the whole run: warm-up and decay are about triangles."""
        return self.step_scale * self.options.learning_rate * self.options.max_steps / 2

    def describe(self) -> str:
        """Returns what the loss of a new run will do, in a line."""
        nsp = math.log(2) if self.options.next_sentence else 0.0
        text = f"the loss should begin near {self.start + nsp:.2f}"
        if self.entropy is not None:
            text += f", rest near {self.entropy + nsp:.2f} while only the frequencies of words are known"
        parts = f"MLM {self.start:.2f}" + (f" and {self.entropy:.2f}" if self.entropy is not None else "")
        return f"{text}, and then fall ({parts}{f', NSP {nsp:.2f}' if nsp else ''})"

    def describe_at(self, travel: float) -> str:
        """Returns which MLM loss is normal after so much travel."""
        level = self.start if self.entropy is None else self.entropy
        if travel < START_TRAVEL:
            return f"between {level:.2f} and {self.start:.2f}"
        if self.entropy is None or travel < PLATEAU_TRAVEL:
            return f"at most about {level:.2f}"
        return f"well below {level:.2f}"
