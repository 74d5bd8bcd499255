"""Rows of `metrics.jsonl` as text for people: a line per interval, a line per evaluation, a table of epochs.

step epoch   loss    MLM   acc    NSP   acc    rate  grad  seq/s  tok/s  pad wait   MFU    ETA
  50  0.16  9.764  9.064  4.7%  0.700 48.4% 4.6e-04  1.44    312  37.9k 2.1% 0.0% 41.2%  12:03
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Row",
    "TrainLines",
    "describe_evaluation",
    "epoch_header",
    "epoch_line",
    "format_count",
    "format_seconds",
    "table",
]

Row = dict[str, Any]


def format_seconds(seconds: float | None) -> str:
    """Returns a time in few characters: 02:05, 3h07m, 12d04h; - for one that is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes:02}:{rest:02}"


def format_count(number: float) -> str:
    """Returns a number in few characters: 9.81, 310, 37.9k, 1.24M."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return _digits(number / size) + unit
    return _digits(number)


def _digits(number: float) -> str:
    """Returns a number below 1,000 with three digits."""
    return f"{number:.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Column:
    """A column of the lines of training.

    Attributes:
        title: What stands above it.
        width: Characters, with the space before it.
        text: Gives the cell of a row.
        is_optional: Whether narrow terminals do without it.
    """

    title: str
    width: int
    text: Callable[[Row], str]
    is_optional: bool = False


_PROGRESS = (
    _Column(title="step", width=7, text=lambda row: str(row["step"])),
    _Column(title="epoch", width=6, text=lambda row: f"{row['epoch']:.2f}"),
    _Column(title="loss", width=7, text=lambda row: f"{row['loss']:.3f}"),
    _Column(title="MLM", width=7, text=lambda row: f"{row['mlm_loss']:.3f}"),
    _Column(title="acc", width=6, text=lambda row: f"{row['mlm_accuracy']:.1%}"),
)
_NEXT_SENTENCE = (
    _Column(title="NSP", width=7, text=lambda row: f"{row['nsp_loss']:.3f}"),
    _Column(title="acc", width=6, text=lambda row: f"{row['nsp_accuracy']:.1%}"),
)
_RATES = (
    _Column(title="rate", width=8, text=lambda row: f"{row['learning_rate']:.1e}"),
    _Column(title="grad", width=6, text=lambda row: f"{row['grad_norm']:.3g}", is_optional=True),
    _Column(title="seq/s", width=6, text=lambda row: format_count(row["sequences_per_second"]), is_optional=True),
    _Column(title="tok/s", width=6, text=lambda row: format_count(row["tokens_per_second"])),
    _Column(title="pad", width=6, text=lambda row: f"{row['padding']:.1%}", is_optional=True),
    _Column(title="wait", width=6, text=lambda row: f"{row['data_wait']:.1%}", is_optional=True),
)
_MFU = _Column(title="MFU", width=6, text=lambda row: f"{row['mfu']:.1%}")
_FLOPS = _Column(
    title="FLOP/s", width=7, text=lambda row: format_count(row["tflops_per_device"] * 1e12), is_optional=True
)
_ETA = _Column(title="ETA", width=7, text=lambda row: format_seconds(row["eta_seconds"]))


class TrainLines:
    """Lines of training in columns, all of the same width.

    Args:
        next_sentence: Whether next sentences are predicted.
        has_mfu: Whether the peak of the device is known; without it, FLOP/s stand there.
        max_width: Characters of a line at most, as far as can be; None for all columns.
    """

    def __init__(self, *, next_sentence: bool, has_mfu: bool, max_width: int | None = None) -> None:
        columns: Sequence[_Column] = (
            *_PROGRESS,
            *(_NEXT_SENTENCE if next_sentence else ()),
            *_RATES,
            _MFU if has_mfu else _FLOPS,
            _ETA,
        )
        if max_width is not None and sum(column.width for column in columns) > max_width:
            columns = [column for column in columns if not column.is_optional]
        self._columns = columns

    @property
    def header(self) -> str:
        """The titles of the columns."""
        return "".join(f"{column.title:>{column.width}}" for column in self._columns)

    def line(self, row: Row) -> str:
        """Returns a row of kind "train" as a line."""
        return "".join(f"{column.text(row):>{column.width}}" for column in self._columns)


def describe_evaluation(row: Row) -> str:
    """Returns a row of kind "eval" as a line of text; what it does not have is left out."""
    mlm = _with_details(
        f"MLM {row['mlm_loss']:.3f}, {row['mlm_accuracy']:.1%} right" if "mlm_loss" in row else "",
        row,
        {"mlm_baseline": "by the most frequent word alone"},
    )
    nsp = _with_details(
        f"NSP {row['nsp_loss']:.3f}, {row['nsp_accuracy']:.1%} right" if "nsp_loss" in row else "",
        row,
        {"nsp_accuracy_by_lengths": "by the lengths alone"},
    )
    samples = f"{row['num_samples']:,} samples"
    return f"held out, step {row['step']}: {'; '.join(filter(None, (mlm, nsp, samples)))}"


def _with_details(text: str, row: Row, details: Mapping[str, str]) -> str:
    found = [f"{row[name]:.1%} {words}" for name, words in details.items() if row.get(name) is not None]
    return f"{text} ({', '.join(found)})" if text and found else text


def epoch_header() -> str:
    """Returns the titles of the table of epochs."""
    return f"{'epoch':>6} {'step':>8} {'loss':>8} {'MLM loss':>9} {'NSP loss':>9} {'eval MLM':>9} {'eval NSP':>9}"


def epoch_line(row: Row, evaluation: Row | None) -> str:
    """Returns a row of kind "epoch" as a line of the table, beside the last evaluation within the epoch."""
    evaluated = evaluation or {}
    return (
        f"{row['epoch']:>6.3g} {row['step']:>8} {row['loss']:>8.4f} {row['mlm_loss']:>9.4f} "
        f"{_cell(row.get('nsp_loss'), '.4f'):>9} {_cell(evaluated.get('mlm_accuracy'), '.1%'):>9} "
        f"{_cell(evaluated.get('nsp_accuracy'), '.1%'):>9}"
    )


def table(rows: Sequence[Row]) -> str:
    """Returns the epochs of a run as lines of text: training losses beside the last evaluation in each."""
    lines, begin = [epoch_header()], 0
    for row in rows:
        if row["kind"] == "epoch":
            within = [one for one in rows if one["kind"] == "eval" and begin < one["step"] <= row["step"]]
            lines.append(epoch_line(row, within[-1] if within else None))
            begin = row["step"]
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
