"""A study in one command: five mask sets against a static one, and next sentences against none.

    python examples/study/run.py --out study/ --input books.jsonl.zst

It takes part of the text for training and other documents to be held out, and builds three data sets of the former
with `bertdata build`: "dynamic" (five mask sets, balanced next sentences), "static" (the same pairs with one mask set)
and "none" (single segments, five mask sets). Then `bert-train` runs for every arm and seed, every checkpoint is
evaluated on the same samples, and results.json, results.md and figures are written. Everything is kept in --out: the
same command goes on where it stopped. Where there is a GPU, it takes a larger model and all text.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import analyse
import click
import held_out
import numpy as np
import text

from bertdata import BertDataError, open_data_set
from bertdata.files import write_atomically
from trainer.run_history import load_history

NOVELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "books-en.jsonl.zst"
PAIRS = ("--next-sentence", "balanced")
SINGLES = ("--next-sentence", "none")
ARMS: dict[str, tuple[str, ...]] = {
    "dynamic": (*PAIRS, "--num-mask-sets", "5"),
    "static": (*PAIRS, "--num-mask-sets", "1"),
    "none": (*SINGLES, "--num-mask-sets", "5"),
}
EVALUATIONS: dict[str, tuple[str, tuple[str, ...], int]] = {  # text, options, and seed of the build
    "pairs": ("held-out", PAIRS, 0),
    "singles": ("held-out", SINGLES, 0),
    "seen": ("train", PAIRS, 1),  # other pairs and masks of the text that was trained on
}
NUM_CHECKPOINTS = 5
PROBE_STEPS = 60
SHARE_OF_TRAINING = 0.75
"""Of the time; the rest goes to starting, building and evaluating."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How large the study is.

    Attributes:
        model: Size for `bert-train --model`.
        max_seq_length: Tokens of a sample at most.
        vocab_size: Entries of the vocabulary at most.
        batch_size: Samples of a step.
        learning_rate: Its peak.
        epochs: Times that the arms with pairs show every sample.
        train_chars: Characters of the training text at most.
        held_out_chars: Characters of the held-out text at most.
        document_chars: Characters of a document at most: the rest of it is left out; None for no limit.
        eval_samples: Samples of each kind that a checkpoint is evaluated on at most.
    """

    model: str
    max_seq_length: int
    vocab_size: int
    batch_size: int
    learning_rate: float
    epochs: float
    train_chars: int
    held_out_chars: int
    document_chars: int | None
    eval_samples: int


SCALES = {
    "cpu": Scale(
        model="tiny",
        max_seq_length=64,
        vocab_size=4096,
        batch_size=8,  # small, because such a model needs many steps, and not many samples
        learning_rate=2e-3,
        epochs=24,
        train_chars=100_000,
        held_out_chars=100_000,
        document_chars=6_000,
        eval_samples=200,
    ),
    "cuda": Scale(
        model="small",
        max_seq_length=128,
        vocab_size=16_000,
        batch_size=256,
        learning_rate=5e-4,
        epochs=40,  # as published
        train_chars=200_000_000,
        held_out_chars=2_000_000,
        document_chars=None,
        eval_samples=2000,
    ),
}


def run(*command: object) -> None:
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
        raise click.ClickException(f"{words[0]} was stopped; the same command goes on from there")
    if process.returncode:
        raise click.ClickException(
            f"{words[0]} ended with {process.returncode}; see above. The same command goes on from there."
        )


def build(out: Path, name: str, *, corpus: str, scale: Scale, options: tuple[str, ...], seed: int = 0) -> None:
    """Builds a data set, unless it is there. One pass over the text: with two, a static mask would be two of them."""
    if (out / "shards" / name / "manifest.json").exists():
        return
    run(
        *("bertdata", "build", "--input", out / f"{corpus}.jsonl", "--out", out / "shards" / name),
        *("--tokenizer", out / "tokenizer.json", "--max-seq-length", scale.max_seq_length, "--dupe-factor", 1),
        *("--eval-fraction", 0, "--seed", seed, *options),
    )


def train(out: Path, arm: str, *, folder: Path, scale: Scale, num_steps: int, seed: int) -> None:
    """Trains a model, or goes on with it; keeps the checkpoints that are to be evaluated."""
    run(
        *("bert-train", "--shards", out / "shards" / arm, "--out", folder, "--model", scale.model),
        *("--batch-size", scale.batch_size, "--learning-rate", scale.learning_rate, "--max-steps", num_steps),
        *("--seed", seed, "--save-every", math.ceil(num_steps / NUM_CHECKPOINTS), "--keep", NUM_CHECKPOINTS + 1),
        *("--log-every", max(1, num_steps // 50)),
    )
    if load_history(folder).state != "finished":  # asked to stop, it ends well
        raise click.ClickException(f"{folder} was stopped; the same command goes on from there")


def sizes(out: Path, arm: str) -> tuple[int, int]:
    """Returns samples and tokens of the training split of an arm."""
    data_set = open_data_set(out / "shards" / arm)
    return data_set.manifest.num_samples("train"), int(data_set.blocks("train").num_tokens.sum())


def choose_steps(out: Path, *, scale: Scale, minutes: float | None, max_steps: int | None, num_runs: int) -> int:
    """Returns the steps of a run with pairs: what was given, or the epochs, or fewer where time is short."""
    if max_steps is not None:
        return max_steps
    steps = math.ceil(scale.epochs * sizes(out, "dynamic")[0] / scale.batch_size)
    if minutes is None:
        return steps
    train(out, "dynamic", folder=out / "probe", scale=scale, num_steps=PROBE_STEPS, seed=0)
    speed = float(np.median(load_history(out / "probe").series("train", "sequences_per_second").values))
    return max(1, min(steps, int(60 * minutes * SHARE_OF_TRAINING / num_runs * speed / scale.batch_size)))


def keep_plan(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Returns what a study in this folder has settled, which must be what is asked for now."""
    plan: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"asked": asked}
    differences = [
        f"{name} is {asked.get(name)}, not {value}" for name, value in plan["asked"].items() if asked.get(name) != value
    ]
    if differences:
        raise click.UsageError(
            f"{path.parent} holds another study: {'; '.join(differences)}. Give its options, or another --out."
        )
    return plan


def save(plan: dict[str, Any], out: Path) -> None:
    """Keeps what was settled, for when the command goes on."""
    write_atomically(out / "plan.json", json.dumps(plan, indent=1).encode())


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("study"), show_default=True, help="Folder.")
@click.option(
    "--input",
    "source",
    type=click.Path(exists=True, path_type=Path),
    help="Text to train on, in any format of `bertdata build`. [default: the novels in ../shared/data]",
)
@click.option("--minutes", type=click.FloatRange(min=1), help="About how long all may take. [default: all epochs]")
@click.option("--max-steps", type=click.IntRange(min=1), help="Steps of a run, instead of 24 (on a GPU 40) epochs.")
@click.option(
    "--train-chars",
    type=click.IntRange(min=1),
    help="Characters of the training text. [default: 100,000; on a GPU 200 million]",
)
@click.option("--seeds", "num_seeds", type=click.IntRange(1, 10), default=3, show_default=True, help="Runs per arm.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def main(
    *,
    out: Path,
    source: Path | None,
    minutes: float | None,
    max_steps: int | None,
    train_chars: int | None,
    num_seeds: int,
    dry_run: bool,
) -> None:
    """Compares mask sets, and next sentences with none, over several seeds.

    Example: python examples/study/run.py --out study/ --input books.jsonl.zst --minutes 45
    """
    if minutes is not None and max_steps is not None:
        raise click.UsageError("--minutes and --max-steps exclude each other; give one of them.")
    source = source or NOVELS
    if not source.exists():
        raise click.UsageError("the novels are not there; give --input with text of your own.")
    device = held_out.find_device()
    scale = SCALES[device]
    if train_chars is not None:
        scale = dataclasses.replace(scale, train_chars=train_chars)
    print(f"on {'a GPU' if device == 'cuda' else 'a CPU'}: {scale}")
    if dry_run:
        print(f"{len(ARMS)} arms ({', '.join(ARMS)}) x {num_seeds} seeds of {source}; nothing was done")
        return
    out.mkdir(parents=True, exist_ok=True)
    asked = {"input": str(source), "minutes": minutes, "max_steps": max_steps, "seeds": num_seeds}
    plan = keep_plan(out / "plan.json", asked | {"scale": dataclasses.asdict(scale)})
    try:
        study(out, source=source, scale=scale, plan=plan)
    except BertDataError as error:
        raise click.ClickException(str(error)) from error


def study(out: Path, *, source: Path, scale: Scale, plan: dict[str, Any]) -> None:
    """Does what of the study is not done yet."""
    asked = plan["asked"]
    arms = [(arm, seed) for seed in range(asked["seeds"]) for arm in ARMS]
    if "text" not in plan:
        plan["text"] = text.divide(
            str(source),
            out=out,
            train_chars=scale.train_chars,
            held_out_chars=scale.held_out_chars,
            document_chars=scale.document_chars,
        )
        save(plan, out)
    if not (out / "tokenizer.json").exists():
        run(
            *("bertdata", "vocab", "--input", source, "--out", out / "tokenizer.json"),
            *("--vocab-size", scale.vocab_size),
        )
    for arm, options in ARMS.items():
        build(out, arm, corpus="train", scale=scale, options=options)
    for name, (corpus, options, seed) in EVALUATIONS.items():
        build(out, f"eval-{name}", corpus=corpus, scale=scale, options=options, seed=seed)
    if "steps" not in plan:
        chosen = {name: asked[name] for name in ("minutes", "max_steps")}
        steps = choose_steps(out, scale=scale, num_runs=len(arms), **chosen)
        plan["sizes"] = {arm: sizes(out, arm) for arm in ARMS}
        tokens_of_a_step = {
            arm: scale.batch_size * tokens / samples for arm, (samples, tokens) in plan["sizes"].items()
        }
        # All arms see as many tokens.
        plan["steps"] = {
            arm: max(1, round(steps * tokens_of_a_step["dynamic"] / tokens)) for arm, tokens in tokens_of_a_step.items()
        }
        save(plan, out)

    shards = {name: out / "shards" / f"eval-{name}" for name in EVALUATIONS}
    for arm, seed in arms:
        folder = out / "runs" / f"{arm}-{seed}"
        if not (folder / "held_out.json").exists():
            train(out, arm, folder=folder, scale=scale, num_steps=plan["steps"][arm], seed=seed)
            held_out.evaluate_checkpoints(folder, shards=shards, max_samples=scale.eval_samples)
    results = analyse.collect(out, plan=plan, arms=arms)
    analyse.write(results, out=out)
    print((out / "results.md").read_text())


if __name__ == "__main__":
    main()
