"""The page that follows a document in headless Chromium: it fits at any width, is light or dark, and prints."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from bertdata.config import BuildOptions
from bertdata.walk import Walk, walk_document
from tests.bertdata.browser import BROWSER, check_fits, measure_at_widths, run_browser, screenshot
from tests.trainer.followed import TITLE, build_wiki, make_model, write_wiki
from trainer.follow_model import LoadedModel
from trainer.follow_page import make_page
from trainer.follow_text import choose_sample

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")]


def hardened(walk: Walk) -> Walk:
    """The same walk with a title and a source that have no place to break them, and letters of other scripts."""
    record = dataclasses.replace(walk.record, where="Title" * 40, raw=f"[[{'x' * 3000}]] {'東京都' * 200} שלום")
    return dataclasses.replace(walk, record=record, notes=("note" * 60,))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, small_options: BuildOptions) -> list[Path]:
    """A page as it is, and one of a deep model and of names that are as long as can be."""
    folder = tmp_path_factory.mktemp("pages")
    wiki = write_wiki(folder)
    data_set = build_wiki(folder, wiki, small_options)
    walk = walk_document(data_set, inputs=[str(wiki)], name=TITLE)
    written = []
    for name, one, layers in (("follow", walk, 2), ("hard", hardened(walk), 12)):
        loaded = LoadedModel(model=make_model(data_set, num_layers=layers), step=7, warnings=())
        place = "a_model_with_a_long_name_and_no_place_to_break_it" * 3
        page = make_page(one, chosen=choose_sample(one), loaded=loaded, data_set=data_set, model_name=place)
        written.append(folder / f"{name}.html")
        written[-1].write_text(page)
    return written


def test_nothing_overflows_or_is_clipped_at_any_width(pages: list[Path], tmp_path: Path) -> None:
    for width, values in measure_at_widths([page.read_text() for page in pages], tmp_path=tmp_path):
        check_fits(values, width=width, min_texts=60)


def test_page_is_shown_light_and_dark(pages: list[Path], tmp_path: Path) -> None:
    light = screenshot(pages[0], tmp_path=tmp_path)
    dark = screenshot(pages[0], "--blink-settings=preferredColorScheme=0", tmp_path=tmp_path)
    for picture, is_light in ((light, True), (dark, False)):
        ground = np.median(picture.reshape(-1, 3), axis=0)
        assert (ground > 230).all() if is_light else (ground < 50).all()
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_page_prints_on_a_few_sheets(pages: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "follow.pdf"
    run_browser(pages[0], f"--print-to-pdf={target}", "--no-pdf-header-footer", tmp_path=tmp_path)
    data = target.read_bytes()
    assert data.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 9
