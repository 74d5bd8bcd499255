"""Teaches a pre-trained BERT to put a label on a pair of sentences.

    python examples/finetune/pairs.py --model run/hf --train train.tsv --test dev.tsv --out entailment/

The files are tables as of GLUE, with a line of column names: `sentence1`, `sentence2` and `label` as in RTE, or others
by option: for QNLI `--text-columns question,sentence`, for MRPC `--text-columns "#1 String,#2 String"` and
`--label-column Quality`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from recipe import Recipe, Scores, Task, check_folders, load_tokenizer, progress, recipe_options, run
from tables import most_frequent, number_labels, read_table

if TYPE_CHECKING:
    from transformers.trainer_utils import PredictionOutput


def score(output: PredictionOutput) -> Scores:
    """Returns the share of right labels, and F1 of the last label: MRPC and QQP are measured by that of label 1."""
    from sklearn.metrics import accuracy_score, f1_score

    predicted, last = output.predictions.argmax(-1), output.predictions.shape[-1] - 1
    return {
        "accuracy": float(accuracy_score(output.label_ids, predicted)),
        "F1": float(f1_score(output.label_ids == last, predicted == last)),
    }


@click.command(context_settings={"show_default": True})
@recipe_options(learning_rate=2e-5, max_seq_length=128)
@click.option("--text-columns", default="sentence1,sentence2", help="Names of the columns with the sentences.")
@click.option("--label-column", default="label", help="Name of the column with the labels.")
@click.option("--header", help="Names of all columns, with commas, of files that have no line of them.")
@click.option("--text", nargs=2, help="Two sentences to label at the end. [default: the first test row's]")
def main(
    text_columns: str, label_column: str, header: str | None, text: tuple[str, str] | None, **options: Any
) -> None:
    """Fine-tunes a BERT on pairs of sentences with labels."""
    recipe = Recipe(**options)
    check_folders(recipe)
    texts = text_columns.split(",")
    if len(texts) != 2:
        raise click.UsageError(
            f"--text-columns takes the names of two columns with a comma between, not {text_columns!r}"
        )
    train, test = (
        read_table(path, columns=(*texts, label_column), header=header, text_option="--text-columns")
        for path in (recipe.train, recipe.test)
    )
    labels = number_labels(train, test)
    tokenizer = load_tokenizer(recipe, metrics="sklearn.metrics")
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, pipeline

    def encode(rows: list[tuple[str, ...]]) -> list[dict[str, Any]]:
        return [
            {**tokenizer(one, other, truncation=True, max_length=recipe.max_seq_length), "label": labels[label]}
            for one, other, label in progress(rows, desc="encoding")
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
        one, other = text or test[0][:2]
        ask = pipeline("text-classification", model=str(recipe.out))
        found = ask({"text": one, "text_pair": other}, truncation=True, max_length=recipe.max_seq_length)
        click.echo(f"{one}\n{other}\n  {found['label']}  {found['score']:.1%}")


if __name__ == "__main__":
    main()
