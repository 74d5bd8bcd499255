"""What a model is asked: texts, and the samples that it sees of them.

A sample is what training had, [CLS] A [SEP] or [CLS] A [SEP] B [SEP], by the tokenizer's own rules for case and words.
The name of the mask token stands for the token; other special tokens in a text, such as "[SEP]", stay text, as in a
build.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from bertdata.errors import TrainingError
from trainer.arena import Shown
from trainer.batch import IGNORED, Batch
from trainer.cutting import Cutting, cut_step

__all__ = ["Pieces", "Question", "Sample", "Splitter", "iter_batches"]

_TOKENS_AT_ONCE = 4096
_MAX_PADDING = 0.03  # tokens per token, as in training: attention pads to the longest sample of a batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        text: The text, or the first of two.
        text_b: The second text; None for one text.
        place: What messages about it begin with, such as "line 3: ".
    """

    text: str
    text_b: str | None = None
    place: str = ""

    def error(self, message: str) -> TrainingError:
        """Returns an error that names the question."""
        return TrainingError(self.place + message)

    def to_json(self) -> dict[str, Any]:
        """Returns the texts by name."""
        return {"text": self.text} | ({} if self.text_b is None else {"text_b": self.text_b})


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """A text as tokens.

    Attributes:
        ids: Ids of the tokens.
        spans: Where each stands in the text, in characters: start and end.
    """

    ids: list[int]
    spans: list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What the model sees.

    Attributes:
        token_ids: Its tokens, special ones included.
        segment_b: Position of the first token of segment B; the number of tokens where there is none.
        masks: Positions of [MASK].
    """

    token_ids: list[int]
    segment_b: int
    masks: list[int]


class Splitter:
    """Makes tokens of texts, and samples of tokens.

    Args:
        tokenizer: A tokenizer from `load_tokenizer`.
        roles: Ids of its special tokens by role.
    """

    def __init__(self, tokenizer: Tokenizer, *, roles: dict[str, int]) -> None:
        self._tokenizer = tokenizer
        self._cls, self._sep, self._mask = (roles[role] for role in ("cls", "sep", "mask"))
        self.mask_name = str(tokenizer.id_to_token(self._mask))

    def split(self, texts: Sequence[str]) -> list[Pieces]:
        """Returns the tokens of texts."""
        # What stands between two masks is encoded by itself: the tokenizer would take the other special tokens, too.
        parts = [text.split(self.mask_name) for text in texts]
        encodings = iter(
            self._tokenizer.encode_batch([part for one in parts for part in one], add_special_tokens=False)
        )
        found = []
        for one in parts:
            ids: list[int] = []
            spans: list[tuple[int, int]] = []
            start = 0
            for number, part in enumerate(one):
                if number:
                    ids.append(self._mask)
                    spans.append((start, start + len(self.mask_name)))
                    start += len(self.mask_name)
                encoding = next(encodings)
                ids += encoding.ids
                spans += [(start + first, start + last) for first, last in encoding.offsets]
                start += len(part)
            found.append(Pieces(ids=ids, spans=spans))
        return found

    def sample(self, ids_a: list[int], ids_b: list[int] | None = None) -> Sample:
        """Returns the sample of one or two segments."""
        token_ids = [self._cls, *ids_a, self._sep]
        segment_b = len(token_ids)
        if ids_b is not None:
            token_ids += [*ids_b, self._sep]
        masks = [position for position, token in enumerate(token_ids) if token == self._mask]
        return Sample(token_ids=token_ids, segment_b=segment_b, masks=masks)


def iter_batches(samples: Sequence[Sample], *, pad_token_id: int) -> Iterator[Batch]:
    """Yields all samples in batches of about as long ones; `Batch.sample_ids` are their places in `samples`."""
    order = sorted(range(len(samples)), key=lambda number: -len(samples[number].token_ids))
    start = 0
    while start < len(order):
        longest = len(samples[order[start]].token_ids)
        numbers = np.array(order[start : start + max(1, _TOKENS_AT_ONCE // longest)])
        shown = _shown([samples[number] for number in numbers])
        cutting = Cutting(
            max_padding=_MAX_PADDING, max_seq_length=longest, max_predictions=longest, pad_token_id=pad_token_id
        )
        yield from cut_step(shown, numbers, 0, len(numbers), cutting=cutting).micro_batches
        start += len(numbers)


def _shown(samples: Sequence[Sample]) -> Shown:
    offsets = [0, *accumulate(len(sample.token_ids) for sample in samples)]
    types = [int(row >= sample.segment_b) for sample in samples for row in range(len(sample.token_ids))]
    rows = [start + row for start, sample in zip(offsets, samples, strict=False) for row in sample.masks]
    return Shown(
        token_ids=np.array([token for sample in samples for token in sample.token_ids], dtype=np.int32),
        token_type_ids=np.array(types, dtype=np.int32),
        token_offsets=np.array(offsets),
        mask_rows=np.array(rows, dtype=np.int64),
        mask_labels=np.full(len(rows), IGNORED),
        mask_offsets=np.array([0, *accumulate(len(sample.masks) for sample in samples)]),
        next_sentence_labels=np.zeros(len(samples), dtype=np.int64),
        label_forced=np.zeros(len(samples), dtype=bool),
    )
