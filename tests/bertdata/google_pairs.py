"""Oracle: pairs of the published BERT, one token and one sentence at a time, with Python's own random numbers.

Written from the description of the algorithm, to be obvious rather than fast. Each draw and each rule is a method of
its own, so that a test can get one of them wrong and see whether a comparison notices.
"""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Two segments as lists of tokens, the label, and the documents of both."""

    a: list[int]
    b: list[int]
    label: int
    document: int
    b_document: int


class GooglePairs:
    """Pairs of the published BERT, of documents that are lists of sentences, which are lists of tokens."""

    swaps = False  # label 1 means that A and B are swapped

    def __init__(self, documents, *, max_seq_length, short_seq_prob, rng: Random):
        self.documents = documents
        self.max_num_tokens = max_seq_length - 3
        self.short_seq_prob = short_seq_prob
        self.rng = rng

    def instances(self, row: int) -> list[Instance]:
        """All instances of one document in one pass."""
        document = self.documents[row]
        self.begin_document()
        target = self.draw_target()
        instances = []
        position = 0
        while self.has_chunk(document[position:]):
            target = self.target_of_chunk(target)
            chunk = []
            while position < len(document) and self.goes_on(chunk, document[position:], target):
                chunk.append(document[position])
                position += 1
            a_end = self.draw_a_end(len(chunk))
            a = [token for sentence in chunk[:a_end] for token in sentence]
            at_end = position == len(document)
            if self.is_random_next(len(chunk), at_end):
                b_row, start = self.draw_b(row)
                b = self.collect_b(self.documents[b_row][start:], target, a, chunk)
                position -= self.num_put_back(len(chunk) - a_end, at_end)
                label = 1
            else:
                b_row = row
                b = [token for sentence in chunk[a_end:] for token in sentence]
                label = 0
            self.truncate(a, b, limit=self.truncation_limit(target))
            instances.append(self.finish(Instance(a=a, b=b, label=label, document=row, b_document=b_row)))
        return instances

    def begin_document(self) -> None:
        pass

    def has_chunk(self, rest: list[list[int]]) -> bool:
        return len(rest) > 0

    def draw_target(self) -> int:
        if self.rng.random() < self.short_seq_prob:
            return self.draw_short_target()
        return self.max_num_tokens

    def draw_short_target(self) -> int:
        return self.rng.randint(2, self.max_num_tokens)

    def target_of_chunk(self, target: int) -> int:
        return target

    def goes_on(self, chunk: list[list[int]], _rest: list[list[int]], target: int) -> bool:
        return sum(map(len, chunk)) < target

    def draw_a_end(self, num_sentences: int) -> int:
        return 1 if num_sentences == 1 else self.rng.randint(1, num_sentences - 1)

    def is_random_next(self, num_sentences: int, _at_end: bool) -> bool:
        return num_sentences == 1 or self.rng.random() < 0.5

    def draw_b(self, row: int) -> tuple[int, int]:
        b_row = self.draw_document(row)
        return b_row, self.draw_start(b_row)

    def draw_document(self, row: int) -> int:
        for _ in range(10):
            drawn = self.rng.randrange(len(self.documents))
            if drawn != row:
                break
        return drawn

    def draw_start(self, row: int) -> int:
        return self.rng.randrange(len(self.documents[row]))

    def collect_b(self, sentences: list[list[int]], target: int, a: list[int], _chunk: list[list[int]]) -> list[int]:
        return self.collect(sentences, self.b_target(target, a))

    def b_target(self, target: int, a: list[int]) -> int:
        return target - len(a)

    def collect(self, sentences: list[list[int]], target: int) -> list[int]:
        b: list[int] = []
        for sentence in sentences:
            b.extend(sentence)
            if len(b) >= target:
                break
        return b

    def num_put_back(self, num_unused: int, _at_end: bool) -> int:
        return num_unused

    def truncation_limit(self, _target: int) -> int:
        return self.max_num_tokens

    def comes_off_a(self, a: list[int], b: list[int]) -> bool:
        return len(a) > len(b)

    def comes_off_front(self) -> bool:
        return self.rng.random() < 0.5

    def truncate(self, a: list[int], b: list[int], *, limit: int) -> None:
        while len(a) + len(b) > limit:
            longer = a if self.comes_off_a(a, b) else b
            longer.pop(0 if self.comes_off_front() else -1)

    def finish(self, instance: Instance) -> Instance:
        return instance
