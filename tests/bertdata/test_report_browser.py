"""The report in headless Chromium: nothing overflows or is clipped, light and dark differ, and it prints."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

import bertdata
from bertdata.report import make_page
from bertdata.statistics import STATISTICS
from tests.bertdata.browser import BROWSER, check_fits, measure_at_widths, run_browser, screenshot

pytestmark = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def page(small_data_set, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(make_page(bertdata.open_data_set(small_data_set), num_samples=3))
    return path


@pytest.fixture(scope="module")
def huge_page(small_data_set, tmp_path_factory):
    """The page of the same data set with all counts twelve million times as large, but for three redirects."""
    folder = tmp_path_factory.mktemp("huge") / "a_data_set_with_a_long_name_and_no_place_to_break_it"
    shutil.copytree(small_data_set, folder)
    values = json.loads((folder / STATISTICS).read_bytes())
    for value in values.values():
        value["counts"] = [12_345_678 * count for count in value["counts"]]
    (folder / STATISTICS).write_text(json.dumps(values))
    data_set = bertdata.open_data_set(folder)
    counts = {name: 12_345_678 * count for name, count in data_set.manifest.counts.items()}
    counts |= {"redirects": 3, "pages": counts["records"] + 3, "articles": counts["records"]}
    manifest = dataclasses.replace(data_set.manifest, counts=counts)
    return make_page(dataclasses.replace(data_set, manifest=manifest), num_samples=1)


def test_nothing_overflows_or_is_clipped_at_any_width(page, huge_page, tmp_path):
    for width, values in measure_at_widths([page.read_text(), huge_page], tmp_path=tmp_path):
        check_fits(values, width=width)


@pytest.mark.slow
def test_page_is_shown_light_and_dark(page, tmp_path):
    light = screenshot(page, tmp_path=tmp_path)
    dark = screenshot(page, "--blink-settings=preferredColorScheme=0", tmp_path=tmp_path)
    assert light.shape == dark.shape == (1000, 800, 3)
    for picture, is_light in ((light, True), (dark, False)):
        ground = np.median(picture.reshape(-1, 3), axis=0)
        assert (ground > 230).all() if is_light else (ground < 50).all()
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # something stands on it


def test_page_prints_on_a_few_sheets(page, tmp_path):
    target = tmp_path / "report.pdf"
    run_browser(page, f"--print-to-pdf={target}", "--no-pdf-header-footer", tmp_path=tmp_path)
    data = target.read_bytes()
    assert data.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 9


@pytest.mark.slow
def test_console_is_listened_to(tmp_path):
    page = tmp_path / "loud.html"
    page.write_text("<!DOCTYPE html><script>console.error('oh no')</script>")
    with pytest.raises(AssertionError, match="oh no"):
        run_browser(page, "--dump-dom", tmp_path=tmp_path)
