"""Write the quickstart's corpus: a small MediaWiki dump of an invented world.

    python examples/quickstart/make_corpus.py --out corpus.xml

The text is synthetic. Towns, rivers and people are invented, and the articles are filled in from the sentence patterns in
`patterns.json` with the words in `topics.json`. So the text repeats itself far more than a language does, and a tiny model
learns it in two minutes on a CPU. A figure reached on it shows that the tool works, and measures nothing else.

Each world article has one of sixteen topics, and a town's facts (its river, craft, dish, animal, feast, ...) come back in
all articles about that town. Every sixth article is about everyday things: a cat on a mat, a visit to Paris, a greeting.

The same `num_articles` and `seed` give the same bytes on every machine and Python version: every choice is a hash of its
name. Nothing but the standard library is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from typing import Any, TypeVar
from xml.sax.saxutils import escape, quoteattr

T = TypeVar("T")

HERE = Path(__file__).parent
TOPICS: dict[str, Any] = json.loads((HERE / "topics.json").read_text(encoding="utf-8"))
PATTERNS: dict[str, Any] = json.loads((HERE / "patterns.json").read_text(encoding="utf-8"))

NAMESPACES = {0: "", 1: "Talk", 2: "User", 4: "Project", 6: "File", 8: "MediaWiki", 10: "Template", 14: "Category"}
TOWNS_PER_RIVER = 3
TOWN_KINDS = [kind for kind in PATTERNS["kinds"] if kind != "river"]
ARTICLES_PER_RIVER = 1 + TOWNS_PER_RIVER * len(TOWN_KINDS)
EVERYDAY_INTERVAL = 6  # every sixth article is an everyday one
REDIRECT_INTERVAL = 25  # every 25th article has a redirect to it, every 50th a talk page
MAX_ARTICLES = 2_500  # as many as there are town names for

ABOUT = """This wiki is '''synthetic'''. Its towns, rivers and people are invented, and its articles are filled in from a few
hundred sentence patterns by a program, [[Project:About|make_corpus.py]]. It exists to try a tool on a file that is small and free.

What a model scores on it shows that the tool works. It says nothing about language, and is no measure of anything else."""


@dataclass(frozen=True)
class Page:
    """A page of the dump.

    Attributes:
        title: Full title, with the namespace's name in front where it is not an article.
        namespace: MediaWiki's number of the namespace; 0 is the articles.
        text: Wikitext, not yet escaped for XML.
        redirect: Title of the page that this one leads to, or None.
    """

    title: str
    namespace: int
    text: str
    redirect: str | None = None


class Draws:
    """A sequence of draws that depends on nothing but its key; the `random` module's may change between versions."""

    def __init__(self, *key: object) -> None:
        self._key = "/".join(map(str, key))
        self._numbers = count()

    def below(self, bound: int) -> int:
        """Return the next number in [0, bound)."""
        digest = hashlib.blake2b(f"{self._key}/{next(self._numbers)}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % bound

    def choice(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Iterable[T], number: int | None = None) -> list[T]:
        """Return `number` of the items (all by default) in a drawn order, none twice."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(len(rest) if number is None else number)]


@dataclass(frozen=True)
class World:
    """The names that the articles share, each used once."""

    rivers: list[str]
    towns: list[str]
    people: list[str]


def make_world(seed: int) -> World:
    """Return all names of the world, in an order drawn by the seed."""
    names = PATTERNS["names"]

    def joined(first: str, last: str, separator: str) -> list[str]:
        return Draws(seed, first).sample(a + separator + b for a, b in product(names[first], names[last]))

    return World(
        rivers=joined("river_starts", "river_ends", ""),
        towns=joined("town_starts", "town_ends", ""),
        people=joined("first", "family", " "),
    )


def town_facts(world: World, *, town_index: int, seed: int) -> dict[str, str]:
    """Return what all articles about a town agree on, as slot -> words."""
    river_index = town_index // TOWNS_PER_RIVER
    topic = TOPICS[topic_of(river_index)]
    draws = Draws(seed, "town", town_index)
    first_town = river_index * TOWNS_PER_RIVER
    siblings = [world.towns[first_town + (town_index + step) % TOWNS_PER_RIVER] for step in range(TOWNS_PER_RIVER)]
    facts = {slot: draws.choice(values) for slot, values in PATTERNS["facts"].items()}
    for slot in ("maker", "product", "place", "animal", "dish", "festival"):
        facts[slot] = draws.choice(topic[slot + "s" if slot != "dish" else "dishes"])
    facts |= dict(zip(("town", "second", "third"), siblings, strict=True))
    she, her = draws.choice([("she", "her"), ("he", "his")])
    facts |= {
        "river": world.rivers[river_index],
        "neighbour": siblings[1],
        "craft": topic["craft"],
        "makers": plural(facts["maker"]),
        "master": world.people[2 * town_index],
        "pupil": world.people[2 * town_index + 1],
        "she": she,
        "She": she.capitalize(),
        "her": her,
    }
    for slot in ("place", "makers", "product", "craft"):
        facts[slot.capitalize()] = facts[slot].capitalize()
    return facts


def topic_of(river_index: int) -> str:
    """Return the topic of a river and of all towns on it."""
    return list(TOPICS)[river_index % len(TOPICS)]


def plural(noun: str) -> str:
    """Return the plural of a maker: signalman -> signalmen, baker -> bakers."""
    return noun[:-3] + "men" if noun.endswith("man") else noun + "s"


class Writer:
    """Fills sentence patterns for one article.

    A slot is a fact of the article ({town}) or a word drawn anew ({tool}, and {tool2} for another one in the sentence).
    The first mention of another article becomes a link.
    """

    def __init__(
        self,
        facts: Mapping[str, str],
        words: Mapping[str, Sequence[str]],
        draws: Draws,
        *,
        titles: Mapping[str, str] | None = None,
    ) -> None:
        self.draws = draws
        self._facts = facts
        self._words = words
        self._unlinked = dict(titles or {})  # slot -> title of the article about it, until it is linked

    def sentence(self, pattern: str) -> str:
        """Return the pattern with every slot filled in."""
        used: list[str] = []

        def fill(match: re.Match[str]) -> str:
            slot, number = match[1], match[2]
            if slot in self._facts and not number:
                used.append(self._facts[slot])
                return self._linked(slot)
            if slot in ("distance", "height"):
                units = "km|mi" if slot == "distance" else "m|ft"
                return f"{{{{convert|{self.draws.below(28) + 3}|{units}}}}}"
            word = self.draws.choice([word for word in self._words[slot] if word not in used])
            used.append(word)
            return word

        text = re.sub(r"\{(\w+?)(\d?)\}", fill, pattern)
        text = re.sub(r"\b([Aa]) (?=(?:\[\[(?:[^]|]*\|)?)?[aeio])", r"\1n ", text)
        return text[0].upper() + text[1:]

    def sentences(self, patterns: Sequence[str], number: int) -> list[str]:
        """Return `number` filled sentences of different patterns."""
        return [self.sentence(pattern) for pattern in self.draws.sample(patterns, number)]

    def _linked(self, slot: str) -> str:
        words = self._facts[slot]
        title = self._unlinked.pop(slot, words)
        if slot in self._unlinked or title == words and slot not in LINKED_BY_NAME:
            return words
        return words
