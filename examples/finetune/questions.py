"""Teaches a pre-trained BERT to find the answer to a question in a text.

    python examples/finetune/questions.py --model run/hf --train train-v1.1.json --test dev-v1.1.json --out answers/

The files are SQuAD's, 1.1 or 2.0. The model gives each piece of the text a score as the first of the answer and as the
last. Where some training questions have no answer, [CLS] stands for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np
from recipe import Recipe, Scores, Task, check_folders, load_tokenizer, progress, recipe_options, run
from squad import MAX_ANSWER, Question, Window, encode, iter_windows, read_squad

if TYPE_CHECKING:
    from transformers.trainer_utils import PredictionOutput


def best_answer(windows: list[Window], scores: Any, question: Question, *, may_lack: bool) -> tuple[str, float]:
    """Returns the most probable answer, "" if that is none, and its probability among all spans not too long.

    Args:
        windows: The question's.
        scores: For each window, those of its pieces as the answer's first, and as its last.
        question: The question.
        may_lack: Whether there may be no answer.
    """
    tables = []
    for window, (first_T, last_T) in zip(windows, scores, strict=True):
        padded = np.append(last_T[: len(window.spans) - 1], np.full(MAX_ANSWER, -np.inf))  # without the last [SEP]
        places = np.array(window.starts)[:, None]
        tables.append(first_T[places] + padded[places + np.arange(MAX_ANSWER)])  # [starts, MAX_ANSWER]
    nothing = [min(first_T[0] + last_T[0] for first_T, last_T in scores)] if may_lack else []
    every = np.concatenate([*(table.ravel() for table in tables), nothing]).astype(np.float64)
    best = int(every.argmax())
    probability = float(1 / np.exp(every - every[best]).sum())
    for window, table in zip(windows, tables, strict=True):
        if best < table.size:
            first, more = divmod(best, MAX_ANSWER)
            place = window.starts[first]
            return question.context[window.spans[place][0] : window.spans[place + more][1]], probability
        best -= table.size
    return "", probability


def read_answers(
    output: Any, windows: list[Window], questions: list[Question], *, may_lack: bool
) -> list[tuple[str, float]]:
    """Returns the answer to each question and its probability, from the model's scores for all windows."""
    own: list[list[int]] = [[] for _ in questions]
    for number, window in enumerate(windows):
        own[window.question].append(number)
    return [
        best_answer(
            [windows[number] for number in numbers],
            [(output[0][number], output[1][number]) for number in numbers],
            question,
            may_lack=may_lack,
        )
        for numbers, question in zip(own, questions, strict=True)
    ]


@click.command(context_settings={"show_default": True})
@recipe_options(learning_rate=5e-5, max_seq_length=384)
@click.option("--ask", nargs=2, help="A question and a text to answer it from. [default: the first test question]")
def main(ask: tuple[str, str] | None, **options: Any) -> None:
    """Fine-tunes a BERT on questions that a text answers."""
    recipe = Recipe(**options)
    check_folders(recipe)
    train, test = (read_squad(path) for path in (recipe.train, recipe.test))
    may_lack = not all(question.answers for question in train)
    tokenizer = load_tokenizer(recipe, metrics="torchmetrics.functional.text")
    import torch
    from torchmetrics.functional.text import squad as squad_scores
    from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding

    shown = progress(train, desc="encoding")
    train_windows = iter_windows(shown, tokenizer, length=recipe.max_seq_length)  # not kept: they are many
    test_windows = [*iter_windows(progress(test, desc="encoding"), tokenizer, length=recipe.max_seq_length)]

    def score(output: PredictionOutput) -> Scores:
        """Returns what SQuAD is measured by: the share of answers that are right, and how many words are, in %."""
        answers = read_answers(output.predictions, test_windows, test, may_lack=may_lack)
        found = [{"id": one.id, "prediction_text": text} for one, (text, _) in zip(test, answers, strict=True)]
        wanted = [
            {"id": one.id, "answers": {"text": [text for text, _ in one.answers] or [""], "answer_start": [0]}}
            for one in test
        ]
        metrics = squad_scores(found, wanted)
        return {"exact match": float(metrics["exact_match"]) / 100, "F1": float(metrics["f1"]) / 100}

    task = Task(
        model_class=AutoModelForQuestionAnswering,
        train=[encode(window, train[window.question]) for window in train_windows],
        test=[encode(window, test[window.question]) for window in test_windows],
        collator=DataCollatorWithPadding(tokenizer),
        score=score,
    )
    if model := run(task, recipe=recipe, tokenizer=tokenizer):
        text, context = ask or (test[0].text, test[0].context)
        asked = [Question(id="", text=text, context=context, answers=[])]
        windows = [*iter_windows(asked, tokenizer, length=recipe.max_seq_length)]
        batch = tokenizer.pad([window.inputs for window in windows], return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model(**batch)
        scores = output.start_logits.cpu().numpy(), output.end_logits.cpu().numpy()
        ((answer, probability),) = read_answers(scores, windows, asked, may_lack=may_lack)
        click.echo(f"{text}\n{context}\n  {answer or 'no answer'}  {probability:.1%}")


if __name__ == "__main__":
    main()
