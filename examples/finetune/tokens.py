"""Teaches a pre-trained BERT to put a tag on each word: names, parts of speech, phrases.

    python examples/finetune/tokens.py --model run/hf --train train.txt --test valid.txt --out names/

The files have CoNLL's columns: a line per word, its tag in the last column (or `--tag-column`), and an empty line after
each sentence. A word's tag is learned and read at its first piece, as in the paper (section 5.3); others have no loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from recipe import Recipe, Scores, Task, check_folders, load_tokenizer, progress, recipe_options, run

if TYPE_CHECKING:
    from transformers.trainer_utils import PredictionOutput

NO_LOSS = -100  # what torch's cross entropy leaves out

Sentence = list[tuple[str, str]]  # words and their tags


def read_conll(path: Path, *, tag_column: int = -1) -> list[Sentence]:
    """Returns the sentences of a file with a word, its tag and perhaps other columns per line, separated by spaces."""
    sentences: list[Sentence] = [[]]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path} is not UTF-8 ({error}); convert it first, as with iconv") from error
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0] == "-DOCSTART-":
            sentences.append([])
        elif len(fields) < 2 or not -len(fields) <= tag_column < len(fields):
            raise click.ClickException(f"{path}, line {number}: no tag in column {tag_column} of {line!r}")
        else:
            sentences[-1].append((fields[0], fields[tag_column]))
    if not any(sentences):
        raise click.ClickException(f"{path} has no sentences")
    return [sentence for sentence in sentences if sentence]


@click.command(context_settings={"show_default": True})
@recipe_options(learning_rate=5e-5, max_seq_length=128)
@click.option("--tag-column", default=-1, help="Column of the tags; 0 is the words', -1 the last.")
@click.option("--text", help="Sentence to tag at the end. [default: the first test row's]")
def main(tag_column: int, text: str | None, **options: Any) -> None:
    """Fine-tunes a BERT on sentences with a tag for each word."""
    recipe = Recipe(**options)
    check_folders(recipe)
    train, test = (read_conll(path, tag_column=tag_column) for path in (recipe.train, recipe.test))
    tags = sorted({tag for sentence in [*train, *test] for _, tag in sentence})
    tokenizer = load_tokenizer(recipe, metrics="seqeval.metrics")
    from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
    from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, pipeline

    def encode(sentences: list[Sentence]) -> list[dict[str, Any]]:
        rows = []
        for sentence in progress(sentences, desc="encoding"):
            words = [word for word, _ in sentence]
            row = tokenizer(words, is_split_into_words=True, truncation=True, max_length=recipe.max_seq_length)
            labels, before = [], None
            for word in row.word_ids():
                labels.append(NO_LOSS if word in (None, before) else tags.index(sentence[word][1]))
                before = word
            rows.append({**row, "labels": labels})
        return rows

    def score(output: PredictionOutput) -> Scores:
        """Returns what CoNLL-2003 is measured by: a name counts if its tag, its beginning and its end are right.

        Tags that are not of B-, I- and O, such as parts of speech, are measured by the share of words that are right.
        """
        scored = output.label_ids != NO_LOSS
        true = [[tags[number] for number in row[mask]] for row, mask in zip(output.label_ids, scored, strict=True)]
        found = output.predictions.argmax(-1)
        predicted = [[tags[number] for number in row[mask]] for row, mask in zip(found, scored, strict=True)]
        if not all(tag == "O" or tag.startswith(("B-", "I-")) for tag in tags):
            return {"accuracy": float(accuracy_score(true, predicted))}
        metrics = {"precision": precision_score, "recall": recall_score, "F1": f1_score}
        return {name: float(metric(true, predicted)) for name, metric in metrics.items()}

    task = Task(
        model_class=AutoModelForTokenClassification,
        labels=tags,
        train=encode(train),
        test=encode(test),
        collator=DataCollatorForTokenClassification(tokenizer),
        score=score,
    )
    if lost := sum(map(len, test)) - sum(label != NO_LOSS for row in task.test for label in row["labels"]):
        click.echo(
            f"{lost:,} words of {recipe.test} lie beyond --max-seq-length, or have no piece: they are not measured"
        )
    if run(task, recipe=recipe, tokenizer=tokenizer):
        text = text or " ".join(word for word, _ in test[0])
        click.echo(text)
        for found in pipeline("token-classification", model=str(recipe.out), aggregation_strategy="first")(text):
            click.echo(f"  {found['entity_group']:<8}{found['score']:>6.1%}  {text[found['start'] : found['end']]}")


if __name__ == "__main__":
    main()
