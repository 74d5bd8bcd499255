"""How fast a GPU trains, and whether it learns what it should: one command, `python -m tests.benchmarks.train_gpu`.

First, on any machine, shards that are small enough to carry along (about a minute; 50 MB for lengths 128 and 512):

    python -m tests.benchmarks.train_gpu --make gpu-shards

Then, on the machine with the GPU (torch >= 2.10, numpy, pyarrow, tokenizers, click, tqdm, safetensors; transformers and
matplotlib where they are there):

    python -m tests.benchmarks.train_gpu --shards gpu-shards --out gpu.json --keep gpu-results

Parts, in this order; each can be had alone with --part, and --minutes bounds the whole call:

    bet     2 min   layers on random tokens, no data and no loop: eager, compiled, in a CUDA graph; MFU of each
    speed   7 min   BERT-base and BERT-large at 128 and 512, ours and transformers with SDPA and torch.compile: MFU,
                    useful tokens and sequences per second, data wait, padding, peak memory; reached or missed by goal
    ways   15 min   what each way gives beside the default, in the order of predicted gain: compile modes, fixed shapes,
                    CUDA graphs, losses in the compiled graph, micro-batch size, activation checkpointing
    curve  10 min   a real run of ours for --curve-minutes, then as many steps of transformers: both curves in one plot,
                    and how far they lie apart; with --curve ours or theirs one of them alone, the other from --keep

A call may be cut short at any time: results are printed and written to --out as they come. On a GPU every way runs in a
process of its own; one that fails shows its error, the others go on, and the exit status is 1 in the end. What there
was no time for says so. MFU counts the operations that the data asks for, padding not among them:
6 L (4 H^2 + 2 H F) per token, 12 L H s for s tokens that a token attends to, 6 (H^2 + V H) per masked position.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import torch

from tests.benchmarks.gpu_data import make_shards
from tests.benchmarks.gpu_measuring import find_peak
from tests.benchmarks.gpu_parts import Report, Run
from tests.benchmarks.gpu_ways import OURS, THEIRS
from trainer.config import MODEL_SIZES

PARTS = ("bet", "speed", "ways", "curve")


@click.command(help=__doc__)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="A part; default: all.")
@click.option("--shards", type=click.Path(exists=True, path_type=Path), help="Folder that --make has made.")
@click.option("--make", type=click.Path(path_type=Path), help="Only build the shards into this folder.")
@click.option("--input", "source", type=click.Path(exists=True, path_type=Path), help="Text that --make builds from.")
@click.option("--megabytes", default=27.0, show_default=True, help="MB of text that --make takes of the books.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True, help="Where to run.")
@click.option("--model", "models", type=click.Choice(list(MODEL_SIZES)), multiple=True, help="Default: base, large.")
@click.option("--length", "lengths", type=click.Choice(["128", "512"]), multiple=True, help="Default: both.")
@click.option("--way", "chosen", multiple=True, help="Words in the names of ways to try; default: all.")
@click.option("--minutes", default=9.5, show_default=True, help="Time of the whole call.")
@click.option("--seconds", default=8.0, show_default=True, help="Time that each way is measured for.")
@click.option("--tokens", type=int, help="Tokens of a micro-batch, in place of those of each way.")
@click.option("--curve", type=click.Choice(["both", OURS, THEIRS]), default="both", show_default=True, help="Runs.")
@click.option("--curve-minutes", default=2.5, show_default=True, help="Length of our run.")
@click.option("--curve-steps", type=int, help="Steps of both runs, in place of --curve-minutes.")
@click.option("--curve-batch-size", default=256, show_default=True, help="Samples of a batch of both runs.")
@click.option("--dropout", default=0.0, show_default=True, help="Hidden dropout of both runs.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for curves and plot.")
@click.option("--out", type=click.Path(path_type=Path), help="File for all figures, as JSON.")
@click.option("--backend", default="inductor", show_default=True, help="Of torch.compile; aot_eager needs no compiler.")
@click.option("--isolate/--no-isolate", default=None, help="A process for each way; default: on a GPU.")
def main(**settings: Any) -> None:
    """Measures the parts and prints their tables."""
    if settings["make"] is not None:
        make_shards(settings["make"], source=settings["source"], megabytes=settings["megabytes"])
        return
    if settings["device"] == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("there is no GPU that torch can use; --device cpu runs everything on the CPU")
    parts = settings["parts"] or PARTS
    if settings["shards"] is None and set(parts) != {"bet"}:
        raise click.ClickException("give --shards, a folder that --make has made; only --part bet needs none")
    report = Report(settings["out"], minutes=settings["minutes"])
    peak, peak_name = find_peak(torch.device(settings["device"]))
    run = Run(settings, report=report, peak=peak)
    report.values |= {"device": peak_name, "peak": peak, "torch": torch.__version__, "python": sys.version.split()[0]}
    click.echo(f"{peak_name}; torch {torch.__version__}")
    for part in PARTS:
        if part in parts:
            getattr(run, part)()
    report.write()
    if report.num_errors:
        raise click.ClickException(f"{report.num_errors} ways failed; their errors stand above")


if __name__ == "__main__":
    main()
