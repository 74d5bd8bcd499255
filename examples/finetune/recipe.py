"""The published recipe of fine-tuning, which the four scripts here share: options, training, and a comparison.

Source: learning rate 2e-5 to 5e-5, 2 to 4 epochs, batches of 16 or 32 and dropout as in pre-training are those of
Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding" (2019), appendix A.3;
a warm-up over 10 % of the steps, linear decay to nothing and a weight decay of 0.01 those of the published
run_classifier.py and optimization.py.

torch and transformers take seconds to import. So that is done in functions, after the options and files were looked at.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from transformers.trainer_utils import PredictionOutput

WARM_UP = 0.1  # of all steps
WEIGHT_DECAY = 0.01
EVAL_BATCH_SIZE = 64
NUM_PLACES = 512  # of a published BERT, where config.json does not say
LOG_SECONDS = 60  # between signs of life in a log file

Scores = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What was asked for on the command line.

    Attributes:
        model: Folder of the pre-trained encoder and its tokenizer.
        train: File with the training rows.
        test: File with the rows to measure on.
        out: Folder for the fine-tuned model, or for `comparison.json`.
        overwrite: Whether that folder may hold something already.
        learning_rate: Highest learning rate, reached after the warm-up.
        epochs: Times that each training row is seen.
        batch_size: Rows of a step.
        max_seq_length: Pieces that the model sees at a time, [CLS] and [SEP] included.
        seed: Of the new layer's weights, of the order of the rows and of dropout.
        from_scratch: Whether to begin with random weights, of the encoder too.
        compare: Seeds with which to compare both beginnings; 0 trains one model and keeps it.
    """

    model: Path
    train: Path
    test: Path
    out: Path
    overwrite: bool
    learning_rate: float
    epochs: int
    batch_size: int
    max_seq_length: int
    seed: int
    from_scratch: bool
    compare: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What one of the scripts teaches a model.

    Attributes:
        model_class: One of transformers' AutoModelFor... classes.
        labels: Names of the labels in the order of their numbers; none for answers that are spans.
        train: Encoded training rows.
        test: Encoded test rows.
        collator: Makes a batch of encoded rows.
        score: Returns the task's usual metrics by name, from the model's output for all test rows.
        most_frequent: Share of the test rows with the most frequent label; 0 where the accuracy is not that of rows.
    """

    model_class: Any
    labels: Sequence[str] = ()
    train: Sequence[Mapping[str, Any]]
    test: Sequence[Mapping[str, Any]]
    collator: Callable[..., Any]
    score: Callable[[PredictionOutput], Scores]
    most_frequent: float = 0.0


def recipe_options(*, learning_rate: float, max_seq_length: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that adds the options of `Recipe` to a command."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    folder = click.Path(file_okay=False, path_type=Path)
    some = click.IntRange(min=1)
    options = [
        click.option("--model", type=folder, required=True, help="Folder of a pre-trained BERT, such as run/hf."),
        click.option("--train", type=file, required=True, help="File with the training rows."),
        click.option("--test", type=file, required=True, help="File with the rows to measure on."),
        click.option("--out", type=folder, required=True, help="Folder for the fine-tuned model, new or empty."),
        click.option("--overwrite", is_flag=True, help="Replace the model that is in --out."),
        click.option("--learning-rate", default=learning_rate, help="Highest learning rate."),
        click.option("--epochs", default=3, type=some, help="Times that each training row is seen."),
        click.option("--batch-size", default=32, type=some, help="Rows of a step."),
        click.option("--max-seq-length", default=max_seq_length, help="Pieces that the model sees at a time."),
        click.option("--seed", default=0, help="Another number gives another model."),
        click.option("--from-scratch", is_flag=True, help="Begin with random weights, for comparison."),
        click.option(
            "--compare",
            default=0,
            type=click.IntRange(min=0),
            metavar="SEEDS",
            help="Compare both beginnings, with so many seeds.",
        ),
    ]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def check_folders(recipe: Recipe) -> None:
    """Looks at the folders of both models, before anything that takes long.

    Raises:
        click.UsageError: If there is no model, it cannot see so many pieces at a time, or `--out` holds something.
    """
    config = recipe.model / "config.json"
    if not config.exists():
        raise click.UsageError(f"{recipe.model} has no config.json; --model takes a folder like bert-train's run/hf")
    most = json.loads(config.read_text(encoding="utf-8")).get("max_position_embeddings", NUM_PLACES)
    if not 16 <= recipe.max_seq_length <= most:
        raise click.UsageError(f"--max-seq-length is {recipe.max_seq_length}; this model takes 16 to {most}")
    if recipe.out.exists() and any(recipe.out.iterdir()) and not recipe.overwrite:
        raise click.UsageError(
            f"{recipe.out} is not empty; give --out another folder, or --overwrite to replace the model in this one"
        )


def load_tokenizer(recipe: Recipe, *, metrics: str) -> PreTrainedTokenizerBase:
    """Imports all that takes long, and returns the tokenizer that lies beside the pre-trained encoder.

    Args:
        recipe: What was asked for.
        metrics: Module of the metrics, which are missed now rather than after the training.

    Raises:
        click.ClickException: If a package is missing.
    """
    click.echo("loading torch and transformers", err=True)
    try:
        for name in ("torch", "transformers", "accelerate", metrics):
            import_module(name)
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}; the README beside this script says what to install") from error
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(recipe.model)


def progress(*rows: Any, **options: Any) -> tqdm[Any]:
    """Returns a bar for a terminal; where stderr is a file, it is one from the second minute on, and renewed rarely."""
    seconds = 0 if sys.stderr.isatty() else LOG_SECONDS
    return tqdm(*rows, leave=False, delay=seconds, mininterval=seconds or 0.1, maxinterval=seconds or 10, **options)


def make_callback() -> TrainerCallback:
    """Returns what shows a bar over the steps and over the test rows, and a line at the end of each epoch."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        bar: tqdm[Any] | None = None

        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self.bar = progress(total=state.max_steps, desc="training", unit="step")

        def on_step_end(self, *_: Any, **_more: Any) -> None:
            self.bar.update()

        def on_log(self, *_: Any, logs: Mapping[str, float], **_more: Any) -> None:
            if "loss" in logs:  # of an epoch, not of the whole training
                tqdm.write(f"epoch {logs['epoch']:g}  loss {logs['loss']:.4f}")
                sys.stdout.flush()

        def on_train_end(self, *_: Any, **_more: Any) -> None:
            self.bar.close()
            self.bar = None

        def on_prediction_step(self, *_: Any, eval_dataloader: Any, **_more: Any) -> None:
            self.bar = self.bar or progress(total=len(eval_dataloader), desc="measuring", unit="batch")
            self.bar.update()

        def on_predict(self, *_: Any, **_more: Any) -> None:
            self.bar.close()

    return Progress()


def fine_tune(task: Task, *, recipe: Recipe, seed: int, from_scratch: bool) -> tuple[PreTrainedModel, Scores]:
    """Trains a model, and returns it with its scores on the test rows."""
    import torch
    from transformers import AutoConfig, PrinterCallback, Trainer, TrainingArguments, set_seed

    set_seed(seed)  # before there is a model, since its new weights are drawn
    names = dict(enumerate(task.labels))
    labels = {"id2label": names, "label2id": {name: number for number, name in names.items()}} if names else {}
    if from_scratch:
        model = task.model_class.from_config(AutoConfig.from_pretrained(recipe.model, **labels))
    else:
        model = task.model_class.from_pretrained(recipe.model, **labels)
    num_steps = recipe.epochs * math.ceil(len(task.train) / recipe.batch_size)
    arguments = TrainingArguments(
        output_dir=str(recipe.out),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=EVAL_BATCH_SIZE,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(WARM_UP * num_steps),
        weight_decay=WEIGHT_DECAY,  # of matrices: the Trainer spares biases and layer norms
        seed=seed,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=task.train, data_collator=task.collator)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(make_callback())
    trainer.train()
    return model.eval(), task.score(trainer.predict(task.test))


def run(task: Task, *, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel | None:
    """Trains, measures and keeps one model, or compares both beginnings.

    Returns:
        The model, or None where beginnings were compared.
    """
    from transformers import logging

    logging.set_verbosity_error()  # else from_pretrained warns of the new layer's weights
    logging.disable_progress_bar()
    num_steps = math.ceil(len(task.train) / recipe.batch_size)
    click.echo(
        f"{len(task.train):,} rows to train on, {len(task.test):,} to measure on; "
        f"{num_steps:,} step{'s' if num_steps > 1 else ''} an epoch"
    )
    if recipe.compare:
        compare(task, recipe=recipe)
        return None
    model, scores = fine_tune(task, recipe=recipe, seed=recipe.seed, from_scratch=recipe.from_scratch)
    told = {name: f"{name} {score:.1%}" for name, score in scores.items()}
    if task.most_frequent:
        told["accuracy"] += f" ({task.most_frequent:.1%} by the most frequent label alone)"
    click.echo(f"{recipe.test}: " + ", ".join(told.values()))
    model.save_pretrained(recipe.out)
    tokenizer.model_max_length = recipe.max_seq_length  # longer texts are asked about in windows of what was trained
    tokenizer.save_pretrained(recipe.out)
    return model


def compare(task: Task, *, recipe: Recipe) -> None:
    """Trains from both beginnings with the seeds 0, 1, ..., and prints mean and standard deviation of the scores."""
    scores: dict[str, list[Scores]] = {"pre-trained": [], "random": []}
    for name, rows in scores.items():
        for seed in range(recipe.compare):
            click.echo(f"{name} weights, seed {seed}", err=True)
            rows.append(fine_tune(task, recipe=recipe, seed=seed, from_scratch=name == "random")[1])
    recipe.out.mkdir(parents=True, exist_ok=True)
    (recipe.out / "comparison.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    metrics = list(scores["random"][0])
    click.echo(f"weights at the start, seeds: {recipe.compare:<5}  " + "  ".join(f"{metric:>14}" for metric in metrics))
    for name, rows in scores.items():
        columns = [[row[metric] for row in rows] for metric in metrics]
        cells = [f"{mean(column):>6.1%} ± {stdev(column) if len(column) > 1 else 0:>5.1%}" for column in columns]
        click.echo(f"{name:<28}  " + "  ".join(cells))
