"""The report of a data set: one page of HTML that needs nothing beside it.

    manifest.json, statistics.json -> numbers (report_numbers) -> funnels, figures -> page (report.html.jinja)

All numbers of the page come out of that one mapping, so `bertdata.recompute` can count each of them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from tokenizers import Tokenizer

from bertdata import plots
from bertdata.data_set import DataSet
from bertdata.page import render_page, write_page
from bertdata.painting import LABELS
from bertdata.report_funnel import make_funnels
from bertdata.report_numbers import RARE, Numbers, report_numbers
from bertdata.report_samples import iter_shown_samples
from bertdata.statistics import bucket_edges
from bertdata.summary import iter_warnings
from bertdata.wordpiece import load_tokenizer

__all__ = ["make_page", "write_report"]

_OPTION_VALUES = 10  # of an option that are shown


def write_report(data_set: DataSet, out: Path, *, num_samples: int) -> None:
    """Writes the report of a data set.

    Args:
        data_set: The data set.
        out: The HTML file.
        num_samples: How many samples are shown.

    Raises:
        ShardError: Statistics or the first blocks cannot be read.
        OutputError: The file cannot be written.
    """
    write_page(make_page(data_set, num_samples=num_samples), out)


def make_page(data_set: DataSet, *, num_samples: int) -> str:
    """Returns the report of a data set as HTML; the same data set gives the same page.

    Args:
        data_set: The data set.
        num_samples: How many samples are shown.
    """
    manifest = data_set.manifest
    numbers = report_numbers(data_set, data_set.load_statistics())
    tokenizer = load_tokenizer(data_set.folder / "tokenizer.json")
    mode = manifest.options["pairs"]["next_sentence"]
    return render_page(
        "bertdata/report.html.jinja",
        name=data_set.folder.resolve().name,
        manifest=manifest,
        n=numbers,
        scalars={name: value for name, value in numbers.items() if not isinstance(value, list)},
        warnings=list(iter_warnings(manifest)),
        funnels=[(funnel.title, list(funnel.bars(numbers))) for funnel in make_funnels(numbers)],
        languages=_largest(numbers, "input.languages."),
        figures={name: Markup(svg) for name, svg in _iter_figures(numbers, mode=mode)},
        mode=mode,
        labels=LABELS.get(mode),
        masks=manifest.options["masks"],
        pairs=manifest.options["pairs"],
        rare=RARE,
        samples=list(iter_shown_samples(data_set, num_samples=num_samples)),
        top_tokens=_token_rows(tokenizer, numbers),
        unused_tokens=[str(tokenizer.id_to_token(token)) for token in _list(numbers, "shards.unused_tokens")],
        options=_option_rows(manifest.options),
    )


def _list(numbers: Numbers, name: str) -> list[Any]:
    value = numbers[name]
    assert isinstance(value, list)
    return value


def _array(numbers: Numbers, name: str) -> npt.NDArray[Any]:
    return np.array(_list(numbers, name))


def _largest(numbers: Mapping[str, Any], prefix: str) -> list[tuple[str, int]]:
    """Returns what follows `prefix` in the names that begin so, and the numbers, the largest first."""
    found = [(name.removeprefix(prefix), number) for name, number in numbers.items() if name.startswith(prefix)]
    return sorted(found, key=lambda item: (-item[1], item[0]))


def _iter_figures(numbers: Numbers, *, mode: str) -> Iterator[tuple[str, str]]:
    """Yields the name and the SVG of each figure."""
    edges = bucket_edges()
    for name, things, unit, draw in (
        ("document_tokens", "documents", "tokens", plots.plot_doublings),
        ("document_sentences", "documents", "sentences", plots.plot_doublings),
        ("sentence_tokens", "sentences", "tokens", plots.plot_lengths),
    ):
        counts = _array(numbers, f"input.{name}.histogram")
        label = f"Bar chart: {things} by {unit}"
        yield name, draw(counts, edges, name=name.replace("_", "-"), label=label, unit=unit, things=things)
    lengths = _array(numbers, "shards.sample_lengths.histogram")
    yield (
        "sample_lengths",
        plots.plot_lengths(
            lengths,
            np.arange(len(lengths) + 1),
            name="sample-lengths",
            label="Bar chart: samples by tokens",
            unit="tokens",
            things="samples",
        ),
    )
    if mode in LABELS:
        cell = numbers["shards.length_cell"]
        assert isinstance(cell, int)
        for name, unit in (("a_lengths", "tokens of A"), ("pair_lengths", "tokens of A and B together")):
            yield (
                name,
                plots.plot_labels(
                    _array(numbers, f"shards.{name}"),
                    cell=cell,
                    names=LABELS[mode],
                    name=name.replace("_", "-"),
                    label=f"Line chart: share of the samples of each label by {unit}",
                    unit=unit,
                ),
            )
    if "shards.prediction_places" in numbers:
        places = [_array(numbers, f"shards.{name}") for name in ("prediction_places", "expected_places")]
        yield "places", plots.plot_places(*places, name="places", label="Bar chart: predictions by place in the sample")
    ranks = [_array(numbers, f"shards.{name}") for name in ("ranks", "rank_counts")]
    label = "Line chart: how often entries of the vocabulary occur, by rank"
    yield "ranks", plots.plot_ranks(*ranks, rare=RARE, name="ranks", label=label)


def _token_rows(tokenizer: Tokenizer, numbers: Numbers) -> list[tuple[str, int, float]]:
    """Returns text, count and share of the most frequent tokens."""
    total = numbers["shards.text_tokens"]
    assert isinstance(total, int)
    pairs = zip(_list(numbers, "shards.top_tokens"), _list(numbers, "shards.top_token_counts"), strict=True)
    return [(str(tokenizer.id_to_token(token)), count, count / total) for token, count in pairs]


def _option_rows(options: Mapping[str, Any], *, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in options.items():
        if isinstance(value, dict):
            rows += _option_rows(value, prefix=f"{prefix}{name}.")
        elif isinstance(value, list) and len(value) > _OPTION_VALUES:
            rows.append((prefix + name, f"{', '.join(map(str, value[:_OPTION_VALUES]))}, ... ({len(value):,} in all)"))
        else:
            rows.append((prefix + name, value if isinstance(value, str) else json.dumps(value)))
    return rows
