"""Which figures a run's report has, what each is about, and how to read it.

One run: training and held-out values in one figure. Several: a figure for each kind, with a curve of each run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainer.run_history import RunHistory
from trainer.run_outlook import Outlook
from trainer.run_panels import PANELS, Panel
from trainer.run_plots import COLOURS, Curve, Level, Range, plot_curves

__all__ = ["MAX_RUNS", "SECTIONS", "Figure", "Key", "iter_figures", "run_keys"]

MAX_RUNS = 2 * len(COLOURS)

SECTIONS = ("normal", "losses", "accuracies", "evaluation", "steps", "speed")
"""Where figures stand on the page."""

_KINDS = {"train": "training", "eval": "held out"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """An entry of a legend.

    Attributes:
        text: What it stands for.
        classes: CSS classes of its swatch.
    """

    text: str
    classes: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure of the page.

    Attributes:
        section: Where it stands, one of `SECTIONS`.
        title: Its heading.
        svg: The picture.
        caption: How to read it.
        keys: Its legend; empty where there is one curve.
    """

    section: str
    title: str
    svg: str
    caption: str
    keys: tuple[Key, ...]


_POSITIONS = {
    "mlm_accuracy_mask": "shown as [MASK]",
    "mlm_accuracy_random": "shown as another word",
    "mlm_accuracy_kept": "shown as they are",
}
_LABELS = {"nsp_accuracy_free": "labels drawn freely", "nsp_accuracy_forced": "labels that were forced"}


def run_keys(runs: Sequence[RunHistory]) -> list[Key]:
    """Returns the swatch of each run, where there are several."""
    colours = list(COLOURS)
    return [
        Key(text=run.name, classes=colours[number % len(colours)] + (" dashed" if number >= len(colours) else ""))
        for number, run in enumerate(runs)
    ]


def iter_figures(runs: Sequence[RunHistory], outlooks: Sequence[Outlook | None]) -> Iterator[Figure]:
    """Yields the figures for which there are values.

    Args:
        runs: One run or several, the one that others are compared with first.
        outlooks: What is to be said of each.
    """
    last_step = float(runs[0].max_steps) if len(runs) == 1 and runs[0].max_steps is not None else None
    if (figure := _normal_figure(runs, outlooks)) is not None:
        yield figure
    for panel in PANELS:
        for kinds in [panel.kinds] if len(runs) == 1 else [(kind,) for kind in panel.kinds]:
            curves, keys = _curves(runs, panel=panel, kinds=kinds)
            if not curves:
                continue
            suffix = f", {_KINDS[kinds[0]]}" if len(panel.kinds) > len(kinds) else ""
            yield Figure(
                section=panel.section,
                title=panel.title + suffix,
                svg=plot_curves(
                    curves,
                    name=f"{panel.field}-{'-'.join(kinds)}",
                    label=f"Line chart: {panel.title}{suffix} by step",
                    title=panel.unit,
                    levels=_levels(panel.field, runs=runs, outlook=outlooks[0]),
                    form=panel.form,
                    has_zero=panel.has_zero,
                    scale=panel.scale,
                    last_step=last_step,
                ),
                caption=panel.caption,
                keys=keys,
            )
    if len(runs) == 1:
        yield from _evaluation_figures(runs[0], last_step=last_step)


def _curves(runs: Sequence[RunHistory], *, panel: Panel, kinds: Sequence[str]) -> tuple[list[Curve], tuple[Key, ...]]:
    curves: list[Curve] = []
    keys: list[Key] = []
    swatches = run_keys(runs)
    for number, run in enumerate(runs):
        for kind in kinds:
            series = run.series(kind, panel.field)
            if not len(series) or (panel.scale == "log" and (series.values <= 0).any()):
                continue
            key = swatches[number] if len(runs) > 1 else Key(text=_KINDS[kind], classes=("first", "second")[len(keys)])
            is_rough = kind == "train" and not panel.is_exact
            curves.append(
                Curve(
                    series=series,
                    colour=key.classes.split()[0],
                    is_dashed="dashed" in key.classes,
                    noise=None if not is_rough else "raw" if len(runs) <= 2 else "smoothed",
                    is_marked=kind == "eval",
                )
            )
            keys.append(key)
    return curves, tuple(keys) if len(keys) > 1 or len(runs) > 1 else ()


def _levels(field: str, *, runs: Sequence[RunHistory], outlook: Outlook | None) -> list[Level]:
    has_next_sentence = any(len(run.series("train", "nsp_loss")) for run in runs)
    nsp = math.log(2) if has_next_sentence else 0.0
    if field == "nsp_loss":
        return [Level(value=nsp, text="chance")]
    if field == "nsp_accuracy":
        return [Level(value=0.5, text="chance")]
    if field == "mlm_accuracy":
        baseline = runs[0].last("eval", "mlm_baseline")
        return [] if baseline is None else [Level(value=baseline, text="the most frequent word")]
    if field == "grad_norm":
        max_grad_norm = runs[0].options.get("max_grad_norm")  # 0 where nothing is clipped
        return [Level(value=max_grad_norm, text="clipped above")] if max_grad_norm else []
    if field in ("loss", "mlm_loss") and outlook is not None:
        added = nsp if field == "loss" else 0.0
        levels = [Level(value=outlook.start + added, text="nothing learned")]
        if outlook.entropy is not None:
            levels.append(Level(value=outlook.entropy + added, text="word frequencies only"))
        return levels
    return []


def _normal_figure(runs: Sequence[RunHistory], outlooks: Sequence[Outlook | None]) -> Figure | None:
    """Returns the MLM loss over powers of ten of the steps, on the ground of what is normal."""
    outlook = outlooks[0]
    if outlook is None or not len(runs[0].series("train", "mlm_loss")):
        return None
    panel = next(panel for panel in PANELS if panel.field == "mlm_loss")
    curves, keys = _curves(runs, panel=panel, kinds=panel.kinds if len(runs) == 1 else ("train",))
    begin, end = (float(bound) for bound in (curves[0].series.steps[0], curves[0].series.steps[-1]))
    ranges = []
    if outlook.entropy is not None:
        # Weights that were trained before have left the start already.
        turn = begin if runs[0].options.get("init") else min(outlook.left_start_at or math.inf, end)
        ranges = [Range(steps=(begin, turn), low=outlook.entropy, high=outlook.start)]
        ranges.append(Range(steps=(turn, end), low=None, high=outlook.entropy))
    svg = plot_curves(
        curves,
        name="normal",
        label="Line chart: MLM loss by step, on the ground of what is normal",
        title="MLM loss, nats per predicted position",
        levels=_levels("mlm_loss", runs=runs, outlook=outlook),
        ranges=[normal for normal in ranges if normal.steps[0] < normal.steps[1]],
        step_scale="log",
    )
    ground = (Key(text="normal", classes="normal"),) if ranges else ()
    caption = (
        "Steps by powers of ten, so that the beginning can be seen. A healthy curve begins at the upper line, falls to "
        "the lower one, rests there, and leaves it downwards for good. It may be below the ground early: that is only "
        "faster. Bad is to stay above the ground."
    )
    return Figure(section="normal", title="MLM loss from the first step", svg=svg, caption=caption, keys=keys + ground)


def _evaluation_figures(run: RunHistory, *, last_step: float | None) -> Iterator[Figure]:
    """Yields held-out accuracies by kind of position and of label."""
    for title, unit, names, caption in (
        (
            "By what the model is shown",
            "MLM accuracy, held out",
            _POSITIONS,
            "Words that stay as they are must be easy, but not all right: the model cannot know that they are. Another "
            "word in the place should be almost as hard as [MASK]; bad is when it stays far below.",
        ),
        (
            "By how labels came about",
            "NSP accuracy, held out",
            _LABELS,
            "Forced labels are those of chunks of one sentence, which have no second half of their own, so the length "
            "of A gives them away. What counts is the accuracy on free labels.",
        ),
    ):
        found = {text: run.series("eval", name) for name, text in names.items() if len(run.series("eval", name))}
        if not found:
            continue
        colours = list(COLOURS)[: len(found)]
        level = run.last("eval", "nsp_accuracy_by_lengths") if names is _LABELS else None
        yield Figure(
            section="evaluation",
            title=title,
            svg=plot_curves(
                [
                    Curve(series=series, colour=colour, is_marked=True)
                    for series, colour in zip(found.values(), colours, strict=True)
                ],
                name=next(iter(names)).replace("_", "-"),
                label=f"Line chart: {title}, {unit}, by step",
                title=unit,
                levels=[] if level is None else [Level(value=level, text="lengths alone")],
                form="percent",
                has_zero=names is _POSITIONS,
                last_step=last_step,
            ),
            caption=caption,
            keys=tuple(Key(text=text, classes=colour) for text, colour in zip(found, colours, strict=True)),
        )
