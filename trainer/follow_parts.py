"""What the page that follows a document shows of a sample and of the model's numbers, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from torch import Tensor

from bertdata.painting import Painter
from bertdata.report_samples import Piece, pieces_of
from bertdata.walk import WalkedSample
from bertdata.wordpiece import Vocabulary
from trainer.follow_answer import Answer, Prediction
from trainer.follow_figures import NUM_CELLS, draw_vectors, scale_of
from trainer.follow_trace import Trace, answer_per_layer
from trainer.model import BertForPreTraining

__all__ = ["ShownSample"]

_ROWS_OF_A, _ROWS = 8, 12  # of a picture of vectors: tokens of A, and all
_EXAMPLE = 1  # token whose numbers are written out: [CLS], the first, is the same in every sample
_MAX_LAYERS = 4  # whose attention is painted
_MAX_HEADS = 48  # rows of the table of heads
_AROUND = 5  # tokens before and after a masked position
_FULL_BARS = (0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownSample:
    """A sample, and what turns it into what a page shows.

    Attributes:
        walked: The sample.
        painter: The painter of its data set.
        vocabulary: The vocabulary of its tokens.
    """

    walked: WalkedSample
    painter: Painter
    vocabulary: Vocabulary

    def pieces(self, mask_set: int | None) -> list[Piece]:
        """Returns its tokens as a page shows them, with one of its mask sets or none."""
        content = self.walked.found.content
        return pieces_of(content, painter=self.painter, vocabulary=self.vocabulary, mask_set=mask_set)

    def segments(self, mask_set: int | None) -> list[list[Piece]]:
        """Returns the pieces of A and those of B, if there is one."""
        pieces, boundary = self.pieces(mask_set), self.walked.found.content.segment_ids.count(0)
        return [part for part in (pieces[:boundary], pieces[boundary:]) if part]

    @property
    def seen(self) -> list[int]:
        """Its tokens as the model sees them with the first mask set."""
        content = self.walked.found.content
        shown = dict(zip(*content.mask_sets[0], strict=True))
        return [shown.get(position, token) for position, token in enumerate(content.tokens)]

    def cards(self) -> list[dict[str, Any]]:
        """Returns text, id, segment id and position of each token."""
        content = self.walked.found.content
        return [
            {"text": self.painter.piece(token), "id": token, "segment": segment, "position": position}
            for position, (token, segment) in enumerate(zip(content.tokens, content.segment_ids, strict=True))
        ]

    def mask_sets(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        """Returns each mask set as the sample with holes, what it counts, and what the model answers."""
        sets = []
        for place, (number, answer) in enumerate(zip(self.walked.found.mask_sets, answers, strict=True)):
            kinds = [piece.kind for piece in self.pieces(place)]
            counts = {kind: kinds.count(kind) for kind in ("masked", "replaced", "kept")}
            sets.append({"number": number, "segments": self.segments(place), "counts": counts, "answer": answer})
        return sets

    def embeddings(self, trace: Trace) -> dict[str, Any]:
        """Returns the three embeddings, their sum, and what goes into the first layer: pictures, and some numbers."""
        places = self._rows()
        segment_ids = self.walked.found.content.segment_ids
        names = [self.painter.piece(self.seen[place]) for place in places]
        segments = ["AB"[segment_ids[place]] for place in places]
        word, segment, position, total = (
            _array(one) for one in (trace.words_SH, trace.segments_SH, trace.positions_SH, trace.sum_SH)
        )
        normalized = _array(trace.hidden[0])
        scale = scale_of(word, segment, position, total)
        rows = [
            ("token", names, word, scale, "What the table of tokens holds for each."),
            ("+ segment", segments, segment, scale, "One row for all of A, another one for all of B."),
            ("+ position", list(map(str, places)), position, scale, "A row of its own for each place."),
            ("= sum of the three", names, total, scale, "Cell by cell: token + segment + position."),
            ("→ normalized", names, normalized, scale_of(normalized), "What goes into the first layer."),
        ]
        return {
            "figures": [
                (title, text, Markup(draw_vectors(values[places], labels, scale=size, label=f"Vectors: {title}")))
                for title, labels, values, size, text in rows
            ],
            "num_cells": min(NUM_CELLS, word.shape[1]),
            "token": self.painter.piece(self.seen[_EXAMPLE]),
            "position": _EXAMPLE,
            "example": [(title, values[_EXAMPLE, :5].tolist()) for title, _, values, _, _ in rows],
        }

    def _rows(self) -> list[int]:
        """Returns positions to draw: some of A, and some of B where there is one."""
        num_tokens, boundary = len(self.seen), self.walked.found.content.segment_ids.count(0)
        if boundary == num_tokens:
            return list(range(min(num_tokens, _ROWS)))
        of_a = min(boundary, _ROWS_OF_A)
        return [*range(of_a), *range(boundary, min(num_tokens, boundary + _ROWS - of_a))]

    def predictions(self, answer: Answer) -> dict[str, Any]:
        """Returns what is said at each masked position, and what all of it has in common."""
        firsts = [prediction.guesses[0] for prediction in answer.predictions]
        tokens = [guess.token for guess in firsts]
        favourite = max(tokens, key=tokens.count)
        largest = max(guess.probability for guess in firsts)
        return {
            "rows": [self._prediction(prediction) for prediction in answer.predictions],
            "num_right": sum(one.rank == 1 for one in answer.predictions),
            "favourite": self.painter.piece(favourite),
            "num_favourite": tokens.count(favourite),
            "full_bar": next(full for full in _FULL_BARS if largest <= full),
        }

    def _prediction(self, prediction: Prediction) -> dict[str, Any]:
        pieces, position, truth = self.pieces(0), prediction.position, prediction.truth.token
        begin, end = max(0, position - _AROUND), position + _AROUND + 1
        bars = [(self.painter.piece(one.token), one.probability, one.token == truth) for one in prediction.guesses]
        if truth not in [one.token for one in prediction.guesses]:
            bars.append((self.painter.piece(truth), prediction.truth.probability, True))
        return {
            "position": position,
            "before": pieces[begin:position],
            "here": pieces[position],
            "after": pieces[position + 1 : end],
            "starts_text": begin == 0,
            "ends_text": end >= len(pieces),
            "bars": bars,
            "truth": self.painter.piece(truth),
            "probability": prediction.truth.probability,
            "rank": prediction.rank,
            "loss": prediction.loss,
        }

    def probe(self, answer: Answer, trace: Trace, *, model: BertForPreTraining) -> dict[str, Any]:
        """Returns one masked position's way through the layers: where it looks, its vector, and what it would say."""
        prediction = max(answer.predictions, key=self._fitness)
        position, num_layers = prediction.position, len(trace.attention)
        layers = sorted({round(place) for place in np.linspace(0, num_layers - 1, min(num_layers, _MAX_LAYERS))})
        vectors = np.stack([_array(layer[position]) for layer in trace.hidden])
        names = ["before", *(f"layer {number}" for number in range(1, num_layers + 1))]
        answers = answer_per_layer(model, trace.hidden, position=position, token=prediction.truth.token)
        shares = [trace.attention[layer][:, position].mean(dim=0) for layer in layers]
        return {
            "position": position,
            "shown": self.painter.piece(prediction.shown),
            "truth": self.painter.piece(prediction.truth.token),
            "attention": [(layer + 1, self._shaded(one)) for layer, one in zip(layers, shares, strict=True)],
            "heads": self._heads(trace, position, layers=layers),
            "figure": Markup(
                draw_vectors(vectors, names, scale=scale_of(vectors), label="The vector after each layer")
            ),
            "answers": [
                {
                    "layer": one.layer,
                    "guesses": [(self.painter.piece(guess.token), guess.probability) for guess in one.guesses],
                    "truth": one.truth,
                    "similarity": one.similarity,
                }
                for one in answers
            ],
        }

    def _fitness(self, prediction: Prediction) -> tuple[bool, bool, float]:
        """Returns how well a prediction serves to be followed: best a whole word behind [MASK] that is known well."""
        is_word = self.painter.piece(prediction.truth.token).isalpha()
        return prediction.shown == self.vocabulary.roles["mask"], is_word, prediction.truth.probability

    def _shaded(self, shares: Tensor) -> list[tuple[Piece, int, float]]:
        """Returns each piece with how strongly it is coloured, in percent, and its share."""
        largest = float(shares.max())
        pairs = zip(self.pieces(0), shares.tolist(), strict=True)
        return [(piece, round(50 * share / largest), share) for piece, share in pairs]

    def _heads(
        self, trace: Trace, position: int, *, layers: Sequence[int]
    ) -> list[tuple[int, int, list[tuple[str, int, float]]]]:
        """Returns of each head of some layers where a position looks most: tokens, their positions and shares."""
        rows = []
        for layer in layers:
            for head, shares in enumerate(trace.attention[layer][:, position], start=1):
                values, places = (found.tolist() for found in shares.topk(min(3, len(shares))))
                tokens = [self.painter.piece(self.seen[place]) for place in places]
                rows.append((layer + 1, head, list(zip(tokens, places, values, strict=True))))
        return rows[:_MAX_HEADS]


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().float().numpy()
    return array
