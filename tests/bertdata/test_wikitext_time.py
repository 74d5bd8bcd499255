"""No page takes longer than another of its size: megabytes of markup that is nested, unclosed or mixed."""

import time
from itertools import product
from random import Random

import pytest

from bertdata.wikitext import clean_wikitext

MEGABYTE = 1_000_000
MAX_SECONDS = 5  # a megabyte takes up to one on a machine that is not busy; minutes if the time were quadratic

FRAGMENTS = [
    *("{{", "}}", "{{{", "}}}", "{{a|", "{{lang|fr|", "{{quote|", "{{convert|", "{{IPA|/", "{{!}}", "{{s|", "-{", "}-"),
    *("[[", "]]", "[[a|", "[[a:", "[[File:", "[[wikt:a|", "[[:", "[", "]", "[http://a ", "http://", "{", "}", "|", "="),
    *("<", ">", "<ref>", "</ref>", "<ref", "<ref/>", "<!--", "-->", "<nowiki>", "</nowiki>", "<math>", "</math>"),
    *("<math>\\a", "<code>", "</code>", "<gallery>", "<table>", "</table>", "<p>", "<br>", "<sup>", "\\"),
    *("{|", "|}", "\n{|\n", "\n|}\n", "|-\n", "\n|", "\n*", "\n:", "\n==", "== ", "==", "''", "'''", "'", "__", "__A"),
    *("&", "&amp;", "&#", "&lt;", ";", ",", ", ", "(", ")", "（", "。", '"', "-", "_", "/", " ", "\t", "\n\n", " \n"),
    *(
        "a",
        "A",
        "a ",
        "A ",
        "A. ",
        "1",
        ". ",
        "\n# Ab, ",
        "(1990). ",
        "ISBN",
        "pp. ",
        "University Press",
        "é",
        "\u0301",
    ),
    *("\xa0", "\ufdd0", "\ufdd1"),
]


def seconds_for(wikitext: str) -> float:
    started = time.process_time()
    clean_wikitext(wikitext)
    return time.process_time() - started


def repeat(unit: str, num_bytes: int) -> str:
    return unit * (num_bytes // len(unit.encode()) + 1)


def draw_page(random: Random, num_bytes: int) -> str:
    """Returns a few fragments over and over, runs of three of them, or all of them at random."""
    kind = random.choice(["repeated", "runs", "random"])
    if kind == "repeated":
        return repeat("".join(random.choices(FRAGMENTS, k=random.choice([2, 3, 5, 8, 20, 60]))), num_bytes)
    if kind == "runs":
        return "".join(repeat("".join(random.choices(FRAGMENTS, k=2)), num_bytes // 3) for _ in range(3))
    return "".join(random.choices(FRAGMENTS, k=num_bytes // 4))


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "{{",
            "}}",
            "[[",
            "]]",
            "<",
            "<ref>",
            "<ref",
            "<!--",
            "{|",
            "\n{|\n",
            "[",
            "{",
            "''",
            "'''",
            "&",
            "\n*",
            "\n|",
            "(",
        ),
        *(
            "[[a:",
            "[[a|",
            "{{a|",
            "{{lang|fr|",
            "<math>",
            "<gallery><ref>",
            "{{{",
            "-{",
            "<nowiki>",
            "[http://a ",
            "\\",
            " \n",
        ),
        *(
            "{{lang|fr|a}}",
            "{{quote|",
            "((",
            ", ",
            "__",
            "<table>",
            "<code>",
            "[[File:",
            "== ",
            " ",
            "\n\n",
            "<math>\\a",
        ),
    ],
)
def test_clean_wikitext_is_linear_in_a_megabyte_of(piece: str) -> None:
    open_seconds = seconds_for(piece * (MEGABYTE // len(piece)))
    closed_seconds = seconds_for(piece * (MEGABYTE // 10 // len(piece)) + "-->}}]]</ref></math>|}")
    assert open_seconds + closed_seconds < 15  # about a second on a machine that is not busy; minutes if quadratic


@pytest.mark.parametrize(
    "opening", ["[[", "[[a", "[[File:", "[[a|", "[//", "[//a ", "[mailto:", "{{frac|", "\n{|", "<ref", "("]
)
def test_clean_wikitext_is_linear_in_what_follows(opening: str) -> None:
    fillers = (" ", "a", "a ", "=", "\t", ",", "'", ":")
    seconds = sum(seconds_for(opening + filler * 100_000) for filler in fillers)
    assert seconds < 15  # a tenth of a second; minutes if quadratic


@pytest.mark.slow
@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        *(("{{a|", "}}"), ("{{quote|", "}}"), ("{{{a|", "}}}"), ("-{a:", "}-"), ("\n{|\n", "\n|}"), ("[[a|", "]]")),
        *(("[[File:a|", "]]"), ("[//a ", "]"), ("<table>", "</table>"), ("<ref>", "</ref>"), ("<!--", "-->")),
        *(("<nowiki>", "</nowiki>"), ("<math>", "</math>"), ("<gallery><ref>", "</ref></gallery>"), ("(", ")")),
        *(("{{a|[[b|", "]]}}"), ("[[File:a|{{b|", "}}]]"), ("{{a|<ref>", "</ref>}}"), ("\n{|\n|{{a|", "}}\n|}")),
    ],
)
def test_clean_wikitext_is_linear_in_a_megabyte_nested(opening: str, closing: str) -> None:
    depth = MEGABYTE // len(opening + closing)
    assert seconds_for(opening * depth + closing * depth) < MAX_SECONDS
    assert seconds_for("a " + opening * (depth // 10) + "b" + closing * (depth // 20)) < MAX_SECONDS / 5


@pytest.mark.parametrize(
    "unit",
    [
        "{{\n==<sup>&amp;''\n|ISBN</nowiki>[[File:}}}<br>{{quote|(([[:\u0301<nowiki>[[{{!}}\u0301a",
        "\n:{{lang|fr|</table>A. ,1''')pp. {{IPA|/<sup>]](. A==;<p>-</ref>\t<ref>{{IPA|/\n:<",
        *("<A", "A<", "<math>\\a", "[[<math>\\a", "\n* Ab, Cd. ef ", "\n* A. (1990). B. c d e f g h"),
    ],
)
def test_clean_wikitext_is_linear_in_the_slowest_that_fuzzing_found(unit: str) -> None:
    assert seconds_for(repeat(unit, MEGABYTE)) < MAX_SECONDS


def test_clean_wikitext_is_linear_in_mixed_fragments() -> None:
    random = Random(11)
    assert max(seconds_for(draw_page(random, MEGABYTE // 10)) for _ in range(40)) < MAX_SECONDS / 5


@pytest.mark.slow
def test_clean_wikitext_is_linear_in_pairs_of_fragments() -> None:
    """A pair over and over, and a run of the one before a run of the other; for a third of the pairs."""
    pairs = Random(5).sample(list(product(FRAGMENTS, FRAGMENTS)), k=len(FRAGMENTS) ** 2 // 3)
    slow = {
        (first, second): seconds
        for first, second in pairs
        if (
            seconds := seconds_for(repeat(first + second, MEGABYTE // 20))
            + seconds_for(repeat(first, MEGABYTE // 40) + repeat(second, MEGABYTE // 40))
        )
        > MAX_SECONDS / 10
    }
    assert slow == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_clean_wikitext_is_linear_in_a_megabyte_of_mixed_fragments(seed: int) -> None:
    random = Random(seed)
    assert max(seconds_for(draw_page(random, MEGABYTE)) for _ in range(25)) < MAX_SECONDS


def test_clean_wikitext_remembers_no_megabyte_long_names() -> None:
    wikitext = "{{" + "a" * MEGABYTE + "}}{{" + "lc:" + "B" * 200 + "}} is here."
    assert clean_wikitext(wikitext) == "B" * 200 + " is here."
