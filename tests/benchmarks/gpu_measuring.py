"""What the benchmarks on a GPU share: operations, peaks, clocks that wait for the device, and processes of their own.

Every measurement is a *kind*: a generator that takes a dictionary of settings and yields rows. On a GPU each runs in a
process of its own, so that one that fails, hangs or takes all memory ends alone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from trainer.flops import peak_of

__all__ = ["Row", "Timing", "clock", "find_peak", "iter_rows", "peak_memory", "timed"]

Row = dict[str, Any]
KINDS = {
    "bet": "tests.benchmarks.gpu_bet",
    "way": "tests.benchmarks.gpu_way",
    "curve": "tests.benchmarks.gpu_curve",
}


def measured_peak(device: torch.device, *, seconds: float) -> float:
    """Returns the operations per second of a large product of random bf16 matrices."""
    size = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    return 2 * size**3 / timed(lambda: left @ right, device=device, seconds=seconds).seconds


def find_peak(device: torch.device) -> tuple[float, str]:
    """Returns the operations per second that MFU is a share of, and where the figure is from."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = peak_of(name, precision="bf16")
    if peak is not None:
        return peak, f"{name}, {peak / 1e12:.0f} TFLOP/s by its data sheet"
    peak = measured_peak(device, seconds=0.2)
    return peak, f"{name}, {peak / 1e12:.3g} TFLOP/s in a product of matrices"


class Timing(NamedTuple):
    """What `timed` found.

    Attributes:
        seconds: Of one step.
        first_seconds: Of the first one, in which things are compiled.
        num_steps: Steps that were timed.
    """

    seconds: float
    first_seconds: float
    num_steps: int


def clock(device: torch.device) -> float:
    """Returns the time, when all work of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(step: Callable[[], Any], *, device: torch.device, seconds: float, warm_up: int = 3) -> Timing:
    """Runs a step again and again and returns how long it takes.

    Args:
        step: What to run; the device is waited for at the beginning and the end alone.
        device: Where it runs.
        seconds: Time to spend on it, about, after the first runs.
        warm_up: Runs that are not counted.
    """
    start = clock(device)
    step()
    first = clock(device)
    for _ in range(warm_up - 1):
        step()
    begin = clock(device)
    step()
    once = clock(device) - begin
    num_steps = max(2, round(seconds / max(once, 1e-6)))
    begin = clock(device)
    for _ in range(num_steps):
        step()
    return Timing((clock(device) - begin) / num_steps, first - start, num_steps)


def peak_memory(device: torch.device) -> float:
    """Returns the most GB that were in use: on a GPU of its memory, elsewhere by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def iter_rows(kind: str, settings: dict[str, Any], *, isolated: bool, seconds: float) -> Iterator[Row]:
    """Yields the rows of a measurement as they come; the last one has an `error` where it failed.

    Args:
        kind: Of `KINDS`.
        settings: JSON values for it.
        isolated: Whether it gets a process of its own, which is ended when time is up.
        seconds: Time that it may take.
    """
    rows = _from_process(kind, settings, seconds=seconds) if isolated else _run(kind, settings)
    try:
        yield from rows
    except torch.OutOfMemoryError:
        yield {"skipped": "out of memory"}  # found out by trying, and no mistake
    except Exception as error:  # whatever it is, the others are to be measured
        yield {"error": describe_error(error)}


def describe_error(error: Exception) -> str:
    """Returns an error as one line."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def _run(kind: str, settings: dict[str, Any]) -> Iterator[Row]:
    rows: Callable[[dict[str, Any]], Iterator[Row]] = importlib.import_module(KINDS[kind]).rows
    return rows(settings)


def _from_process(kind: str, settings: dict[str, Any], *, seconds: float) -> Iterator[Row]:
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.gpu_measuring", kind, json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(max(seconds, 1.0), end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
        if late.is_set():
            yield {"error": f"not done after {seconds:.0f} s"}
        elif code:
            errors.seek(0)
            lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
            yield {"error": f"its process ended with {code}: {(lines or [''])[-1]}"[:300]}


def main() -> None:
    """Runs one measurement; its rows are lines of JSON."""
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    with contextlib.redirect_stdout(sys.stderr):
        rows = iter_rows(kind, settings, isolated=False, seconds=0)
        for row in rows:
            print(json.dumps(row), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
