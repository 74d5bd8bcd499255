"""The parts of the benchmark on a GPU: what is measured in which order, the tables, the goals."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bertdata.files import write_atomically
from tests.benchmarks import gpu_curve
from tests.benchmarks.bench import verdict
from tests.benchmarks.gpu_measuring import Row, iter_rows
from tests.benchmarks.gpu_ways import OURS, SPEED, THEIRS, WAYS, Way

LENGTHS = (128, 512)
MFU_GOALS = {"base": 0.45, "large": 0.52}
RATIO_GOAL, WAIT_GOAL, CURVE_GOAL = 2.0, 0.01, 0.02
BET_MINUTES = 2.0
WAY_SECONDS = 240.0  # that a way may take at most, start and compilation included
LEAST_SECONDS = 15.0  # that must be left for a way to be begun


class Report:
    """What was found, printed and written as it comes.

    Args:
        path: File of JSON; None for none.
        minutes: Time of the whole call.
    """

    def __init__(self, path: Path | None, *, minutes: float) -> None:
        self._path = path
        self._end = time.monotonic() + 60 * minutes
        self.values: dict[str, Any] = {"parts": {}}
        self.num_errors = 0

    @property
    def seconds_left(self) -> float:
        return self._end - time.monotonic()

    def add(self, part: str, row: Row) -> None:
        """Keeps a row of a part."""
        self.values["parts"].setdefault(part, []).append(row)
        self.num_errors += "error" in row
        self.write()

    def write(self) -> None:
        if self._path is not None:
            write_atomically(self._path, json.dumps(self.values, indent=1).encode())


class Run:
    """The parts of a call.

    Args:
        settings: Of the command line.
        report: What they add to.
        peak: Operations per second that MFU is a share of.
    """

    def __init__(self, settings: dict[str, Any], *, report: Report, peak: float) -> None:
        self._settings = settings
        self._report = report
        self._models = settings["models"] or ("base", "large")
        self._lengths = [int(length) for length in settings["lengths"] or LENGTHS]
        self._common = {name: settings[name] for name in ("device", "seconds", "dropout", "backend")} | {"peak": peak}
        isolate = settings["isolate"]
        self._isolated = settings["device"] == "cuda" if isolate is None else isolate
        self._has_transformers = importlib.util.find_spec("transformers") is not None
        if not self._has_transformers:
            click.echo("transformers is not installed: ours is measured alone")

    def bet(self) -> None:
        """Prints how near to the peak the layers come."""
        minutes = min(BET_MINUTES, self._report.seconds_left / 60)
        values = self._common | {
            "model": self._models[0],
            "num_tokens": self._settings["tokens"] or 32768,
            "lengths": self._lengths,
            "minutes": minutes,
            "seconds": min(3.0, self._common["seconds"]),
        }
        click.echo(f"\nthe bet: {values['model']}, {values['num_tokens']:,} random tokens, bf16")
        click.echo(f"{'':<24} {'L':>4} {'':<10} {'tokens/s':>10} {'MFU':>6} {'GB':>6} {'first s':>8}")
        seconds = 60 * minutes + 60
        for row in iter_rows("bet", values, isolated=self._isolated, seconds=seconds):
            self._report.add("bet", row)
            start = f"{row.get('what', 'the bet'):<24} {row.get('length', ''):>4} {row.get('mode', ''):<10}"
            if "tflops" in row:
                click.echo(f"{start} {row['tflops']:>6.3g} TFLOP/s {row['mfu']:>6.1%} of the peak")
            else:
                click.echo(f"{start} {self._figures(row)}" if "mfu" in row else f"{start} {why_not(row)}")

    @staticmethod
    def _figures(row: Row) -> str:
        return (
            f"{row['tokens_per_second']:>10,.0f} {row['mfu']:>6.1%} {row['memory_gb']:>6.1f} "
            f"{row['first_seconds']:>8.1f}"
        )

    def _shards(self, length: int) -> str:
        inside = self._settings["shards"] / str(length)
        return str(inside if inside.exists() else self._settings["shards"])

    def _wanted(self, ways: tuple[Way, ...]) -> Iterator[Way]:
        for way in ways:
            if self._settings["chosen"] and not any(word in way.name for word in self._settings["chosen"]):
                continue
            if way.library == THEIRS and not self._has_transformers:
                continue
            tokens = self._settings["tokens"]
            changes = {"backend": self._settings["backend"]} | ({} if tokens is None else {"tokens": tokens})
            yield Way(**(way.to_json() | changes))

    def _measure(self, part: str, way: Way, *, model: str, length: int) -> Row:
        """Measures a way, prints and keeps its row, and returns it."""
        values = self._common | {"dropout": 0.1, "way": way.to_json(), "model": model, "shards": self._shards(length)}
        row: Row = {"way": way.name, "library": way.library, "model": model, "length": length}
        left = self._report.seconds_left
        if left < LEAST_SECONDS:
            row |= {"skipped": "no time left"}
        else:
            for found in iter_rows("way", values, isolated=self._isolated, seconds=min(WAY_SECONDS, left)):
                row |= found
        self._report.add(part, row)
        start = f"{model:<6} {length:>4}  {way.name:<32}"
        if "mfu" not in row:
            click.echo(f"{start} {why_not(row)}")
            return row
        click.echo(
            f"{start} {self._figures(row)} {row['sequences_per_second']:>8,.0f} {row['data_wait']:>7.2%} "
            f"{row['padding']:>8.1%} {row['micro_batch_size']:>6} {row['loss']:>7.3f}"
        )
        return row

    @staticmethod
    def _head(title: str) -> None:
        click.echo(f"\n{title}")
        click.echo(
            f"{'':<45} {'tokens/s':>10} {'MFU':>6} {'GB':>6} {'first s':>8} {'seq/s':>8} {'waits':>7} {'padding':>8} "
            f"{'batch':>6} {'loss':>7}"
        )

    def speed(self) -> None:
        """Prints ours and theirs for each model and length, and what was reached."""
        self._head("speed: useful tokens of real shards, bf16")
        best: dict[tuple[str, int, str], Row] = {}
        # What decides the most goals first: the best guess of each, then the comparison, then the other tries.
        order = [
            (way, model, length)
            for rank in range(max(map(len, SPEED.values())))
            for library in (OURS, THEIRS)
            for model in self._models
            for length in sorted(self._lengths, reverse=True)
            for way in self._wanted(SPEED[library][rank : rank + 1])
        ]
        for way, model, length in order:
            row = self._measure("speed", way, model=model, length=length)
            key = (model, length, way.library)
            if "mfu" in row and row["mfu"] > best.get(key, {"mfu": 0.0})["mfu"]:
                best[key] = row
        for model in self._models:
            for length in self._lengths:
                self._judge(model, length, best.get((model, length, OURS)), best.get((model, length, THEIRS)))

    def _judge(self, model: str, length: int, ours: Row | None, theirs: Row | None) -> None:
        def say(what: str, value: str, goal: str, *, is_reached: bool) -> None:
            click.echo(f"{model:<6} {length:>4}  {what:<24} {value:>8}   {goal:>8} {verdict(is_reached)}")
            goals = self._report.values.setdefault("goals", [])
            goals.append({"model": model, "length": length, "what": what, "value": value, "reached": is_reached})

        if ours is None:
            click.echo(f"{model:<6} {length:>4}  ours was not measured")
            return
        if model in MFU_GOALS:
            say("MFU", f"{ours['mfu']:.1%}", f"{MFU_GOALS[model]:.0%}", is_reached=ours["mfu"] >= MFU_GOALS[model])
        say("waits for data", f"{ours['data_wait']:.2%}", f"{WAIT_GOAL:.0%}", is_reached=ours["data_wait"] < WAIT_GOAL)
        if theirs is not None:
            ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
            goal = f"{RATIO_GOAL:.0f} x" if length == 512 else ""
            say("against transformers", f"{ratio:.2f} x", goal, is_reached=length != 512 or ratio >= RATIO_GOAL)

    def ways(self) -> None:
        """Prints what each way gives, beside the first compiled one."""
        for length in self._lengths:
            self._head(f"ways: {self._models[0]} at {length}")
            rows = [self._measure("ways", way, model=self._models[0], length=length) for way in self._wanted(WAYS)]
            measured = [row for row in rows if "mfu" in row]
            base = next((row for row in measured if row["way"].startswith("compiled")), measured[0] if measured else {})
            for row in sorted(measured, key=lambda one: -one["mfu"]):
                ratio = row["tokens_per_second"] / base["tokens_per_second"]
                click.echo(f"  {row['way']:<32} {ratio:>5.2f} x of {base['way']}")

    def curve(self) -> None:
        """Prints how far the losses of both libraries lie apart."""
        model, length = self._models[0], min(self._lengths)
        folder = self._settings["keep"] or Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        click.echo(f"\ncurve: {model} at {length}, batches of {self._settings['curve_batch_size']}, dropout "
                   f"{self._settings['dropout']:g}")  # fmt: skip
        curves: dict[str, Any] = {}
        steps = self._settings["curve_steps"]
        for library in (OURS, THEIRS):
            path = folder / f"curve-{library}.json"
            if self._settings["curve"] in ("both", library):
                if library == THEIRS and not self._has_transformers:
                    continue
                found = self._follow(library, model=model, length=length, steps=steps)
                write_atomically(path, json.dumps(found).encode())
            elif path.exists():
                found = json.loads(path.read_text())
            else:
                click.echo(f"{path} is not there; give --curve {library} first, or both")
                continue
            curves[library] = found["losses"]
            steps = steps or found["steps"]
        if len(curves) == 2 and all(curves.values()):
            self._compare(curves, folder)

    def _follow(self, library: str, *, model: str, length: int, steps: int | None) -> dict[str, Any]:
        """Runs one library and returns its losses."""
        minutes = self._settings["curve_minutes"]
        values = self._common | {
            "way": Way(
                name=library,
                library=library,
                backend=self._settings["backend"],
                dynamic=library == OURS,
                fixed_width=True,
            ).to_json(),
            "model": model,
            "shards": self._shards(length),
            "batch_size": self._settings["curve_batch_size"],
            "steps": steps,
            "seconds": 60 * minutes,
        }
        found: dict[str, Any] = {"library": library, "model": model, "length": length, "steps": steps, "losses": []}
        left = self._report.seconds_left
        rows = iter_rows("curve", values, isolated=self._isolated, seconds=left) if left > LEAST_SECONDS else []
        for row in rows:
            found["losses"] += row.pop("losses", [])
            found |= row
        done = len(found["losses"])
        row = {name: value for name, value in found.items() if name != "losses"} | {"done": done}
        # A run that is cut short is compared as far as it came.
        if done and "error" in row and "not done after" in row["error"]:
            row["cut_short"] = row.pop("error")
        elif not done:
            row.setdefault("skipped", "no time left")
        self._report.add("curve", row)
        last = f"loss {sum(found['losses'][-20:]) / min(done, 20):.3f}" if done else ""
        click.echo(
            f"{library:<14} {done:>7,} of {found['steps'] or 0:,} steps, {found.get('seconds', 0):.0f} s  {last} {why_not(row)}"
        )
        return found

    def _compare(self, curves: dict[str, list[float]], folder: Path) -> None:
        apart = gpu_curve.distance(curves[OURS], curves[THEIRS])
        is_reached = apart["mean"] <= CURVE_GOAL
        click.echo(
            f"apart by {apart['mean']:.4f} nats on average, {apart['most']:.4f} at most (step {apart['at']}), over "
            f"{apart['steps']:,} steps, means of {apart['window']}; the noise of a step is {apart['noise']:.4f}: "
            f"{CURVE_GOAL} on average {verdict(is_reached)}"
        )
        self._report.values["curve"] = apart | {"reached": is_reached}
        path = folder / "curve.svg"
        click.echo(f"{path}" if gpu_curve.plot(curves, path) else "matplotlib is not installed: no plot")


def why_not(row: Row) -> str:
    """Returns why a row has no figures."""
    return row.get("error") or row.get("skipped") or row.get("cut_short") or ""
