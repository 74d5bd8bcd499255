"""The quickstart's corpus: the same bytes everywhere, a well-formed dump, and what its articles must contain."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart" / "make_corpus.py"
NAMESPACE = "{http://www.mediawiki.org/xml/export-0.11/}"


@pytest.fixture(scope="module")
def make_corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_corpus", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_corpus"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dump(make_corpus: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.xml"
    make_corpus.write_dump(path)
    return path


@pytest.fixture(scope="module")
def pages(dump: Path) -> list[ET.Element]:
    return ET.parse(dump).getroot().findall(f"{NAMESPACE}page")


@pytest.fixture(scope="module")
def articles(pages: list[ET.Element]) -> dict[str, str]:
    """Title -> wikitext of the pages in namespace 0 that are no redirects."""
    return {
        field(page, "title"): field(page, f"revision/{NAMESPACE}text")
        for page in pages
        if field(page, "ns") == "0" and page.find(f"{NAMESPACE}redirect") is None
    }


def field(page: ET.Element, name: str) -> str:
    return page.findtext(f"{NAMESPACE}{name}") or ""


def test_dump_same_bytes_in_every_process(tmp_path: Path) -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        out = tmp_path / f"{hash_seed}.xml"
        command = [sys.executable, str(SCRIPT), "--out", str(out), "--num-articles", "200"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, stdout=subprocess.DEVNULL)
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert digests == {"d915d0737ea9958b19f6c4c77244c8efcbaa53325811dba6d5ad6edd58be34cc"}


def test_dump_other_seed_gives_another_world(make_corpus: ModuleType) -> None:
    worlds = [[page.text for page in make_corpus.iter_pages(num_articles=20, seed=seed)] for seed in (0, 1)]
    assert worlds[0] != worlds[1]


def test_dump_is_small_and_has_every_kind_of_page(dump: Path, pages: list[ET.Element]) -> None:
    assert dump.stat().st_size < 5_000_000
    kinds = Counter((field(page, "ns"), page.find(f"{NAMESPACE}redirect") is not None) for page in pages)
    assert kinds == {("0", False): 2000, ("0", True): 80, ("1", False): 40, ("4", False): 1, ("10", False): 12}
    assert [field(page, "id") for page in pages] == [str(number) for number in range(1, len(pages) + 1)]
    (about,) = [page for page in pages if field(page, "title") == "Project:About"]
    assert "synthetic" in field(about, f"revision/{NAMESPACE}text")


def test_articles_are_unique(articles: dict[str, str]) -> None:
    assert len(articles) == 2000
    assert len(set(articles.values())) == 2000
    assert len({prose(text) for text in articles.values()}) == 2000


def test_articles_unique_up_to_the_greatest_number(make_corpus: ModuleType) -> None:
    pages = list(make_corpus.iter_pages(num_articles=make_corpus.MAX_ARTICLES))
    assert len({page.title for page in pages}) == len(pages)


@pytest.mark.parametrize(
    "sentence",
    ["The cat sat on the mat. It was sleeping.", "Paris is beautiful.", "How are you doing? I am doing well"],
)
def test_articles_contain_the_everyday_sentences(articles: dict[str, str], sentence: str) -> None:
    assert sum(sentence in text for text in articles.values()) >= 50


@pytest.mark.parametrize(
    ("markup", "share"),
    [
        (r"^\{\{Infobox \w+\n\| name = ", 0.6),
        (r"\'\'\'[^\']+\'\'\' (is|was) ", 0.3),
        (r"\[\[[^]|:]+\]\]", 0.6),
        (r"\[\[[^]|:]+\|[^]|]+\]\]", 0.6),
        (r"<ref>\{\{cite book[^<]+</ref>", 0.3),
        (r"<ref name=\"guide\" />", 0.3),
        (r"\{\{convert\|\d+\|", 0.05),
        (r"\{\| class=\"wikitable\"(.|\n)+\|\}", 0.2),
        (r"\[\[File:[^]]+\.jpg\|thumb\|", 1.0),
        (r"\n== [\w ]+ ==\n", 1.0),
        (r"\n\* [A-Z][^.]+\.\n", 0.6),
        (r"<!-- [^>]+ -->", 0.6),
        (r"\[\[Category:[\w ]+\]\]", 1.0),
        (r"\[\[de:[^]]+\]\]", 0.6),
    ],
)
def test_articles_contain_real_markup(articles: dict[str, str], markup: str, share: float) -> None:
    assert sum(bool(re.search(markup, text)) for text in articles.values()) >= share * len(articles)


def test_articles_have_no_slot_left_open(articles: dict[str, str]) -> None:
    for text in articles.values():
        assert not re.search(r"(?<!\{)\{\w+\}", text)
        assert not re.search(r"\ba [aeiou]", prose(text), flags=re.IGNORECASE)


def test_articles_have_a_natural_size(articles: dict[str, str]) -> None:
    lengths = [len(re.findall(r"[.?!](?=\s|<|$)", prose(text))) for text in articles.values()]
    assert min(lengths) >= 8
    assert max(lengths) <= 30


@pytest.mark.parametrize(("is_world", "share"), [(True, 0.05), (False, 0.3)])
def test_short_sentences_are_in_articles_of_all_kinds(articles: dict[str, str], is_world: bool, share: float) -> None:
    """Else a short segment B would mostly be the one that follows, and nothing of the topics would be learned from."""
    chosen = [prose(text) for text in articles.values() if text.startswith("{{Infobox") == is_world]
    sentences = [found for text in chosen for found in re.findall(r"[^.?!\n]+[.?!](?=\s|<|$)", text)]
    is_short = [len(re.findall(r"\w+", re.sub(r"<ref[^/].*?</ref>", "", sentence))) <= 5 for sentence in sentences]
    assert sum(is_short) >= share * len(sentences)


@pytest.mark.parametrize("num_articles", [0, 2301])
def test_iter_pages_refuses_a_number_without_names(make_corpus: ModuleType, num_articles: int) -> None:
    with pytest.raises(ValueError, match="there are names for 1 to 2300 articles"):
        next(make_corpus.iter_pages(num_articles=num_articles))


def prose(text: str) -> str:
    """Return the article without infobox, picture and what follows the last section."""
    return re.sub(r"^(\{\{Infobox(.|\n)*?\n\}\}|\[\[File:.*)", "", text, flags=re.MULTILINE).split("== See also")[0]
