"""The report in headless Chromium: nothing overflows or is clipped, light and dark differ, and it prints."""

import dataclasses
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

import bertdata
from bertdata.report import make_page
from bertdata.statistics import STATISTICS

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")

WIDTHS = (360, 700, 1280)
# Frames of several widths, and a script that looks into them: the page itself has none.
PROBE = """<!DOCTYPE html><meta charset="utf-8"><title>probe</title>%s<pre id="found"></pre><script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    const texts = [...page.querySelectorAll("svg text")];
    const clipped = texts.filter(text => {
      const box = text.getBoundingClientRect(), svg = text.ownerSVGElement.getBoundingClientRect();
      return box.left < svg.left - 1 || box.right > svg.right + 1 || box.top < svg.top - 1 || box.bottom > svg.bottom + 1;
    });
    const wide = [...page.querySelectorAll("main *, header *")].filter(element =>
      !element.closest(".scroll, svg") && element.getBoundingClientRect().right > root.clientWidth + 1);
    return {
      overflow: root.scrollWidth - root.clientWidth, numTexts: texts.length,
      smallest: Math.min(...texts.map(text => text.getBoundingClientRect().height)),
      clipped: clipped.map(text => text.textContent), wide: wide.map(element => element.outerHTML.slice(0, 200)),
      figures: [...page.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect().width),
    };
  });
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


def run_browser(page, *options, tmp_path):
    """Returns what Chromium prints; fails where the page's console says anything."""
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
        *(f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert ":CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def screenshot(page, *options, tmp_path):
    """Returns the picture as an array: uint8 [H, W, 3]."""
    target = tmp_path / "picture.png"
    run_browser(page, f"--screenshot={target}", "--window-size=800,1000", *options, tmp_path=tmp_path)
    return np.asarray(Image.open(target).convert("RGB"))


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
    sources = [html.escape(source, quote=True) for source in (page.read_text(), huge_page)]
    cases = [(width, source) for width in WIDTHS for source in sources]
    frames = "".join(f'<iframe width="{width}" height="800" srcdoc="{source}"></iframe>' for width, source in cases)
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE % frames)
    dom = run_browser(probe, "--dump-dom", "--virtual-time-budget=5000", tmp_path=tmp_path)
    found = json.loads(html.unescape(re.search('<pre id="found">(.*?)</pre>', dom, re.DOTALL)[1]))
    for (width, _), values in zip(cases, found, strict=True):
        assert values["overflow"] <= 0, width
        assert values["wide"] == [], width
        assert values["numTexts"] > 100
        assert values["clipped"] == [], width
        assert values["smallest"] >= 8, width
        assert all(0.4 * min(width, 1100) < figure < width for figure in values["figures"]), width


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
