"""The whole way once: a corpus, shards, five epochs of training, and what came out of it.

    python examples/quickstart/run.py --out quickstart

It runs the commands that a user would type, shown as it goes, in a few minutes on two cores. The corpus is synthetic
(see `make_corpus.py`): good numbers here show that the tools work, and nothing about language. Run again, it goes on
where it stopped; with everything done it only prints the result.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import plotext

from bertdata import open_data_set
from bertdata.summary import format_table, summary_rows
from trainer.metrics import load_metrics

NUM_ARTICLES = 1500
MAX_SEQ_LENGTH = 64
EPOCHS = 5
BATCH_SIZE = 32  # smaller than by default: more steps in the same time, of which next sentences need many
LEARNING_RATE = 0.0015
HERE = Path(__file__).parent


def run(*command: str | Path) -> None:
    """Runs a command and shows it; after ^C, which that command hears too, waits until it has saved."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    is_stopped = False
    with subprocess.Popen([str(Path(sys.executable).parent / words[0]), *words[1:]]) as process:
        while process.poll() is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                is_stopped = True
    if is_stopped:
        sys.exit(f"quickstart: {words[0]} was stopped; run the same again, and it goes on from there")
    if process.returncode:
        sys.exit(f"quickstart: {words[0]} failed; see above")


def epoch_rows(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row per epoch: training losses, and accuracies on held-out documents."""
    evaluations = {row["step"]: row for row in metrics if row["kind"] == "eval"}
    return [
        row | {f"held_out_{name}": value for name, value in evaluations[row["step"]].items()}
        for row in metrics
        if row["kind"] == "epoch"
    ]


def format_epochs(rows: list[dict[str, Any]]) -> str:
    """Returns the table of the epochs as text."""
    lines = ["epoch  total loss  MLM loss  NSP loss  MLM accuracy  NSP accuracy   (accuracies on held-out documents)"]
    lines += [
        f"{row['epoch']:>5g}  {row['loss']:>10.3f}  {row['mlm_loss']:>8.3f}  {row['nsp_loss']:>8.3f}  "
        f"{row['held_out_mlm_accuracy']:>12.1%}  {row['held_out_nsp_accuracy']:>12.1%}"
        for row in rows
    ]
    last = rows[-1]
    lines.append(
        f"For comparison: always guessing the most frequent token is right {last['held_out_mlm_baseline']:.1%} of the "
        f"time; {last['held_out_num_samples']:,} held-out pairs."
    )
    return "\n".join(lines)


def print_chart(metrics: list[dict[str, Any]]) -> None:
    """Prints the total loss over the steps."""
    rows = [row for row in metrics if row["kind"] == "train"]
    plotext.plot([row["step"] for row in rows], [row["loss"] for row in rows], marker="braille")
    plotext.title("total loss (MLM + NSP)")
    plotext.xlabel("step")
    plotext.plotsize(90, 18)
    print(plotext.uncolorize(plotext.build()))


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("quickstart"), show_default=True, help="Folder.")
def main(out: Path) -> None:
    """Builds a synthetic corpus, trains a tiny BERT on it, and shows the result."""
    corpus, shards, training = out / "wiki.xml", out / "shards", out / "run"
    out.mkdir(parents=True, exist_ok=True)
    if not corpus.exists():
        run("python", HERE / "make_corpus.py", "--out", corpus, "--num-articles", str(NUM_ARTICLES))
    run("bertdata", "build", "--input", corpus, "--out", shards, "--max-seq-length", str(MAX_SEQ_LENGTH))
    run("bertdata", "inspect", shards, "--num-samples", "1")
    run(
        "bert-train",
        "--shards",
        shards,
        "--out",
        training,
        "--model",
        "tiny",
        "--epochs",
        str(EPOCHS),
        "--batch-size",
        str(BATCH_SIZE),
        "--learning-rate",
        str(LEARNING_RATE),
        "--log-every",
        "20",
    )

    metrics = load_metrics(training / "metrics.jsonl")
    print(f"\nWhat was built\n{format_table(summary_rows(open_data_set(shards)))}")
    print(f"\nWhat was learned\n{format_epochs(epoch_rows(metrics))}\n")
    print_chart(metrics)
    for texts in (["The cat sat on the mat.", "It was sleeping."], ["How are [MASK] doing?"]):
        run("bert-predict", training, *texts)
    print(f"\nThe model is in {training / 'hf'}; transformers' BertForPreTraining.from_pretrained loads it.")
    print("After `. .venv/bin/activate` the commands above are yours; docs/first-steps.md goes on with a real dump.")


if __name__ == "__main__":
    main()
