"""The funnel of a report: what came in, what was dropped at each stage and why, and what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bertdata.report_numbers import Number
from bertdata.summary import describe_reason

__all__ = ["Funnel", "Stage", "make_funnels"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage, and how the next comes of it: next = this - dropped + added.

    Attributes:
        label: What it is called.
        name: Name of its number.
        dropped: What each drop is called, and the name of its number.
        added: What each gain is called, and the name of its number.
        is_part: It is a part of the stage before, not what is left of it.
    """

    label: str
    name: str
    dropped: tuple[tuple[str, str], ...] = ()
    added: tuple[tuple[str, str], ...] = ()
    is_part: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A bar of the picture; what is dropped hangs where the next stage ends.

    Attributes:
        kind: "stage", "part", "dropped" or "added".
        label: What stands beside it.
        name: Name of its number.
        value: The number.
        start: Where it starts, as a share of the whole width.
        width: How long it is, as a share of the whole width.
        share: Its share of the first stage.
    """

    kind: str
    label: str
    name: str
    value: int
    start: float
    width: float
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Funnel:
    """Stages of one thing, such as documents.

    Attributes:
        title: What is counted.
        stages: First to last.
    """

    title: str
    stages: list[Stage] = field(default_factory=list)

    def bars(self, numbers: Mapping[str, Number]) -> Iterator[Bar]:
        """Yields the bars, from top to bottom; drops and gains of zero are left out."""
        values = {name: _count(numbers, name) for name in self._names()}
        # With gains a later stage may be larger than the first.
        whole = max(1, *(values[stage.name] for stage in self.stages))
        first = max(1, values[self.stages[0].name])

        def bar(kind: str, label: str, name: str, start: int) -> Bar:
            value = values[name]
            return Bar(
                kind=kind,
                label=label,
                name=name,
                value=value,
                start=start / whole,
                width=value / whole,
                share=value / first,
            )

        for stage in self.stages:
            yield bar("part" if stage.is_part else "stage", stage.label, stage.name, 0)
            left = values[stage.name]
            for label, name in stage.dropped:
                if values[name]:
                    left -= values[name]
                    yield bar("dropped", label, name, left)
            for label, name in stage.added:
                if values[name]:
                    yield bar("added", label, name, left)
                    left += values[name]

    def _names(self) -> Iterator[str]:
        for stage in self.stages:
            yield stage.name
            yield from (name for _, name in (*stage.dropped, *stage.added))


def _count(numbers: Mapping[str, Number], name: str) -> int:
    value = numbers[name]
    assert isinstance(value, int)
    return value


def make_funnels(numbers: Mapping[str, Number]) -> list[Funnel]:
    """Returns the funnels of documents, sentences, tokens and samples."""
    return [_documents(numbers), _SENTENCES, _TOKENS, _SAMPLES]


def _documents(numbers: Mapping[str, Number]) -> Funnel:
    def reasons(group: str) -> tuple[tuple[str, str], ...]:
        names = [name for name in numbers if name.startswith(f"input.{group}_dropped.")]
        names.sort(key=lambda name: (-_count(numbers, name), name))
        return tuple((_REASONS.get(reason := name.split(".", 2)[2]) or describe_reason(reason), name) for name in names)

    is_mixed = numbers["input.records"] != numbers["input.articles"]
    stages = [
        Stage(label="pages and records" if is_mixed else "pages", name="input.read", dropped=reasons("pages")),
        Stage(label="records" if is_mixed else "articles", name="input.records", dropped=reasons("records")),
        Stage(label="documents", name="input.documents", dropped=reasons("documents")),
        Stage(label="documents kept", name="input.documents_kept"),
        Stage(label="for training", name="input.train_documents", is_part=True),
        Stage(label="for evaluation", name="input.eval_documents", is_part=True),
    ]
    return Funnel(title="Documents", stages=stages if numbers["input.pages"] else stages[1:])


_REASONS = {
    "redirects": "redirects",
    "other_namespaces": "in other namespaces",
    "other_models": "no wikitext",
    "duplicates": "copies of others",
    "one_sentence_documents": "of one sentence",
}
_SENTENCES = Funnel(
    title="Sentences",
    stages=[
        Stage(
            label="sentences found",
            name="input.sentences_found",
            dropped=(
                ("without letters", "input.sentences_dropped.without_letters"),
                ("without tokens", "input.sentences_dropped.without_tokens"),
            ),
        ),
        Stage(
            label="sentences with words",
            name="input.sentences",
            dropped=(
                ("in documents of one sentence", "input.sentences_dropped.in_one_sentence_documents"),
                ("in copies and excluded ones", "input.sentences_dropped.in_other_documents"),
            ),
            added=(("by cutting long ones", "input.sentence_cuts"),),
        ),
        Stage(label="sentences kept", name="input.sentences_kept"),
    ],
)
_TOKENS = Funnel(
    title="Tokens",
    stages=[
        Stage(label="tokens of text", name="input.tokens", dropped=(("in dropped documents", "input.tokens_dropped"),)),
        Stage(
            label="tokens kept", name="input.tokens_kept", dropped=(("never in a sample", "input.tokens_never_shown"),)
        ),
        Stage(label="tokens in samples", name="input.tokens_shown"),
    ],
)
_SAMPLES = Funnel(
    title="Samples",
    stages=[
        Stage(label="samples", name="shards.samples"),
        Stage(label="for training", name="shards.train_samples", is_part=True),
        Stage(label="for evaluation", name="shards.eval_samples", is_part=True),
    ],
)
