"""The report of a run, or of several side by side: one page of HTML that needs nothing beside it.

metrics.jsonl, run.json -> history (run_history) -> outlook, figures -> page (report.html.jinja)
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bertdata.errors import TrainingError
from bertdata.page import format_count, format_percent, format_short, render_page, write_page
from trainer.run_figures import MAX_RUNS, SECTIONS, Figure, iter_figures, run_keys
from trainer.run_history import RunHistory, load_history
from trainer.run_outlook import outlook_of
from trainer.tables import format_seconds

__all__ = ["make_page", "write_report"]

_ORIGINS = {
    "default": "chosen by data and device",
    "checkpoint": "as before",
    "init": "from the run of --init",
    "preset": "by the preset",
}
_RECENT = 5  # rows whose mean is "now": one row alone is noisy


def write_report(folders: Sequence[Path], *, out: Path) -> None:
    """Writes the report of one run or several.

    Args:
        folders: `--out` of each; others are compared with the first.
        out: The HTML file.

    Raises:
        TrainingError: A folder is none of a run, has no rows yet, or there are too many.
        OutputError: The file cannot be written.
    """
    if len(folders) > MAX_RUNS:
        raise TrainingError(f"{len(folders)} runs do not fit on a page; give at most {MAX_RUNS}")
    write_page(make_page([load_history(folder) for folder in folders]), out)


def make_page(runs: Sequence[RunHistory]) -> str:
    """Returns the report as HTML; the same files give the same page.

    Args:
        runs: The runs; others are compared with the first.
    """
    runs = _named_apart(runs)
    outlooks = [outlook_of(run) for run in runs]
    figures: dict[str, list[tuple[Figure, Markup]]] = {section: [] for section in SECTIONS}
    for figure in iter_figures(runs, outlooks):
        figures[figure.section].append((figure, Markup(figure.svg)))
    return render_page(
        "trainer/report.html.jinja",
        name=" and ".join(run.name for run in runs) if len(runs) < 3 else f"{len(runs)} runs",
        runs=[_summary(run) for run in runs],
        keys=run_keys(runs),
        warnings=[
            (run.name, step, text)
            for run, outlook in zip(runs, outlooks, strict=True)
            for step, text in (outlook.warnings if outlook else ())
        ],
        are_known=all(outlook is not None for outlook in outlooks),
        normal=outlooks[0],
        figures=figures,
        evaluations=[(run.name, list(_evaluation_rows(run))) for run in runs if run.of_kind("eval")],
        epochs=[(run.name, list(_epoch_rows(run))) for run in runs if run.of_kind("epoch")],
        has_next_sentence=any(len(run.series("epoch", "nsp_loss")) for run in runs),
        differences=_differences(runs) if len(runs) > 1 else [],
        facts=[(run.name, _fact_rows(run), _option_rows(run)) for run in runs],
    )


def _named_apart(runs: Sequence[RunHistory]) -> list[RunHistory]:
    """Returns the runs, those of the same name under the ends of their folders: `run` and `quickstart/run`.

    A run that is given twice has a number behind its name.
    """
    most = max(len(run.folder.parts) for run in runs)
    ends = [["/".join(run.folder.parts[-length:]) for run in runs] for length in range(1, most + 1)]
    names = next((found for found in ends if len(set(found)) == len(found)), ends[0])
    return [
        dataclasses.replace(run, name=name if names.count(name) == 1 else f"{name} ({names[:place].count(name) + 1})")
        for place, (run, name) in enumerate(zip(runs, names, strict=True))
    ]


def _recent(run: RunHistory, name: str) -> float | None:
    values = run.series("train", name).values[-_RECENT:]
    return float(values.mean()) if len(values) else None


def _summary(run: RunHistory) -> dict[str, Any]:
    """Returns what the head of the page says of a run."""
    step, last = run.step, run.rows[-1]
    return {
        "name": run.name,
        "state": run.state,
        "step": step,
        "max_steps": run.max_steps,
        "epoch": last.get("epoch"),
        "num_unread": run.num_unread,
        "parameters": run.facts.get("num_parameters"),
        "init": run.options.get("init"),
        "model": _describe_model(run.options.get("model")),
        "data": ", ".join(str(data_set["place"]) for data_set in run.facts.get("data", ())),
        "tokens": run.tokens_seen,
        "seconds": None if run.seconds is None else format_seconds(run.seconds),
        "left": format_seconds(run.last("train", "eta_seconds")) if run.state != "finished" else None,
        "speed": _recent(run, "tokens_per_second"),
        "mfu": _recent(run, "mfu"),
        "mlm_loss": _recent(run, "mlm_loss"),
        "held_out": {
            name: run.last("eval", name) for name in ("mlm_loss", "mlm_accuracy", "mlm_baseline", "nsp_accuracy")
        },
        "nsp_accuracy": _recent(run, "nsp_accuracy"),
        "mlm_accuracy": _recent(run, "mlm_accuracy"),
    }


def _describe_model(model: Mapping[str, Any] | None) -> str:
    if not model:
        return "BERT"
    return (
        f"BERT of {model['num_hidden_layers']} {'layer' if model['num_hidden_layers'] == 1 else 'layers'}, hidden size "
        f"{model['hidden_size']}, vocabulary {model['vocab_size']:,}"
    )


def _evaluation_rows(run: RunHistory) -> Iterator[tuple[str, str, str]]:
    """Yields name, value and explanation of what the newest evaluation says."""
    row = run.of_kind("eval")[-1]
    yield "step", f"{row['step']:,}", ""
    for name, form, text in (
        ("num_samples", "count", "held-out samples, always the same ones"),
        ("num_predictions", "count", "masked positions, always the same ones"),
        ("mlm_loss", "loss", "nats per position; training has dropout, so it may lie above"),
        ("mlm_perplexity", "count", "among so many equally likely words the model hesitates"),
        ("mlm_accuracy", "share", "words predicted rightly"),
        ("mlm_baseline", "share", "would be right by always saying the most frequent word"),
        ("mlm_accuracy_mask", "share", "of positions that show [MASK]"),
        ("mlm_accuracy_random", "share", "of positions that show another word"),
        ("mlm_accuracy_kept", "share", "of positions that show the word itself"),
        ("nsp_loss", "loss", "nats per pair; chance is 0.693"),
        ("nsp_accuracy", "share", "pairs told rightly; chance is 50%"),
        ("nsp_accuracy_free", "share", "of labels that were drawn freely"),
        ("nsp_accuracy_forced", "share", "of labels that were forced by short chunks"),
        ("nsp_accuracy_by_lengths", "share", "would be right by the lengths of A and B alone"),
    ):
        value = row.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            yield name, {"loss": f"{value:.4f}", "share": format_percent(value, 2)}.get(form, format_count(value)), text


def _epoch_rows(run: RunHistory) -> Iterator[dict[str, Any]]:
    """Yields the rows of epochs, each with the last evaluation within it."""
    evaluations, begin = run.of_kind("eval"), 0
    for row in run.of_kind("epoch"):
        within = [one for one in evaluations if begin < one["step"] <= row["step"]]
        yield row | {"held_out": within[-1] if within else {}}
        begin = row["step"]


def _fact_rows(run: RunHistory) -> list[tuple[str, str]]:
    """Returns what is known of data, model, machine and versions."""
    facts, rows = run.facts, []
    for data_set in facts.get("data", ()):
        share = "" if data_set.get("weight") is None else f", weight {data_set['weight']:g}"
        rows.append(("data", f"{data_set['place']}{share}"))
        rows.append(("fingerprint", str(data_set["fingerprint"])))
        samples = f"{data_set['train_samples']:,} for training ({format_short(data_set['train_tokens'])} tokens)"
        rows.append(("samples", f"{samples}, {data_set['eval_samples']:,} held out"))
        rows.append(("pairs", f"{data_set['next_sentence']}, at most {data_set['max_seq_length']} tokens"))
    if facts.get("num_parameters"):
        rows.append(("parameters", f"{facts['num_parameters']:,}"))
    if facts.get("word_entropy") is not None:
        rows.append(("entropy of the words", f"{facts['word_entropy']:.3f} nats"))
    starts = facts.get("starts", [])
    for number, start in enumerate(starts):
        end = start.get("end")
        until = f", until step {end['step']:,} at {end['time']}" if end else ""
        if number in (0, len(starts) - 1) or len(starts) <= 10:
            rows.append(
                ("begun" if start["step"] == 0 else "continued", f"{start['time']} at step {start['step']:,}{until}")
            )
    if starts:
        last = starts[-1]
        threads = f", {last['threads']} threads" if last.get("threads") else ""
        rows.append(("device", f"{last['num_processes']} x {last['device']}{threads}"))
        rows += [(name, str(version)) for name, version in last.get("versions", {}).items()]
    return rows


def _flat_options(run: RunHistory) -> dict[str, str]:
    """Returns the options by name, those of the model with a dot."""
    flat: dict[str, str] = {}
    for name, value in run.options.items():
        nested = value if isinstance(value, dict) else None
        for inner, one in nested.items() if nested is not None else [("", value)]:
            flat[f"{name}.{inner}" if inner else name] = one if isinstance(one, str) else json.dumps(one)
    return flat


def _option_rows(run: RunHistory) -> list[tuple[str, str, str]]:
    """Returns name, value and origin of each option."""
    origins = {name: _ORIGINS.get(origin, origin) for name, origin in run.facts.get("origins", {}).items()}
    return [(name, value, origins.get(name.partition(".")[0], "")) for name, value in _flat_options(run).items()]


def _differences(runs: Sequence[RunHistory]) -> list[tuple[str, list[str]]]:
    """Returns the options, data and machines in which runs differ, and the value of each run."""
    tables = []
    for run in runs:
        table = _flat_options(run)
        table.pop("out", None)
        table |= {
            name: ", ".join(value for other, value in _fact_rows(run) if other == name)
            for name in ("fingerprint", "parameters", "device", "torch")
        }
        tables.append(table)
    names = dict.fromkeys(name for table in tables for name in table)
    values = {name: [table.get(name) or "–" for table in tables] for name in names}
    return [(name, row) for name, row in values.items() if len(set(row)) > 1]
