import functools
import re
import warnings
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from bertdata.plots import plot_doublings, plot_labels, plot_lengths, plot_places, plot_ranks
from bertdata.statistics import bucket_edges, bucket_of

EDGES = bucket_edges()


def counts_of(*lengths):
    return np.bincount(bucket_of(np.array(lengths, dtype=np.int64)), minlength=600)


def draw_doublings(counts):
    return plot_doublings(counts, EDGES, name="one", label="Things", unit="tokens", things="documents")


def draw_lengths(counts):
    return plot_lengths(counts, EDGES, name="two", label="Things", unit="tokens", things="sentences")


def draw_labels(row):
    return plot_labels(np.array([row, row]), cell=1, names=("IsNext", "NotNext"), name="l", label="L", unit="tokens")


def draw_ranks(counts):
    return plot_ranks(np.arange(1, len(counts) + 1), np.array(counts), rare=10, name="r", label="R")


FIGURES = {
    "doublings": lambda: draw_doublings(counts_of(3, 40, 5000, 70000)),
    "doublings of nothing": lambda: draw_doublings(counts_of()),
    "doublings of one": lambda: draw_doublings(counts_of(1)),
    "doublings of all": lambda: draw_doublings(counts_of(*(2**n for n in range(36)))),
    "lengths": lambda: draw_lengths(counts_of(3, 40, 50, 60)),
    "lengths of nothing": lambda: draw_lengths(counts_of()),
    "lengths of much": lambda: draw_lengths(12_345_678 * counts_of(2, 300_000)),
    "labels": lambda: draw_labels(np.arange(50)),
    "labels of nothing": lambda: draw_labels(np.zeros(65, dtype=np.int64)),
    "places": lambda: plot_places(np.full(20, 90), np.full(20, 100.0), name="p", label="P"),
    "places of nothing": lambda: plot_places(np.zeros(20, dtype=np.int64), np.zeros(20), name="p", label="P"),
    "ranks": lambda: draw_ranks([1000, 100, 10, 1]),
    "ranks of nothing": lambda: draw_ranks(np.zeros(0, dtype=np.int64)),
}


@functools.cache
def draw_once(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return FIGURES[name]()


@pytest.fixture(params=FIGURES)
def svg(request):
    return draw_once(request.param)


def test_figure_is_an_element_that_takes_its_colours_from_the_page(svg):
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.attrib["role"] == "img"
    assert set(root.attrib) == {"viewBox", "role", "aria-label"}
    assert not re.search("#[0-9a-f]{6}", svg)
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= {"ink", "muted", "grid", "first", "second"}
    assert not {"metadata", "style", "image"} & {element.tag for element in root.iter()}
    assert "://" not in svg
    assert list(root.iter("text"))


def test_figure_names_its_parts_by_its_own_name(svg):
    identifiers = re.findall(r' id="([^"]+)"', svg)
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg)) == set(identifiers)
    assert len({identifier.partition("-")[0] for identifier in identifiers}) <= 1


@pytest.mark.parametrize("name", ["doublings", "lengths", "labels", "places", "ranks"])
def test_figure_is_the_same_whatever_the_user_has_set(name):
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.facecolor": "#123456", "svg.hashsalt": None}):
        assert FIGURES[name]() == draw_once(name)


def test_bars_have_the_heights_of_their_counts():
    """Heights are in the order of the bars, so their ratios can be read off the paths."""
    svg = draw_lengths(counts_of(*[4] * 10, *[5] * 30, *[6] * 20))
    heights = []
    for path in ElementTree.fromstring(svg).iter("path"):
        numbers = [float(number) for number in re.findall(r"[-\d.]+", path.attrib["d"])]
        if "var(--first)" in path.attrib.get("style", "") and len(numbers) >= 8:
            heights.append(max(numbers[1::2]) - min(numbers[1::2]))
    assert len(heights) == 7  # lengths 0 to 6
    assert np.array(heights) / max(heights) == pytest.approx(np.array([0, 0, 0, 0, 1, 3, 2]) / 3, abs=0.01)


def test_label_is_escaped():
    svg = plot_lengths(counts_of(4), EDGES, name="n", label='<b>"&', unit="tokens", things="sentences")
    assert ElementTree.fromstring(svg).attrib["aria-label"] == '<b>"&'
