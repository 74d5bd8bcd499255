"""From the runs of a study to numbers and verdicts: differences are paired by seed, and held against their spread."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import figures

from bertdata.files import write_atomically
from trainer.run_history import load_history

__all__ = ["Comparison", "collect", "compare", "conclude", "verdict", "write"]

Run = dict[str, Any]  # what `collect` finds of one: "train" and "held_out", lists of rows

_T_QUANTILES = (math.nan, 12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t by degrees of freedom: 97.5 % lie below."""

_LAST_ROWS = 5  # of about 50: the last tenth of the training


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two arms in one measure.

    Attributes:
        measure: What is compared, of which less is better.
        arms: The arm, and the one that it is compared with.
        differences: The first minus the second, in nats, a number per seed.
        mean: Of the differences.
        spread: Their standard deviation; None of one seed.
        half_width: Of the mean's interval of 95 %; None of one seed.
        verdict: What follows, in words.
    """

    measure: str
    arms: tuple[str, str]
    differences: tuple[float, ...]
    mean: float
    spread: float | None
    half_width: float | None
    verdict: str

    @property
    def better(self) -> str | None:
        """The arm with the lower loss, where that is beyond what seeds do; else None."""
        if self.half_width is None or abs(self.mean) <= self.half_width:
            return None
        return self.arms[self.mean > 0]


def _last(kind: str) -> Callable[[Run], float]:
    return lambda run: float(run["held_out"][-1][kind]["mlm_loss"])


def _best(kind: str) -> Callable[[Run], float]:
    return lambda run: min(float(row[kind]["mlm_loss"]) for row in run["held_out"])


def _trained(run: Run) -> float:
    return statistics.fmean(row["mlm_loss"] for row in run["train"][-_LAST_ROWS:])


MEASURES: dict[str, Callable[[Run], float]] = {
    "training, last tenth": _trained,
    "text of the training, masks never shown, at the end": _last("seen"),
    "held-out pairs, at the end": _last("pairs"),
    "held-out pairs, best checkpoint": _best("pairs"),
    "held-out segments, at the end": _last("singles"),
    "held-out segments, best checkpoint": _best("singles"),
}
_TIMES = ("at the end", "best checkpoint")
COMPARED = {
    ("static", "dynamic"): tuple(MEASURES)[:4],
    ("none", "dynamic"): tuple(MEASURES)[2:],
}


def collect(out: Path, *, plan: dict[str, Any], arms: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Returns all that runs have measured, and what they were.

    Args:
        out: Folder of the study.
        plan: What was asked for and settled.
        arms: Arm and seed of each run.
    """
    runs: dict[str, dict[str, Run]] = {}
    facts: dict[str, Any] = {}
    for arm, seed in arms:
        folder = out / "runs" / f"{arm}-{seed}"
        history = load_history(folder)
        start = history.facts["starts"][-1]
        if not facts:  # of the first arm
            facts = {"parameters": history.facts["num_parameters"], "word_entropy": history.facts["word_entropy"]}
            facts |= {name: start[name] for name in ("device", "versions")}
        names = ("step", "epoch", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
        train = [{name: row[name] for name in names if name in row} for row in history.of_kind("train")]
        held_out = json.loads((folder / "held_out.json").read_text())
        runs.setdefault(arm, {})[str(seed)] = {"train": train, "held_out": held_out}
    asked = plan["asked"] | {"input": Path(plan["asked"]["input"]).name}
    return {"plan": plan | {"asked": asked}, "facts": facts, "runs": _rounded(runs)}


def _rounded(value: Any) -> Any:
    """Returns nested lists and dictionaries with numbers of five digits behind the point: enough, and half as long."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


def verdict(differences: Sequence[float], *, arms: tuple[str, str]) -> tuple[float | None, float | None, str]:
    """Returns spread, half the width of the interval of 95 %, and what follows from paired differences of losses.

    Args:
        differences: The first arm minus the second, a number per seed.
        arms: Both.
    """
    number, mean = len(differences), statistics.fmean(differences)
    if number == 1:
        return None, None, "one seed: the spread is not known, and nothing follows"
    spread = statistics.stdev(differences)
    half_width = _T_QUANTILES[number - 1] * spread / math.sqrt(number)
    if abs(mean) > half_width:
        return spread, half_width, f"{arms[mean > 0]} has the lower loss, beyond the spread of the seeds"
    if abs(mean) <= spread:
        return spread, half_width, "smaller than the spread of the seeds: no difference was found"
    return spread, half_width, f"larger than the spread, but {number} seeds do not settle it"


def compare(runs: dict[str, dict[str, Run]]) -> list[Comparison]:
    """Returns the comparisons of a study: those seeds count that both arms have."""
    found = []
    for arms, measures in COMPARED.items():
        first, second = (runs[arm] for arm in arms)
        seeds = sorted(set(first) & set(second), key=int)
        for name in measures:
            differences = tuple(MEASURES[name](first[seed]) - MEASURES[name](second[seed]) for seed in seeds)
            spread, half_width, text = verdict(differences, arms=arms)
            found.append(
                Comparison(
                    measure=name,
                    arms=arms,
                    differences=differences,
                    mean=statistics.fmean(differences),
                    spread=spread,
                    half_width=half_width,
                    verdict=text,
                )
            )
    return found


def conclude(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns what the study says to its two questions."""
    better = {(one.arms[0], one.measure): one.better for one in comparisons}

    def who(arm: str, measure: str) -> str:
        found = better[arm, measure]
        return f"{found} is better" if found else "the arms are not told apart"

    masks = "; ".join(f"{when}, {who('static', f'held-out pairs, {when}')}" for when in _TIMES)
    conclusions = [f"Mask sets, on held-out pairs: {masks}."]
    for when in _TIMES:
        forms = {form: better["none", f"held-out {form}, {when}"] for form in ("pairs", "segments")}
        text = "; ".join(f"on {form}, {who('none', f'held-out {form}, {when}')}" for form in forms)
        if forms == {"pairs": "dynamic", "segments": "none"}:
            text += "; each arm is better on the form that it was trained on, which says nothing about the task itself"
        conclusions.append(f"Next sentences, {when}: {text}.")
    return conclusions


def write(results: dict[str, Any], *, out: Path) -> None:
    """Writes results.json, results.md and the figures.

    Args:
        results: From `collect`.
        out: Folder of the study.
    """
    comparisons = compare(results["runs"])
    everything = results | {"comparisons": [asdict(one) for one in comparisons]}
    write_atomically(out / "results.json", (json.dumps(everything) + "\n").encode())
    figures.draw(results, comparisons, out=out)
    write_atomically(out / "results.md", _page(results, comparisons).encode())


def _page(results: dict[str, Any], comparisons: Sequence[Comparison]) -> str:
    plan, facts, runs = results["plan"], results["facts"], results["runs"]
    scale, texts = plan["asked"]["scale"], plan["text"]
    lines = [
        "# Results",
        "",
        f"BERT-{scale['model']} ({facts['parameters']:,} parameters) on {facts['device']}; "
        f"{texts['train']['characters']:,} characters of {texts['train']['documents']:,} documents to train on, "
        f"{texts['held-out']['characters']:,} of {texts['held-out']['documents']:,} others held out. Who knows only "
        f"how frequent each word of the training text is has a loss of {facts['word_entropy']:.2f} nats there.",
        "",
        "| arm | samples | tokens | steps | epochs | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for arm, seeds in runs.items():
        (samples, tokens), steps = plan["sizes"][arm], plan["steps"][arm]
        epochs = steps * scale["batch_size"] / samples
        lines.append(f"| {arm} | {samples:,} | {tokens:,} | {steps:,} | {epochs:.1f} | {len(seeds)} |")
    lines += ["", "MLM loss in nats per word, mean over the seeds (and standard deviation):", ""]
    lines += [f"| | {' | '.join(runs)} |", "|---" * (len(runs) + 1) + "|"]
    for name, measure in MEASURES.items():
        cells = [_with_spread([measure(run) for run in seeds.values()]) for seeds in runs.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "Differences, paired by seed:", ""]
    lines += ["| measure | arms | mean | per seed | 95 % interval | verdict |", "|---|---|---|---|---|---|"]
    for one in comparisons:
        each = ", ".join(f"{value:+.3f}" for value in one.differences)
        interval = "–" if one.half_width is None else f"± {one.half_width:.3f}"
        arms = f"{one.arms[0]} minus {one.arms[1]}"
        lines.append(f"| {one.measure} | {arms} | {one.mean:+.3f} | {each} | {interval} | {one.verdict} |")
    accuracies = {
        arm: [run["held_out"][-1]["pairs"].get("nsp_accuracy") for run in seeds.values()] for arm, seeds in runs.items()
    }
    told = [f"{arm} {statistics.fmean(values):.1%}" for arm, values in accuracies.items() if None not in values]
    lines += ["", f"Next sentences told rightly, held out, at the end (chance 50 %): {', '.join(told)}.", ""]
    lines += [f"- {line}" for line in conclude(comparisons)]
    lines += ["", *(f"![{title}]({name})" for name, title in figures.FILES.items()), ""]
    return "\n".join(lines)


def _with_spread(values: Sequence[float]) -> str:
    spread = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"
