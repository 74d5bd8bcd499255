"""Writes the quickstart's corpus: a small MediaWiki dump of an invented world.

    python examples/quickstart/make_corpus.py --out corpus.xml

The text is synthetic. Towns, rivers and people are invented, and the articles are filled in from the sentence patterns
in `patterns.json` with the words in `topics.json`. So the text repeats itself far more than a language does, and a tiny
model learns from it within minutes on a CPU. A figure reached on it shows that the tool works, nothing else.

Each world article has one of eight topics, and a town's facts (its river, craft, dish, animal, feast, ...) come back in
all articles about that town. Every third article is about something of every day: a cat, a visit to Paris, a greeting.
Some sentences of every kind of article have but four or five words: else a short segment would mostly be the one that
follows, and no topic would be needed to know it.

The same `num_articles` and `seed` give the same bytes on every machine and Python version: every choice is a hash of
its name. Nothing but the standard library is needed.
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
EVERYDAY_INTERVAL = 3  # every third article is an everyday one
REDIRECT_INTERVAL = 25  # every 25th article has a redirect to it, every 50th a talk page
MAX_ARTICLES = 2_300  # as many as there are names of people for

SCHEMA = "http://www.mediawiki.org/xml/export-0.11/"
LINK_START = r"(?:\[\[(?:[^]|]*\|)?)?"
BEFORE_VOWEL = re.compile(r"\b([Aa])(?= " + LINK_START + r"(?:[aeiou]|hour))")  # where "a" has to be "an"
FIRST_LETTER = re.compile("^" + LINK_START + "[a-z]")

ABOUT = """This wiki is '''synthetic'''. Its towns, rivers and people are invented, and its articles are templated: a
program, make_corpus.py, fills in a few hundred sentence patterns. It exists to try a tool on a small and free file.

What a model scores on it shows that the tool works. It says nothing about language, and is no measure of anything else.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
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
        """Returns the next number in [0, bound)."""
        digest = hashlib.blake2b(f"{self._key}/{next(self._numbers)}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % bound

    def choice(self, items: Sequence[T]) -> T:
        """Returns one of the items."""
        return items[self.below(len(items))]

    def early(self, items: Sequence[T]) -> T:
        """Returns one of the items, early ones more often: in a language few words are frequent and most are rare."""
        return items[self.below(self.below(self.below(len(items)) + 1) + 1)]

    def sample(self, items: Iterable[T], number: int | None = None) -> list[T]:
        """Returns `number` of the items (all by default) in a drawn order, none twice."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(len(rest) if number is None else number)]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The names that the articles share, each used once."""

    rivers: list[str]
    towns: list[str]
    people: list[str]


def make_world(seed: int) -> World:
    """Returns all names of the world, in an order drawn by the seed."""
    names = PATTERNS["names"]

    def joined(first: str, last: str, separator: str) -> list[str]:
        return Draws(seed, first).sample(a + separator + b for a, b in product(names[first], names[last]))

    return World(
        rivers=joined("river_starts", "river_ends", ""),
        towns=joined("town_starts", "town_ends", ""),
        people=joined("first", "family", " "),
    )


def town_facts(world: World, *, town_index: int, seed: int) -> dict[str, str]:
    """Returns what all articles about a town agree on, as slot -> words."""
    river_index = town_index // TOWNS_PER_RIVER
    topic = TOPICS[topic_of(river_index)]
    draws = Draws(seed, "town", town_index)
    first_town = river_index * TOWNS_PER_RIVER
    siblings = [world.towns[first_town + (town_index + step) % TOWNS_PER_RIVER] for step in range(TOWNS_PER_RIVER)]
    facts = {slot: draws.choice(values) for slot, values in PATTERNS["facts"].items()}
    for slot in ("maker", "product", "place", "animal", "dish", "festival"):
        facts[slot] = draws.early(topic[slot + "s" if slot != "dish" else "dishes"])
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
    """Returns the topic of a river and of all towns on it."""
    return list(TOPICS)[river_index % len(TOPICS)]


def plural(noun: str) -> str:
    """Returns the plural of a maker: signalman -> signalmen, baker -> bakers."""
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
        """Returns the pattern with every slot filled in."""
        used: list[str] = []

        def fill(match: re.Match[str]) -> str:
            slot, number = match[1], match[2]
            if slot in self._facts and not number:
                used.append(self._facts[slot])
                return self._linked(slot)
            if slot in ("distance", "height"):
                units = "km|mi" if slot == "distance" else "m|ft"
                return f"{{{{convert|{self.draws.below(28) + 3}|{units}}}}}"
            word = self.draws.early([word for word in self._words[slot] if word not in used])
            used.append(word)
            return word

        text = re.sub(r"\{(\w+?)(\d?)\}", fill, pattern)
        text = BEFORE_VOWEL.sub(r"\1n", text)
        return FIRST_LETTER.sub(lambda match: match[0][:-1] + match[0][-1].upper(), text)

    def sentences(self, patterns: Sequence[str], number: int) -> list[str]:
        """Returns `number` filled sentences of different patterns."""
        return [self.sentence(pattern) for pattern in self.draws.sample(patterns, number)]

    def _linked(self, slot: str) -> str:
        words, title = self._facts[slot], self._unlinked.pop(slot, None)
        if title is None:
            return words
        return f"[[{words}]]" if title == words else f"[[{title}|{words}]]"


def world_article(world: World, *, index: int, seed: int) -> Page:
    """Returns the world's article number `index`: topics take turns, and a river's articles follow one another."""
    turn, topic_index = divmod(index, len(TOPICS))
    river_turn, member = divmod(turn, ARTICLES_PER_RIVER)
    river_index = river_turn * len(TOPICS) + topic_index
    town_offset, kind_index = divmod(max(member - 1, 0), len(TOWN_KINDS))
    kind = TOWN_KINDS[kind_index] if member else "river"
    facts = town_facts(world, town_index=river_index * TOWNS_PER_RIVER + town_offset, seed=seed)
    titles = {name: entry["title"].format_map(facts) for name, entry in PATTERNS["kinds"].items()}
    title = titles[kind]
    facts["bold"] = f"'''{title.removesuffix(' (river)')}'''"
    links = titles | {"place": titles["building"]} | {slot: facts[slot] for slot in ("second", "third", "neighbour")}
    links = {slot: target for slot, target in links.items() if slot in facts and target != title}
    topic = TOPICS[topic_of(river_index)]
    words = PATTERNS["words"] | {singular(slot): values for slot, values in topic.items()}
    writer = Writer(facts, words, Draws(seed, "article", title), titles=links)
    return Page(title=title, namespace=0, text=world_text(writer, facts, kind=kind, topic=topic_of(river_index)))


def singular(slot: str) -> str:
    """Returns the slot's name for a list of words: qualities -> quality, dishes -> dish, tools -> tool."""
    return slot.replace("ies", "y").replace("shes", "sh").removesuffix("s")


def world_text(writer: Writer, facts: Mapping[str, str], *, kind: str, topic: str) -> str:
    """Returns the wikitext of an article about one of the world's things."""
    draws, entry = writer.draws, PATTERNS["kinds"][kind]
    leads = writer.sentences(entry["leads"], 1)
    about_it = writer.sentences(entry["body"], 6 + draws.below(3))
    about_craft = writer.sentences(PATTERNS["craft"] + TOPICS[topic]["scenes"], 7 + draws.below(6))
    headings = [draws.choice(names) for names in PATTERNS["headings"]]
    caption = writer.sentences(PATTERNS["captions"], 1)[0]
    parts = [
        infobox(entry["infobox"], facts),
        f"[[File:{facts['town']} {kind}.jpg|thumb|{draws.choice(['left', 'right'])}|220px|{caption}]]",
        paragraph(writer, leads + about_it[:2]),
        f"== {headings[0]} ==",
        paragraph(writer, about_it[2:-2] + about_craft[:1]),
        f"== {headings[1]} ==",
        "<!-- Please name a source for each number. -->",
        paragraph(writer, about_craft[1:-3]),
        price_table(writer) if draws.below(3) == 0 else "",
        f"== {headings[2]} ==",
        paragraph(writer, about_it[-2:] + about_craft[-3:-2]),
        "\n".join(f"* {sentence}" for sentence in about_craft[-2:]),
        "== See also ==",
        f"* [[{facts['neighbour']}]]\n* [[{facts['river']} (river)|{facts['river']}]]",
        "== References ==\n{{reflist}}",
        f"[[Category:{facts['Craft']}]]\n[[Category:{facts['town']}]]",
        f"[[de:{facts['town']} ({kind})]]",
    ]
    return "\n\n".join(filter(None, parts))


def infobox(name: str, facts: Mapping[str, str]) -> str:
    """Returns the template at the top of an article."""
    rows = {"name": facts["bold"].strip("'"), "town": f"[[{facts['town']}]]", "trade": facts["craft"]}
    lines = [f"| {key} = {value}" for key, value in rows.items()]
    return "\n".join(["{{Infobox " + name, *lines, "| map = {{location map|" + facts["town"] + "|width=200}}", "}}"])


def paragraph(writer: Writer, sentences: Sequence[str]) -> str:
    """Returns the sentences in one paragraph, some of them with a reference behind the full stop."""
    return " ".join(sentence + reference(writer) for sentence in sentences)


def reference(writer: Writer) -> str:
    """Returns a citation for one sentence in eight, else nothing."""
    draws = writer.draws
    if draws.below(8):
        return ""
    book = f"{{{{cite book|title=Towns & Rivers|year={1800 + draws.below(200)}}}}}"
    return draws.choice([f"<ref>{book}</ref>", '<ref name="guide" />'])


def price_table(writer: Writer) -> str:
    """Returns a table of three wares and their prices."""
    wares = writer.draws.sample(["box", "cart", "sack", "chest"], 3)
    rows = [f"|-\n| A {ware} || {writer.draws.below(90) + 10} crowns" for ware in wares]
    return "\n".join(['{| class="wikitable"', "! Ware !! Price", *rows, "|}"])


def everyday_article(world: World, *, index: int, seed: int) -> Page:
    """Returns everyday article number `index`: the cat, the visit to Paris and the greeting take turns."""
    turn, theme_index = divmod(index, len(PATTERNS["everyday"]))
    theme = list(PATTERNS["everyday"].values())[theme_index]
    draws = Draws(seed, "everyday", index)
    slots = theme["slots"]
    # People are dealt from the end of the list; the towns take theirs from its start.
    facts = {"person": world.people[-1 - turn], "number": str(turn + 1), "pet": draws.choice(slots.get("pet", ["it"]))}
    title = draws.choice(theme["titles"]).format_map(facts)
    facts["bold"] = f"'''{title}'''"
    facts["first"] = facts["person"].split()[0]
    writer = Writer(facts, PATTERNS["words"] | slots, draws)
    # The same closing couple everywhere; with short articles, short segments are seen under both labels.
    groups = [*draws.sample(theme["groups"] * 2, 3 + draws.below(2)), theme["closing"]]
    couples = [" ".join(writer.sentence(pattern) for pattern in group) for group in groups]
    parts = [
        f"[[File:{title}.jpg|thumb|A picture for {facts['person']}.]]",
        writer.sentences(theme["lead"], 1)[0] + " " + " ".join(couples[:2]),
        "== More ==",
        " ".join(couples[2:]),
        f"[[Category:{theme['category']}]]",
    ]
    return Page(title=title, namespace=0, text="\n\n".join(parts))


def iter_pages(*, num_articles: int = 2_000, seed: int = 0) -> Iterator[Page]:
    """Yields the pages of the dump: the articles, and between them redirects, talk pages and pages of other namespaces.

    Args:
        num_articles: Articles, redirects not counted.
        seed: Another number gives another world.

    Raises:
        ValueError: If there are not enough names for so many articles.
    """
    if not 1 <= num_articles <= MAX_ARTICLES:
        raise ValueError(f"num_articles is {num_articles}; there are names for 1 to {MAX_ARTICLES} articles")
    yield Page(title="Project:About", namespace=4, text=ABOUT)
    yield Page(title="Template:Reflist", namespace=10, text="<references />")
    for name in sorted({entry["infobox"] for entry in PATTERNS["kinds"].values()}):
        yield Page(title=f"Template:Infobox {name}", namespace=10, text='{| class="infobox"\n! {{{name}}}\n|}')
    world = make_world(seed)
    for index in range(num_articles):
        num_everyday, step = divmod(index, EVERYDAY_INTERVAL)
        if step == EVERYDAY_INTERVAL - 1:
            article = everyday_article(world, index=num_everyday, seed=seed)
        else:
            article = world_article(world, index=index - num_everyday, seed=seed)
        yield article
        if index % REDIRECT_INTERVAL == 0:
            old_title = f"{article.title} (old name)"
            text = f"#REDIRECT [[{article.title}]]"
            yield Page(title=old_title, namespace=0, text=text, redirect=article.title)
        if index % (2 * REDIRECT_INTERVAL) == 0:
            yield Page(title=f"Talk:{article.title}", namespace=1, text="Is this true? No, all of it is invented. ~~~~")


def iter_xml(pages: Iterable[Page]) -> Iterator[str]:
    """Yields the dump's XML piece by piece, as Wikimedia writes it (export-0.11)."""
    yield f'<mediawiki xmlns="{SCHEMA}" version="0.11" xml:lang="en">\n'
    yield "  <siteinfo>\n    <sitename>Invented World</sitename>\n"
    yield "    <dbname>inventedwiki</dbname>\n    <case>first-letter</case>\n    <namespaces>\n"
    for key, name in NAMESPACES.items():
        yield f'      <namespace key="{key}" case="first-letter">{name}</namespace>\n'
    yield "    </namespaces>\n  </siteinfo>\n"
    for page_id, page in enumerate(pages, start=1):
        redirect = f"    <redirect title={quoteattr(page.redirect)} />\n" if page.redirect else ""
        yield (
            f"  <page>\n    <title>{escape(page.title)}</title>\n    <ns>{page.namespace}</ns>\n"
            f"    <id>{page_id}</id>\n{redirect}    <revision>\n      <id>{page_id}</id>\n"
            "      <timestamp>2024-01-01T00:00:00Z</timestamp>\n"
            "      <model>wikitext</model>\n      <format>text/x-wiki</format>\n"
            f'      <text bytes="{len(page.text.encode())}" xml:space="preserve">{escape(page.text)}</text>\n'
            "    </revision>\n  </page>\n"
        )
    yield "</mediawiki>\n"


def write_dump(path: Path, *, num_articles: int = 2_000, seed: int = 0) -> None:
    """Writes the dump to a file; see `iter_pages` for the options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(iter_xml(iter_pages(num_articles=num_articles, seed=seed)))


def main() -> None:
    """Reads the command line and writes the dump."""
    parser = argparse.ArgumentParser(description="Writes a small synthetic MediaWiki dump of an invented world.")
    parser.add_argument("--out", type=Path, required=True, help="the XML file to write")
    parser.add_argument("--num-articles", type=int, default=2_000, help="articles (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another number gives another world (default: %(default)s)")
    options = parser.parse_args()
    if not 1 <= options.num_articles <= MAX_ARTICLES:
        parser.error(f"--num-articles is {options.num_articles}; allowed are 1 to {MAX_ARTICLES}")
    write_dump(options.out, num_articles=options.num_articles, seed=options.seed)
    print(f"{options.out}: {options.num_articles} synthetic articles, {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
