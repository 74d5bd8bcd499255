"""What pre-training has taught: masked words, and next sentences where there are two texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainer.answers import Answer, Row, list_shares
from trainer.batch import Batch
from trainer.questions import Pieces, Question
from trainer.tasks import Asked, Task

__all__ = ["WordTask"]


class Said(NamedTuple):
    """What a pre-trained model says of a sample with P masks.

    Attributes:
        tokens: int64 [P, k], ids of the most probable words.
        probabilities: float64 [P, k], of these.
        next_sentence: float64 [2], of IsNext and NotNext; None where the model has no such head.
    """

    tokens: Tensor
    probabilities: Tensor
    next_sentence: Tensor | None


class WordTask(Task[Said]):
    """Words for masks, and whether the second text follows the first.

    Args:
        top_k: Words for each mask.
        num_words: Words that the model knows; its scores go on with padding.
        has_words: Whether the model has its masked-word head.
        labels: What IsNext and NotNext are called; None where the model has no next-sentence head.
    """

    def __init__(
        self, *, top_k: int, num_words: int, has_words: bool, labels: tuple[str, str] | None, **limits: Any
    ) -> None:
        super().__init__(**limits)
        self._top_k = min(top_k, num_words)
        self._has_words, self._labels = has_words, labels

    def ask(self, question: Question, pieces: list[Pieces]) -> Asked:
        """Returns the samples of a question; see `Task.ask`."""
        asked = super().ask(question, pieces)
        mask = self.splitter.mask_name
        has_masks = self._has_words and bool(asked.samples[0].masks)
        if has_masks or (question.text_b is not None and self._labels is not None):
            return asked
        if not self._has_words:
            raise question.error("the model has no masked-word head; give two texts, and it says whether they belong")
        if self._labels is None:
            more = "" if question.text_b is None else ", and the model has no (trained) next-sentence head"
            raise question.error(f"there is no {mask} in the text{more}; write {mask} for each word to predict")
        raise question.error(
            f"there is no {mask} in the text; write {mask} for each word to predict, or give a second text, to be told "
            "whether it follows the first"
        )

    def read(self, model: nn.Module, batch: Batch) -> list[Said]:
        """Returns words and next sentences of each sample."""
        outputs = model(batch)
        logits = outputs.mlm_logits.float()
        top = logits.topk(self._top_k)
        probabilities = torch.exp((top.values - logits.logsumexp(-1, keepdim=True)).double()).cpu()
        tokens = top.indices.cpu()
        sample_P = torch.bucketize(batch.mask_rows, batch.cu_seqlens[1:], right=True)
        counts = torch.bincount(sample_P, minlength=batch.num_samples).tolist()
        following: list[Tensor | None] = [None] * batch.num_samples
        if outputs.nsp_logits is not None:
            following = list(outputs.nsp_logits.double().softmax(-1).cpu())
        parts = (torch.split(rows, counts) for rows in (tokens, probabilities))
        return [Said(*one) for one in zip(*parts, following, strict=True)]

    def answer(self, asked: Asked, said: Sequence[Said]) -> Answer:
        """Returns the answer; see `Task.answer`."""
        values = asked.question.to_json()
        rows: list[Row] = []
        (one,) = said
        if self._has_words:
            masks = [
                [
                    {"word": self._word(token), "id": token, "probability": probability}
                    for token, probability in zip(*pair, strict=True)
                ]
                for pair in zip(one.tokens.tolist(), one.probabilities.tolist(), strict=True)
            ]
            values["masks"] = masks
            for number, words in enumerate(masks, start=1):
                name = self.splitter.mask_name + (f" {number}" if len(masks) > 1 else "")
                rows += list_shares(name, [(word["word"], word["probability"]) for word in words])
        if one.next_sentence is not None and self._labels is not None and asked.question.text_b is not None:
            shares = dict(zip(self._labels, one.next_sentence.tolist(), strict=True))
            values["next_sentence"] = shares
            rows += list_shares("next", sorted(shares.items(), key=lambda pair: -pair[1]))
        return Answer(values=values, rows=rows)

    def _word(self, token: int) -> str:
        return self.tokenizer.id_to_token(token) or f"id {token}"  # a table may have more rows than there are words
