"""Teaches a pre-trained BERT to put a label on a sentence.

    python examples/finetune/sentences.py --model run/hf --train train.tsv --test dev.tsv --out labels/

The files are tables as of GLUE, with a line of column names: `sentence` and `label` as in SST-2, or others by
`--text-column` and `--label-column`. For CoLA, which has no such line: `--header source,label,mark,sentence`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from recipe import Recipe, Scores, Task, check_folders, load_tokenizer, progress, recipe_options, run
from tables import most_frequent, number_labels, read_table

if TYPE_CHECKING:
    from transformers.trainer_utils import PredictionOutput


def score(output: PredictionOutput) -> Scores:
    """Returns the share of right labels, and Matthews' correlation, which CoLA is measured by."""
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    predicted = output.predictions.argmax(-1)
    return {
        "accuracy": float(accuracy_score(output.label_ids, predicted)),
        "matthews": float(matthews_corrcoef(output.label_ids, predicted)),
    }


@click.command(context_settings={"show_default": True})
@recipe_options(learning_rate=2e-5, max_seq_length=128)
@click.option("--text-column", default="sentence", help="Name of the column with the sentences.")
@click.option("--label-column", default="label", help="Name of the column with the labels.")
@click.option("--header", help="Names of all columns, with commas, of files that have no line of them.")
@click.option("--text", help="Sentence to label at the end. [default: the first test row's]")
def main(text_column: str, label_column: str, header: str | None, text: str | None, **options: Any) -> None:
    """Fine-tunes a BERT on sentences with labels."""
    recipe = Recipe(**options)
    check_folders(recipe)
    columns = (text_column, label_column)
    train, test = (read_table(path, columns=columns, header=header) for path in (recipe.train, recipe.test))
    labels = number_labels(train, test)
    tokenizer = load_tokenizer(recipe, metrics="sklearn.metrics")
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, pipeline

    def encode(rows: list[tuple[str, ...]]) -> list[dict[str, Any]]:
        return [
            {**tokenizer(sentence, truncation=True, max_length=recipe.max_seq_length), "label": labels[label]}
            for sentence, label in progress(rows, desc="encoding")
        ]

    task = Task(
        model_class=AutoModelForSequenceClassification,
        labels=[*labels],
        train=encode(train),
        test=encode(test),
        collator=DataCollatorWithPadding(tokenizer),
        score=score,
        most_frequent=most_frequent(test),
    )
    if run(task, recipe=recipe, tokenizer=tokenizer):
        text = text or test[0][0]
        ask = pipeline("text-classification", model=str(recipe.out))
        (found,) = ask(text, truncation=True, max_length=recipe.max_seq_length)
        click.echo(f"{text}\n  {found['label']}  {found['score']:.1%}")


if __name__ == "__main__":
    main()
