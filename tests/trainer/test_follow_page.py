"""The page of `bert-train follow`: what it says of a document, and what is said where it cannot be made."""

import dataclasses
import html
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from bertdata.config import BuildOptions
from bertdata.data_set import DataSet, open_data_set
from bertdata.walk import walk_document
from tests.trainer.followed import SOME_TEXTS, SOURCE, TITLE, build_wiki, export, make_model, write_wiki
from trainer.cli import main
from trainer.follow_answer import answer_sample
from trainer.follow_model import load_model
from trainer.follow_page import make_page
from trainer.follow_text import choose_sample, excerpt_of_source, excerpt_of_text, sentence_rows

SECTIONS = [
    *("source", "text", "sentences", "pair", "tokens", "masks"),
    *("embeddings", "layers", "words", "next", "loss", "training"),
]


class Wiki(NamedTuple):
    """A dump, the data set built of it, and the folder of a model."""

    path: Path
    data_set: DataSet
    model: Path


@pytest.fixture(scope="module")
def wiki(tmp_path_factory: pytest.TempPathFactory, small_options: BuildOptions) -> Wiki:
    folder = tmp_path_factory.mktemp("wiki")
    path = write_wiki(folder)
    data_set = build_wiki(folder, path, small_options)
    return Wiki(path, data_set, export(make_model(data_set), folder / "hf", data_set=data_set))


def invoke(wiki: Wiki, out: Path, *, title: str = TITLE, more: tuple[object, ...] = (), **changes: Any) -> Result:
    wiki = wiki._replace(**changes)
    arguments = ("follow", wiki.model, "--shards", wiki.data_set.folder, "--document", title, "--input", wiki.path)
    words = [str(word) for word in (*arguments, "--out", out, *more)]
    return CliRunner().invoke(main, words, prog_name="bert-train")


def read(wiki: Wiki, out: Path, **changes: Any) -> str:
    result = invoke(wiki, out, **changes)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out}\n"
    return out.read_text()


def text_of(page: str, section: str | None = None) -> str:
    """The words of a page, or of one of its sections, as they are read."""
    if section is not None:
        page = page.split(f'<section id="{section}"')[1].split("</section>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.split("</style>")[-1])).split())


@pytest.fixture(scope="module")
def page(wiki: Wiki, tmp_path_factory: pytest.TempPathFactory) -> str:
    return read(wiki, tmp_path_factory.mktemp("page") / "new" / "follow.html")


def test_all_stages_are_there_in_order_and_numbered(page: str) -> None:
    assert re.findall('<section id="([a-z]+)"', page) == SECTIONS
    assert re.findall(r'<span class="step">(\d+)</span>', page) == [str(number) for number in range(1, 13)]
    assert re.findall('<li><a href="#([a-z]+)">', page) == SECTIONS


def test_page_needs_nothing_beside_it_and_nothing_of_the_input_becomes_html(page: str) -> None:
    assert not re.search(r"<script|<link|<img|https?://|url\(|@import", page)
    assert "Content-Security-Policy" in page
    assert html.escape(TITLE) in page
    assert "<river>" not in page
    assert "&lt;ref&gt;A letter&lt;/ref&gt;" in page


def test_the_text_is_followed_from_markup_to_segments(page: str) -> None:
    source = text_of(page, "source")
    assert "{{Infobox|town|stone}}" in source
    plain = text_of(page, "text")
    assert "The river of the old town keeps the miller." in plain
    assert "Infobox" not in plain
    assert f"{len(SOURCE):,} characters" in plain.replace("of ", "")
    sentences = text_of(page, "sentences")
    assert "no letter in it" in sentences
    assert 'class="badge a">A<' in page


def test_the_same_input_gives_the_same_page(wiki: Wiki, page: str, tmp_path: Path) -> None:
    assert read(wiki, tmp_path / "again.html") == page


def test_numbers_on_the_page_are_those_of_the_model(wiki: Wiki, page: str) -> None:
    walk = walk_document(wiki.data_set, inputs=[str(wiki.path)], name=TITLE)
    sample = walk.samples[choose_sample(walk)].found.content
    model = load_model(wiki.model, data_set=wiki.data_set).model
    answers = [answer_sample(model, sample, mask_set=number) for number in range(3)]
    loss, first = text_of(page, "loss"), answers[0]
    total = sum(one.loss for one in first.predictions)
    assert f"MLM loss = {total:.3f} ÷ {len(first.predictions)} = {first.mlm_loss:.3f}" in loss
    assert first.nsp_loss is not None
    assert f"loss = {first.mlm_loss:.3f} + {first.nsp_loss:.3f} = {first.loss:.3f}" in loss
    for one in first.predictions:
        assert f"{100 * one.truth.probability:.3g}% {one.loss:.3f}" in loss
    masks = text_of(page, "masks")
    assert "3 mask sets" in masks
    assert all(f"the loss on it is {answer.loss:.3f}" in masks for answer in answers[1:])
    assert len(re.findall('<article class="card">', page)) == len(first.predictions)
    tokens = re.findall(r'<span title="token id">(\d+)</span>', page)
    assert tokens == [str(token) for token in sample.tokens]
    shown = f"1 × {len(sample.tokens)} × 48"
    assert shown in text_of(page, "embeddings")
    assert shown in text_of(page, "layers")


def test_each_card_shows_the_truth_once_and_bars_that_fit(page: str) -> None:
    cards = re.findall('<article class="card">(.*?)</article>', page, re.DOTALL)
    for card in cards:
        assert card.count('class="truth"') == 1
        widths = [float(width) for width in re.findall(r"width:([\d.]+)%", card)]
        assert len(widths) in (5, 6)
        assert widths[:5] == sorted(widths[:5], reverse=True)
        assert max(widths) <= 100


def test_added_embeddings_add_up_on_the_page(page: str) -> None:
    table = page.split('aria-label="An addition"')[1].split("</table>")[0]
    rows = [
        [float(value.replace("−", "-")) for value in re.findall(r'class="mono">([−\d.]+)<', row)]
        for row in table.split("</tr>")
    ]
    word, segment, position, total = rows[:4]
    for parts in zip(word, segment, position, total, strict=True):
        assert sum(parts[:3]) == pytest.approx(parts[3], abs=2e-4)


def test_attention_of_each_layer_adds_up_to_all(page: str) -> None:
    layers = re.findall(r'<div class="looks"[^>]*>(.*?)</div>', page, re.DOTALL)
    assert len(layers) == 3
    for layer in layers:
        shares = [
            0.0005 if share.startswith("&lt;") else float(share) / 100
            for share in re.findall(r'title="((?:&lt;)?[\d.]+)%"', layer)
        ]
        assert sum(shares) == pytest.approx(1, abs=0.02)
        assert layer.count('class="here"') == 1


def test_sample_option_chooses_another_sample(wiki: Wiki, page: str, tmp_path: Path) -> None:
    walk = walk_document(wiki.data_set, inputs=[str(wiki.path)], name="Title 3")
    total = len(walk.samples)
    pages = {
        read(wiki, tmp_path / f"{number}.html", title="Title 3", more=("--sample", number)) for number in (1, total)
    }
    assert len(pages) == 2
    result = invoke(wiki, tmp_path / "none.html", title="Title 3", more=("--sample", total + 1))
    assert result.exit_code == 1
    assert f"--sample is {total + 1}; the document has the samples 1 to {total}" in result.stderr
    assert not (tmp_path / "none.html").exists()


def test_default_sample_is_easy_to_follow(wiki: Wiki) -> None:
    for number in range(0, len(SOME_TEXTS), 3):
        walk = walk_document(wiki.data_set, inputs=[str(wiki.path)], name=f"Title {number}")
        content = walk.samples[choose_sample(walk)].found.content
        others = [sample.found.content for sample in walk.samples]
        assert 1 in content.segment_ids
        if any(len(one.mask_sets[0][0]) >= 3 for one in others):
            assert len(content.mask_sets[0][0]) >= 3


def test_sentence_cut_between_the_segments_is_marked_as_both(small_data_set: Path, jsonl_file: Path) -> None:
    data_set = open_data_set(small_data_set)
    walk = walk_document(data_set, inputs=[str(jsonl_file)], name="line 12")
    first = next(sample for sample in walk.samples if sample.alignment.b is not None)
    names = list(walk.sentence_names)
    segment_a, segment_b = first.alignment.a, first.alignment.b
    assert segment_b is not None
    number = names[segment_a.last]
    names[segment_a.last], names[segment_b.first] = f"{number}.1", f"{number}.2"
    rows = sentence_rows(dataclasses.replace(walk, sentence_names=tuple(names)), first)
    assert {row.number: row.segment for row in rows}[int(number)] == "AB"


def test_marked_text_is_that_of_the_segments(wiki: Wiki) -> None:
    walk = walk_document(wiki.data_set, inputs=[str(wiki.path)], name="Title 3")
    for sample in walk.samples:
        rows = {row.number: row for row in sentence_rows(walk, sample)}
        excerpt = excerpt_of_text(walk, sample)
        document = walk.record.document
        assert document is not None
        whole = "".join(text for text, _ in excerpt.parts)
        assert document.text[excerpt.before : len(document.text) - excerpt.after] == whole
        for name, segment in (("A", sample.alignment.a), ("B", sample.alignment.b)):
            if segment is None:
                continue
            first = int(walk.sentence_names[segment.first].partition(".")[0])
            assert first in rows
            assert name in rows[first].segment
            marked = " ".join(text for text, kind in excerpt.parts if name in kind)
            assert walk.sentences[first - 1].text[:30] in marked
        source = excerpt_of_source(walk, sample)
        assert walk.record.raw is not None
        shown = "".join(text for text, _ in source.parts)
        assert walk.record.raw[source.before : len(walk.record.raw) - source.after] == shown


@pytest.mark.parametrize(
    "mode", ["none", pytest.param("sop", marks=pytest.mark.slow), pytest.param("google", marks=pytest.mark.slow)]
)
def test_other_modes_get_a_page_of_their_own(
    wiki: Wiki, small_options: BuildOptions, tmp_path: Path, mode: str
) -> None:
    data_set = build_wiki(
        tmp_path, wiki.path, small_options, next_sentence=mode, num_mask_sets=0 if mode == "sop" else 2
    )
    page = read(wiki, tmp_path / "follow.html", data_set=data_set)
    found = re.findall('<section id="([a-z]+)"', page)
    if mode == "none":
        assert found == [section for section in SECTIONS if section != "next"]
        assert not re.search("NSP|IsNext|segment B", text_of(page))
        assert "The loss How good" in text_of(page, "loss")
    else:
        assert found == SECTIONS
    if mode == "sop":
        assert "swapped" in text_of(page, "next")
        assert "IsNext" not in text_of(page)
        assert "training draws a new one each time" in text_of(page, "masks")


@pytest.mark.slow
def test_run_is_followed_at_its_newest_step_also_without_a_next_sentence_head(
    wiki: Wiki, small_options: BuildOptions, tmp_path: Path
) -> None:
    """A run on shards without labels has nothing to say of next sentences, so the page leaves them out and says so."""
    data_set = build_wiki(tmp_path, wiki.path, small_options, next_sentence="none")
    run = tmp_path / "run"
    words = ["--shards", data_set.folder, "--out", run, "--model", "tiny", "--max-steps", 2, "--batch-size", 8]
    result = CliRunner().invoke(main, [str(word) for word in words], prog_name="bert-train")
    assert result.exit_code == 0, result.stderr
    page = read(wiki, tmp_path / "none.html", model=run, data_set=data_set)
    assert "after 2 steps of training" in text_of(page)
    for model in (run, run / "hf"):  # the export has weights of that head, which were never trained
        page = read(wiki, tmp_path / f"{model.name}.html", model=model)
        assert "has not learned to predict next sentences" in text_of(page)
        assert "next" not in re.findall('<section id="([a-z]+)"', page)
    assert "IsNext" in text_of(page, "pair") or "NotNext" in text_of(page, "pair")


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("Titel 3", r"is not among the \d+ records of the input; the nearest names are 'Title 3'"),
        ("One sentence", "is in no sample of .*: it has one sentence"),
    ],
)
def test_document_that_cannot_be_followed_is_an_error(wiki: Wiki, tmp_path: Path, title: str, message: str) -> None:
    result = invoke(wiki, tmp_path / "follow.html", title=title)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.search(message, result.stderr)
    assert not (tmp_path / "follow.html").exists()


def test_folder_without_a_model_is_an_error_before_the_input_is_looked_through(wiki: Wiki, tmp_path: Path) -> None:
    result = invoke(wiki, tmp_path / "follow.html", model=tmp_path, path=tmp_path / "nowhere.xml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds no checkpoints and no config.json" in result.stderr


def test_markup_is_told_from_words(wiki: Wiki) -> None:
    walk = walk_document(wiki.data_set, inputs=[str(wiki.path)], name=TITLE)
    source = (
        "{{Infobox|{{small|x}}\n|y}} '''Bold''' and [[a link|words]] or [[word]].<ref name=a>No</ref>\n{|\n|a\n|}\n"
        "[[File:a.jpg|thumb|A [[boat]].]]<!-- no -->== Head ==" + " and so on" * 200
    )
    walk = dataclasses.replace(walk, record=dataclasses.replace(walk.record, raw=source))
    parts = excerpt_of_source(walk, walk.samples[0]).parts
    shown = "".join(text for text, _ in parts)
    assert source.startswith(shown)
    assert len(shown) < len(source)
    kept = "".join(text for text, kind in parts if not kind)
    assert kept.startswith(" Bold and words or word.\n\n Head  and so on")


@pytest.mark.slow
def test_record_of_another_format_is_followed_by_its_place(
    small_data_set: Path, jsonl_file: Path, tmp_path: Path
) -> None:
    data_set = open_data_set(small_data_set)
    wiki = Wiki(jsonl_file, data_set, export(make_model(data_set), tmp_path / "hf", data_set=data_set))
    page = read(wiki, tmp_path / "follow.html", title="line 12")
    assert "<h1>line 12</h1>" in page
    assert "This is how the document stands in corpus.jsonl" in text_of(page, "source")
    assert '{"text": "' in text_of(page, "source")
    assert 'class="markup"' not in page


def test_one_huge_record_gives_a_page_without_its_source(wiki: Wiki) -> None:
    walk = walk_document(wiki.data_set, inputs=[str(wiki.path)], name=TITLE)
    walk = dataclasses.replace(walk, record=dataclasses.replace(walk.record, raw=None))
    loaded = load_model(wiki.model, data_set=wiki.data_set)
    page = make_page(walk, chosen=0, loaded=loaded, data_set=wiki.data_set, model_name="model")
    assert "too large to be shown" in text_of(page, "source")


def test_missing_libraries_are_named(wiki: Wiki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    result = invoke(wiki, tmp_path / "follow.html")
    assert result.exit_code == 1
    assert 'needs jinja2 and sentencex: pip install "bertdata[build,report]"' in result.stderr
