"""Oracles: balanced pairs and pairs of sentence order, as what differs from the pairs of the published BERT."""

from tests.bertdata.google_pairs import GooglePairs, Instance


class BalancedPairs(GooglePairs):
    """The same with the faults mended: a target per chunk, chunks of two sentences or more, equal labels, any B."""

    def __init__(self, documents, **options):
        super().__init__(documents, **options)
        self.candidates = [(row, start) for row, document in enumerate(documents) for start in range(1, len(document))]

    def begin_document(self) -> None:
        self.surplus = 0  # NotNext less IsNext, to be paid back
        self.has_reached_end = False

    def has_chunk(self, rest: list[list[int]]) -> bool:
        return len(rest) >= 2

    def target_of_chunk(self, _target: int) -> int:
        return self.draw_target()

    def goes_on(self, chunk: list[list[int]], rest: list[list[int]], target: int) -> bool:
        return len(chunk) < 2 or super().goes_on(chunk, rest, target) or self.joins(rest)

    def joins(self, rest: list[list[int]]) -> bool:
        return len(rest) == 1

    def is_random_next(self, _num_sentences: int, at_end: bool) -> bool:
        # The label that is behind, else either. What comes once a chunk has reached the end is an outcome of a draw
        # that was fair already.
        surplus = 0 if self.has_reached_end else self.surplus
        is_random = self.rng.random() < 0.5 if surplus == 0 else surplus < 0
        self.surplus += 1 if is_random else -1
        self.has_reached_end = self.has_reached_end or at_end
        return is_random

    def draw_b(self, row: int) -> tuple[int, int]:
        drawn = self.rng.choice(self.candidates)
        while drawn[0] == row:
            drawn = self.rng.choice(self.candidates)
        return drawn

    def collect_b(self, sentences: list[list[int]], target: int, a: list[int], chunk: list[list[int]]) -> list[int]:
        # Where the document's end left the chunk short, B is as short as the actual next would be, as nearly as its
        # sentences allow.
        num_tokens = sum(map(len, chunk))
        if num_tokens >= target:
            return super().collect_b(sentences, target, a, chunk)
        return self.collect_nearest(sentences, num_tokens - len(a))

    def collect_nearest(self, sentences: list[list[int]], wanted: int) -> list[int]:
        b = list(sentences[0])
        for sentence in sentences[1:]:
            if len(b) >= wanted or wanted - len(b) < len(b) + len(sentence) - wanted:
                break
            b.extend(sentence)
        return b


class OrderPairs(BalancedPairs):
    """Sentence order: A and B follow one another, and half of the pairs are swapped."""

    swaps = True

    def is_random_next(self, _num_sentences: int, _at_end: bool) -> bool:
        return False

    def finish(self, instance: Instance) -> Instance:
        if self.rng.random() < 0.5:
            return instance
        return Instance(a=instance.b, b=instance.a, label=1, document=instance.document, b_document=instance.b_document)
