"""Writes four small labelled data sets about the quickstart's invented world, in the formats of well-known ones.

    python examples/finetune/make_data.py --out data/

    data/sentences/{train,test}.tsv     which of eight crafts a sentence is about             columns as in SST-2
    data/pairs/{train,test}.tsv         whether two sentences are about the same craft        columns as in RTE
    data/tokens/{train,test}.txt        persons, towns, and the things of eight crafts        columns as in CoNLL-2003
    data/questions/{train,test}.json    a question on a short text, and where its answer is   SQuAD 1.1

The words are the quickstart's (`topics.json`, `patterns.json`), the sentence patterns are not. Of each list of words,
one half is used in the training rows alone and the other in the test rows alone. So no test sentence is a training
sentence, and a model can label the test's words only by what it knew of them before. That is what the data sets ask,
and a kind question for a pre-trained encoder, which has seen all of the words in the quickstart's text.

The same options give the same bytes on every machine: every choice is a hash of its name.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "quickstart"))

from make_corpus import PATTERNS, TOPICS, Draws, singular

Words = Mapping[str, Sequence[str]]
Parts = list[tuple[str, str]]  # text, and the slot that it fills or ""

NUM_TRAINING = {"sentences": 400, "pairs": 400, "tokens": 400, "questions": 1000}  # spans want more
NUM_TEST = 400
CRAFT_PATTERNS = [
    "My uncle bought the {tool} and {few} sacks of {material}.",
    "The {maker} asked for the {tool} and for {material}.",
    "They ate {dish} before they began to {action}.",
    "The {animal} sat on the {tool} of the {maker}.",
    "We saw the {quality} {product} at the {place}.",
    "My sister would like to {action} with the {tool}.",
    "Please bring {product} and {dish} to the {festival}.",
    "It was {festival}, and the {place} was closed.",
    "In the {place} one finds {material} and the {animal}.",
    "The {maker} gave me {product} for the {tool}.",
]
TAG_PATTERNS = [
    "{person} of {town} has the {thing} and the {thing}.",
    "In {town} they spoke of the {thing} for {few} days.",
    "The {thing} was a gift from {person}.",
    "{person} and {person} looked at the {colour} {thing}.",
    "Near {town} I found the {thing} that {person} wanted.",
    "Have you seen the {thing} or the {thing} in {town}?",
    "The {colour} {thing} is dear, said {person}.",
    "{person} asked where the {thing} was.",
]
THINGS = ["tool", "material", "product", "animal", "dish"]
TAGS = {"person": "PER", "town": "TOWN"} | {topic: topic.upper() for topic in TOPICS}
TEXT_PATTERNS = [
    "{person} came to {town} with the {thing}, the {thing} and the {thing}.",
    "In {town} {person} spoke of the {thing}, the {thing} and the {thing}.",
    "There were the {thing}, the {thing} and the {thing} when {person} was in {town}.",
]
QUESTIONS = {
    "person": ["Who is the text about?", "Who was in the town?"],
    "town": ["Which town was it?", "Where did this happen?"],
    **{
        topic: [f"What belongs to {entry['craft']}?", f"What is of {entry['craft']}?"]
        for topic, entry in TOPICS.items()
    },
}


def half(words: Words, *, split: str) -> dict[str, Sequence[str]]:
    """Returns one half of each list of words; those of the splits share no word."""
    drawn = {slot: Draws("finetune", *values).sample(values) for slot, values in words.items()}
    return {
        slot: values[: len(values) // 2] if split == "train" else values[len(values) // 2 :]
        for slot, values in drawn.items()
    }


@cache
def craft_words(topic: str, *, split: str) -> dict[str, Sequence[str]]:
    """Returns the words of a craft by slot, and those that all crafts share."""
    own = {singular(slot): values for slot, values in TOPICS[topic].items() if slot not in ("craft", "scenes")}
    return half(own, split=split) | PATTERNS["words"]


@cache
def world_words(*, split: str) -> dict[str, Sequence[str]]:
    """Returns names, and the things of each craft, by slot."""
    names = half(PATTERNS["names"], split=split)
    return {
        "person": [f"{first} {family}" for first in names["first"] for family in names["family"]],
        "town": [start + end for start in names["town_starts"] for end in names["town_ends"]],
        **{topic: [word for slot in THINGS for word in craft_words(topic, split=split)[slot]] for topic in TOPICS},
        **PATTERNS["words"],
    }


def fill(pattern: str, words: Words, draws: Draws) -> Parts:
    """Returns the pattern with a word in each slot, none twice; things are of different crafts."""
    parts: Parts = []
    crafts = iter(draws.sample(TOPICS))
    for number, text in enumerate(re.split(r"\{(\w+)\}", pattern)):
        slot = "" if number % 2 == 0 else next(crafts) if text == "thing" else text
        used = [part for part, _ in parts]
        parts.append((draws.choice([word for word in words[slot] if word not in used]) if slot else text, slot))
    first = next(number for number, (text, _) in enumerate(parts) if text)
    parts[first] = (parts[first][0][0].upper() + parts[first][0][1:], parts[first][1])
    return parts


def as_text(parts: Parts) -> str:
    """Returns the sentence that the parts make."""
    return "".join(text for text, _ in parts)


def sentence_row(number: int, split: str) -> dict[str, Any]:
    """Returns a sentence, and the craft that it is about; the crafts take turns."""
    draws = Draws("finetune", "sentences", split, number)
    topic = list(TOPICS)[number % len(TOPICS)]
    return {
        "sentence": as_text(fill(draws.choice(CRAFT_PATTERNS), craft_words(topic, split=split), draws)),
        "label": topic,
    }


def pair_row(number: int, split: str) -> dict[str, Any]:
    """Returns two sentences about the same craft, or about two."""
    draws = Draws("finetune", "pairs", split, number)
    topics = draws.sample(TOPICS, 2) if number % 2 else [draws.choice(list(TOPICS))] * 2
    patterns = draws.sample(CRAFT_PATTERNS, 2)
    one, other = (as_text(fill(p, craft_words(t, split=split), draws)) for p, t in zip(patterns, topics, strict=True))
    return {"sentence1": one, "sentence2": other, "label": "different" if number % 2 else "same"}


def tagged_row(number: int, split: str) -> list[tuple[str, str]]:
    """Returns the words of a sentence with their tags."""
    draws = Draws("finetune", "tokens", split, number)
    row = []
    for text, slot in fill(draws.choice(TAG_PATTERNS), world_words(split=split), draws):
        for place, word in enumerate(re.findall(r"\w+|[^\w\s]", text)):
            row.append((word, f"{'I' if place else 'B'}-{TAGS[slot]}" if slot in TAGS else "O"))
    return row


def question_row(number: int, split: str) -> dict[str, Any]:
    """Returns a question, a text, and the answer with its offset in the text, in characters."""
    draws = Draws("finetune", "questions", split, number)
    parts = fill(draws.choice(TEXT_PATTERNS), world_words(split=split), draws)
    slots = [slot for _, slot in parts]
    slot = draws.choice([slot for slot in slots if slot])
    place = slots.index(slot)
    answer = {"text": parts[place][0], "answer_start": len(as_text(parts[:place]))}
    return {"context": as_text(parts), "qas": [{"question": draws.choice(QUESTIONS[slot]), "answers": [answer]}]}


def distinct_rows(make: Callable[[int, str], Any], split: str, *, number: int) -> list[Any]:
    """Returns so many rows, none twice."""
    rows: dict[str, Any] = {}
    for draw in count():
        row = make(draw, split)
        rows.setdefault(json.dumps(row), row)
        if len(rows) == number:
            break
    return list(rows.values())


def write_table(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as tab-separated values under a line with the names of the columns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def write_tagged(path: Path, sentences: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Writes a line per word, and an empty one between sentences."""
    blocks = ("".join(f"{word} {tag}\n" for word, tag in sentence) for sentence in sentences)
    path.write_text("\n".join(blocks), encoding="utf-8", newline="\n")


def write_squad(path: Path, paragraphs: Sequence[dict[str, Any]]) -> None:
    """Writes texts with their questions, and gives each question its id."""
    for number, paragraph in enumerate(paragraphs):
        paragraph["qas"][0]["id"] = f"{path.stem}-{number}"
    squad = {"version": "1.1", "data": [{"title": "The invented world", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(squad, indent=1) + "\n", encoding="utf-8", newline="\n")


def write_data(out: Path, *, num_training: Mapping[str, int] = NUM_TRAINING, num_test: int = NUM_TEST) -> None:
    """Writes the training and the test rows of all four data sets."""
    kinds: dict[str, tuple[Callable[[int, str], Any], Callable[[Path, Any], None], str]] = {
        "sentences": (sentence_row, write_table, "tsv"),
        "pairs": (pair_row, write_table, "tsv"),
        "tokens": (tagged_row, write_tagged, "txt"),
        "questions": (question_row, write_squad, "json"),
    }
    for name, (make, write, suffix) in kinds.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for split, number in (("train", num_training[name]), ("test", num_test)):
            write(out / name / f"{split}.{suffix}", distinct_rows(make, split, number=number))


def main() -> None:
    """Reads the command line and writes the data sets."""
    parser = argparse.ArgumentParser(description="Writes four small labelled data sets about the quickstart's world.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    write_data(parser.parse_args().out)


if __name__ == "__main__":
    main()
