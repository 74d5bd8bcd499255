"""How fast a GPU trains, and whether it learns what it should: one command, `python -m tests.benchmarks.train_gpu`.

First, on any machine, shards of 128 and of 512 tokens that are small enough to carry along (a minute, 52 MiB):

    python -m tests.benchmarks.train_gpu --make gpu-shards

Then, on the machine with the GPU, from the root of the project. It needs torch >= 2.10, numpy, pyarrow, tokenizers,
click, tqdm and safetensors; where transformers is not installed ours is measured alone, where matplotlib is not there
is no plot:

    python -m tests.benchmarks.train_gpu --shards gpu-shards --out gpu.json --keep gpu-results --minutes 45

or, where a call must end within ten minutes, in four of them (each with --shards, --keep and an --out of its own):

    --part bet --part speed --model base
    --part speed --model large --length 512
    --part ways --model base --length 128
    --part curve --model base --length 128 --curve-minutes 2.5

The parts, in this order, and what an H200 may take for each (no GPU was there to try it):

    bet     2 min   layers on random tokens, no data and no loop: eager, compiled, in a CUDA graph; MFU of each beside
                    that of one product of large matrices
    speed  15 min   BERT-base and BERT-large at 128 and 512, ours and transformers with SDPA and torch.compile, the best
                    of some micro-batch sizes each: useful tokens and sequences per second, MFU, waiting for data,
                    padding, peak memory; each goal reached or missed
    ways   20 min   what each way gives beside the default, in the order of predicted gain: compiling, losses in the
                    compiled graph, micro-batch size, fixed shapes, CUDA graphs, hidden states in bf16, autotuning,
                    activation checkpointing
    curve   9 min   a real run of ours for --curve-minutes, then as many steps of transformers, same batches, weights
                    and rates, no dropout: both curves in one plot, and how far they lie apart. --curve ours and --curve
                    transformers are one of the runs alone; the curve of the other comes from --keep

Results are printed and written to --out as they come, and what there is no time left for says so. On a GPU each way has
a process of its own; one that fails shows its error, the others go on, and the exit status is 1 in the end. MFU counts
what the data asks for, padding not among it, see `trainer.flops`. To see the command run without a GPU:

    python -m tests.benchmarks.train_gpu --shards gpu-shards --device cpu --model tiny --tokens 512 --seconds 1 \
        --curve-steps 20 --curve-batch-size 8 --backend eager
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
