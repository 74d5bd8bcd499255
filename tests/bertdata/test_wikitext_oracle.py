"""The cleaner on real pages, held against mwparserfromhell's syntax tree, and read for what is left of markup."""

from __future__ import annotations

import bz2
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertdata.sentences import split_sentences
from bertdata.wikitext import clean_wikitext
from tests.bertdata.wikitext_oracle import count_in_order, oracle_words, words_of

DUMPS = ["enwiki-106-articles.xml.bz2", "enwiki-tables.xml.bz2"]
RESIDUE = ("{{", "}}", "[[", "]]", "<ref", "|thumb", "''", "==")


def read_articles(dump: Path) -> dict[str, str]:
    pages = ElementTree.fromstring(bz2.decompress(dump.read_bytes())).iterfind("{*}page")
    texts = {page.findtext("{*}title", ""): page.findtext("{*}revision/{*}text", "") for page in pages}
    return {title: text for title, text in texts.items() if not text.lower().startswith("#redirect")}


@pytest.mark.parametrize(
    ("dump", "nth"), [(DUMPS[0], 5), (DUMPS[1], 1), pytest.param(DUMPS[0], 1, marks=pytest.mark.slow)]
)
def test_clean_wikitext_keeps_words_of_every_real_page(shared_data: Path, dump: str, nth: int) -> None:
    shares = {}
    for title, wikitext in list(read_articles(shared_data / dump).items())[::nth]:
        wanted = oracle_words(wikitext)
        if wanted:
            shares[title] = count_in_order(wanted, words_of(clean_wikitext(wikitext))) / len(wanted)
    assert shares
    assert {title: share for title, share in shares.items() if share < 0.98} == {}


def test_clean_wikitext_leaves_no_markup_in_real_pages(shared_data: Path) -> None:
    num_sentences = 0
    with_residue: Counter[str] = Counter()
    for dump in DUMPS:
        for wikitext in read_articles(shared_data / dump).values():
            for sentence in split_sentences(clean_wikitext(wikitext), language="en"):
                num_sentences += 1
                with_residue.update(markup for markup in RESIDUE if markup in sentence)
    assert num_sentences > 15_000
    assert with_residue.total() * 10_000 < num_sentences, with_residue


# ---- the oracle itself -----------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_count_in_order_is_the_longest_common_subsequence(wanted: list[str], given_words: list[str]) -> None:
    lengths = [0] * (len(given_words) + 1)  # of the longest common subsequence with each beginning of given_words
    for word in wanted:
        before = lengths[:]
        for i, other in enumerate(given_words):
            lengths[i + 1] = before[i] + 1 if word == other else max(before[i + 1], lengths[i])
    assert count_in_order(wanted, given_words) == lengths[-1]


def test_oracle_words_are_those_of_the_prose() -> None:
    wikitext = """{{Infobox|a=b}}[[File:A.jpg|thumb|A [[caption]].]]
'''Bold''' [[page|label]]<ref>note</ref> &amp; [http://x.org site].
{| class=x
| cell
|}
* This item is a whole sentence.
* No sentence
== Further reading ==
A book.
=== More ===
* This is a book about many things.
== History ==
The end.
[[Category:A]]"""
    assert " ".join(oracle_words(wikitext)) == "Bold label site This item is a whole sentence The end"
