"""The command line on a finished data set: `bertdata inspect`."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["inspect"]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--num-samples", type=click.IntRange(min=1), default=3, show_default=True, help="Samples to show.")
@click.option("--split", type=click.Choice(["train", "eval"]), default="train", show_default=True, help="Which shards.")
@click.option("--mask-set", type=int, default=0, show_default=True, help="Which mask set is marked in the text.")
def inspect(folder: Path, num_samples: int, split: str, mask_set: int) -> None:
    """Prints a few samples: tokens, segments, label, and one mask set marked in the text.

    Then says how much the lengths of the segments give away.

    Example: bertdata inspect shards/ --num-samples 5
    """
    from bertdata.diagnostics import describe_label_guess
    from bertdata.inspection import iter_descriptions
    from bertdata.manifest import open_data_set

    data_set = open_data_set(folder)
    for text in iter_descriptions(data_set, split=split, num_samples=num_samples, mask_set=mask_set):
        click.echo(text)
    guess = describe_label_guess(data_set.load_statistics())
    if guess is not None:
        click.echo(guess)
