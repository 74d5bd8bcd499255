import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

import bertdata
from bertdata.cli import main
from bertdata.page import format_bytes, format_percent, format_short
from bertdata.report import make_page
from bertdata.report_numbers import report_numbers
from bertdata.report_samples import iter_shown_samples
from bertdata.wordpiece import load_tokenizer
from tests.bertdata.pages import Page, check_is_alone, check_is_well_formed
from tests.bertdata.report_builds import MODES, build_all_modes
from tests.bertdata.small_builds import build, write_jsonl

HOSTILE = "<script>alert(1)</script>&amp;\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory, small_options):
    return build_all_modes(tmp_path_factory.mktemp("modes"), small_options)[0]


@pytest.fixture(scope="module")
def htmls(folders):
    return {mode: make_page(bertdata.open_data_set(folder), num_samples=4) for mode, folder in folders.items()}


@pytest.fixture(params=MODES)
def html(request, htmls):
    return htmls[request.param]


def test_page_needs_nothing_beside_it(html):
    check_is_alone(html)


def test_page_is_well_formed(html):
    page = check_is_well_formed(html)
    assert page.tags().count("figure") == page.tags().count("figcaption") == page.tags().count("svg") >= 6


@pytest.mark.parametrize("mode", MODES)
def test_page_tells_what_the_mode_has(htmls, mode):
    text = " ".join(Page(htmls[mode]).text.split())
    labels = {"balanced": "NotNext", "google": "NotNext, forced", "sop": "swapped"}
    assert ("What lengths give away" in text) == (mode in labels)
    assert labels.get(mode, "Single segments of at most 64 tokens") in text
    assert ("NotNext, forced" in text) == (mode == "google")
    assert ("the trainer draws another one in each epoch" in text) == (mode == "sop")
    assert ("Marked is a mask set as the trainer draws it" in text) == (mode == "sop")
    assert ("Where predictions lie" in text) == (mode != "sop")
    assert ("at most 8)" in text) == (mode == "none")
    for title in ("From pages to samples", "Lengths", "Masks", "Vocabulary", "Samples", "Options and provenance"):
        assert title in text


def test_page_shows_the_numbers(folders, htmls):
    data_set = bertdata.open_data_set(folders["balanced"])
    numbers = report_numbers(data_set, data_set.load_statistics())
    text = " ".join(Page(htmls["balanced"]).text.split())
    for name in (
        "input.read",
        "input.records",
        "input.documents_kept",
        "input.tokens_never_shown",
        "shards.train_samples",
    ):
        assert f"{numbers[name]:,}" in text
    assert f"{numbers['shards.padding_share']:.1%}" in text
    assert f"−{numbers['input.pages_dropped.redirects']:,}" in text
    assert "filtered: no_milk" in text
    assert "rejected: bad json" in text
    for name, value in numbers.items():
        assert isinstance(value, list) or f"{name}{value}" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (9_999_999, "9,999,999"), (10_000_000, "10 M"), (12_345_678, "12.3 M"), (4_560_000_000, "4.56 bn")],
)
def test_headlines_are_short(value, text):
    assert format_short(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0%"), (0.00049, "<0.1%"), (0.0006, "0.1%"), (0.5, "50.0%"), (0.9996, ">99.9%"), (1, "100.0%")],
)
def test_no_share_is_rounded_to_all_or_nothing(value, text):
    assert format_percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (5 * 2**50, "5,120.0 TiB")]
)
def test_sizes_have_units(value, text):
    assert format_bytes(value) == text


def test_number_of_samples_is_as_asked(html, page_with_warning):
    assert Page(html).tags().count("article") == 4
    assert page_with_warning.tags().count("article") == 0
    assert "samples" not in page_with_warning.values_of("id")


def contrast(one, other):
    """WCAG's contrast ratio of two colours, 1 to 21."""

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_text_can_be_read_on_its_ground(html, theme):
    block = re.findall(r":root \{([^}]*)\}", html)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    grounds = {
        "ink": ("page", "card", "warn", "first-soft", "second-soft", "good-soft"),
        "muted": ("page", "card"),
        **dict.fromkeys(("first", "second", "good"), ("card", "page")),
    }
    for text, names in grounds.items():
        for ground in names:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_warnings_stand_on_top(html, page_with_warning):
    assert "No warnings" in html
    assert "Warning: 50.0% of the tokens are [UNK]" in " ".join(page_with_warning.text.split())


@pytest.fixture(scope="module")
def page_with_warning(folders):
    data_set = bertdata.open_data_set(folders["balanced"])
    counts = data_set.manifest.counts | {"unknown_tokens": data_set.manifest.counts["tokens"] // 2}
    manifest = dataclasses.replace(data_set.manifest, counts=counts)
    return Page(make_page(dataclasses.replace(data_set, manifest=manifest), num_samples=0))


def test_all_text_is_escaped(tmp_path, small_options, tokenizer_file):
    values = json.loads(tokenizer_file.read_text())
    values["model"]["vocab"] |= {HOSTILE: len(values["model"]["vocab"])}
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    folder = tmp_path / "<b>&amp;<script>alert(2)<"
    source = write_jsonl(tmp_path / "<i>.jsonl", [f"The town {n}. A new river." for n in range(300)])
    options = dataclasses.replace(
        small_options,
        read=dataclasses.replace(small_options.read, text_field="text"),
        tokenizer=dataclasses.replace(small_options.tokenizer, path=str(tmp_path / "tokenizer.json")),
    )
    data_set = bertdata.open_data_set(build(folder, source, options=options))
    manifest = data_set.manifest
    manifest = dataclasses.replace(
        manifest,
        options={**manifest.options, "read": {**manifest.options["read"], "text_field": HOSTILE}},
        versions=manifest.versions | {HOSTILE: HOSTILE},
        inputs=[*manifest.inputs, {"name": HOSTILE, "bytes": 1}],
        counts=manifest.counts | {f"filtered_{HOSTILE}": 1},
        languages=manifest.languages | {HOSTILE: 3},
        build=HOSTILE,
    )
    html = make_page(dataclasses.replace(data_set, manifest=manifest), num_samples=5)
    page = check_is_alone(html)
    assert "<script" not in html
    assert "<i>" not in html.replace('<i class="', "")
    assert page.text.count(HOSTILE) >= 7
    assert "{{ 7 * 7 }}" in page.text
    assert "<i>.jsonl" in page.text
    assert "<b>&amp;<script>alert(2)<" in page.text


def test_samples_are_those_of_the_shards(folders):
    folder = folders["balanced"]
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    shown = list(iter_shown_samples(bertdata.open_data_set(folder), num_samples=150))
    samples = [sample for sample, _ in zip(bertdata.read_samples(folder), range(150), strict=False)]
    assert len(shown) == 150  # more than a block has
    names = {4: "masked"}
    for view, sample in zip(shown, samples, strict=True):
        pieces = [piece for segment in view.segments for piece in segment]
        predicted = dict(zip(*sample.mask_sets[0], strict=True))
        assert [len(segment) for segment in view.segments] == [sample.segment_ids.count(n) for n in (0, 1)]
        assert view.label == ("IsNext", "NotNext")[sample.next_sentence_label]
        assert view.documents[0] == f"{sample.document_keys[0]:016x}"
        for position, (piece, token) in enumerate(zip(pieces, sample.tokens, strict=True)):
            entry = tokenizer.id_to_token(token)
            seen = predicted.get(position, token)
            answer = piece.answer if position in predicted else piece.text
            assert answer == (entry.removeprefix("##") if piece.is_joined else entry)
            assert piece.is_joined == entry.startswith("##") or pieces[position - 1].kind == "special"
            assert (piece.answer is None) == (position not in predicted)
            if position in predicted:
                assert piece.kind == names.get(seen, "kept" if seen == token else "replaced")
                assert piece.text.removeprefix("##") == tokenizer.id_to_token(seen).removeprefix("##")
            else:
                assert piece.kind == ("special" if token in (2, 3) else "")


def test_data_set_without_samples_has_a_report(tmp_path, small_options):
    source = write_jsonl(tmp_path / "single.jsonl", [f"A town {n}." for n in range(300)])
    data_set = bertdata.open_data_set(build(tmp_path / "shards", source, options=small_options))
    assert data_set.manifest.counts.get("samples", 0) == 0
    page = check_is_alone(make_page(data_set, num_samples=3))
    assert "There are too few samples to tell" in page.text


def test_command_writes_the_same_bytes_in_every_process(folders, htmls, tmp_path):
    out = tmp_path / "new" / "report.html"
    command = [
        sys.executable,
        "-m",
        "bertdata",
        "report",
        str(folders["none"]),
        "--out",
        str(out),
        "--num-samples",
        "4",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert done.stdout == f"{out}\n"
    assert out.read_text() == htmls["none"]
    assert list(out.parent.iterdir()) == [out]


def test_command_says_what_is_not_installed(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matplotlib" else name)
    result = CliRunner().invoke(main, ["report", str(folders["none"]), "--out", str(tmp_path / "report.html")])
    assert result.exit_code == 1
    assert 'pip install "bertdata[report]"' in result.stderr
    assert not any(tmp_path.iterdir())


def test_file_that_cannot_be_written_is_an_error(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("bertdata.report.make_page", lambda *_, **__: "page")
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["report", str(folders["none"]), "--out", str(tmp_path / "file" / "report.html")])
    assert result.exit_code == 1
    assert "cannot be written to" in result.stderr
