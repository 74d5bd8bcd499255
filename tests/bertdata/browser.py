"""Looking at pages in headless Chromium, where it is installed."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
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


def measure_at_widths(pages, *, tmp_path):
    """Returns the width and what the probe found, for each page at each width."""
    sources = [html.escape(page, quote=True) for page in pages]
    cases = [(width, source) for width in WIDTHS for source in sources]
    frames = "".join(f'<iframe width="{width}" height="800" srcdoc="{source}"></iframe>' for width, source in cases)
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE % frames)
    dom = run_browser(probe, "--dump-dom", "--virtual-time-budget=5000", tmp_path=tmp_path)
    found = json.loads(html.unescape(re.search('<pre id="found">(.*?)</pre>', dom, re.DOTALL)[1]))
    return [(width, values) for (width, _), values in zip(cases, found, strict=True)]


def check_fits(values, *, width, min_texts=100):
    """Nothing overflows, is clipped, or is too small to be read."""
    assert values["overflow"] <= 0, width
    assert values["wide"] == [], width
    assert values["numTexts"] > min_texts
    assert values["clipped"] == [], width
    assert values["smallest"] >= 8, width
    assert all(0.4 * min(width, 1100) < figure < width for figure in values["figures"]), width
