"""`python -m tests.trainer.reference`: trains named runs, and says whether their curves lie within their bands."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click
import torch

from tests.trainer.reference.curves import (
    RUNS,
    SEEDS,
    departures,
    kept_names,
    load_reference,
    save_reference,
    train_curve,
)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(RUNS)))
@click.option("--seeds", default=",".join(map(str, SEEDS)), show_default=True, help="Seeds to train, with commas.")
@click.option("--write", is_flag=True, help="Keep the curves as the reference instead of comparing them.")
@click.option("--learning-rate", type=float, help="Train with another rate: does the comparison notice?")
def main(names: tuple[str, ...], seeds: str, write: bool, learning_rate: float | None) -> None:
    """Trains named runs again; all of them, or those of NAMES. Exits with 1 where a curve leaves its band."""
    torch.set_num_threads(1)
    changes = {} if learning_rate is None else {"learning_rate": learning_rate}
    is_right = True
    for name in names or (RUNS if write else kept_names()):
        if not write and name not in kept_names():
            sys.exit(f"{name}: no curves are kept yet; --write keeps them")
        with tempfile.TemporaryDirectory() as folder:
            data_set = RUNS[name].make_data(Path(folder) / "data")
            fingerprint = data_set.manifest.fingerprint
            if not write and fingerprint != load_reference(name)["data"]:
                sys.exit(f"{name}: the data are others than those of the reference; --write keeps new curves")
            curves = {}
            for seed in map(int, seeds.split(",")):
                begun = time.perf_counter()
                curve = train_curve(RUNS[name], data_set=data_set, seed=seed, out=Path(folder) / str(seed), **changes)
                curves[seed] = curve
                took = f"{time.perf_counter() - begun:.0f} s"
                last = ", ".join(f"{field} {values[-1]:.4f}" for field, values in curve.items())
                click.echo(f"{name}, seed {seed}: {last} ({took})")
                if not write:
                    kept = load_reference(name)["curves"]
                    found = departures(list(kept.values()), curve)
                    is_right &= not found
                    same = "  the same, value for value" if kept.get(str(seed)) == curve else "  within the band"
                    click.echo("\n".join(found or [same]))
            if write:
                click.echo(save_reference(name, fingerprint=fingerprint, curves=curves))
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
