"""Reads tables as GLUE has them: tab-separated (or .csv), under a line with the names of the columns."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click


def read_table(
    path: Path, *, columns: Sequence[str], header: str | None = None, text_option: str = "--text-column"
) -> list[tuple[str, ...]]:
    """Reads some columns of a table.

    Args:
        path: A .csv file, in which quotes hold commas and line ends, or a file with tabs, in which quotes are text.
        columns: Names of the wanted columns; the labels' is the last.
        header: Names of all columns with commas between them, for a file that has no line of them.
        text_option: Option that names the columns before the last.

    Returns:
        A tuple of texts per row, in the order of `columns`.

    Raises:
        click.ClickException: If a column is missing, or a row has too few or too many fields.
    """
    dialect = {} if path.suffix == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    try:
        text = path.read_text(encoding="utf-8-sig")  # MRPC's files begin with a byte order mark
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path} is not UTF-8 ({error}); convert it first, as with iconv") from error
    if not text.strip():
        raise click.ClickException(f"{path} has no rows")
    with io.StringIO(text, newline="") as file:
        reader = csv.reader(file, **dialect)
        names = next(reader, []) if header is None else header.split(",")
        if missing := [column for column in columns if column not in names]:
            hints = [f"name yours with {text_option}"]
            if missing[0] == columns[-1]:
                hints = ["name yours with --label-column", "give a file with labels, such as dev.tsv"]
            if header is None and look_like_row(names):
                hints.append("if its first line is a row already, name all columns with --header")
            if len(names) == 1:
                hints.append(f"divide the columns by {'commas' if path.suffix == '.csv' else 'tabs'}")
            raise click.ClickException(
                f"{path} has no column {missing[0]!r}; there are: {', '.join(names)}\n{'; or '.join(hints)}"
            )
        places = [names.index(column) for column in columns]
        rows = []
        for fields in filter(None, reader):  # an empty line is no row
            if len(fields) != len(names):
                raise click.ClickException(
                    f"{path}, line {reader.line_num}: {len(fields)} fields under {len(names)} columns"
                )
            rows.append(tuple(fields[place] for place in places))
    if not rows:
        raise click.ClickException(f"{path} has no rows")
    return rows


def look_like_row(names: Sequence[str]) -> bool:
    """Returns whether these are hardly names of columns: one is empty, a number or a sentence, or stands twice."""
    return len({*names}) < len(names) or any(
        not name.strip() or name.strip().isdecimal() or len(name.split()) > 4 for name in names
    )


def most_frequent(rows: Sequence[Sequence[str]]) -> float:
    """Returns the share of rows that have the most frequent label: what knowing no more than that would give."""
    return max(Counter(row[-1] for row in rows).values()) / len(rows)


def number_labels(train: Sequence[Sequence[str]], test: Sequence[Sequence[str]]) -> dict[str, int]:
    """Returns the number of each label, which is the last text of a row: sorted, so that 0 and 1 stay what they are.

    Raises:
        click.ClickException: If a row has an empty label, or the test rows have one that no training row has.
    """
    for name, rows in (("training", train), ("test", test)):
        if empty := [number for number, row in enumerate(rows, start=1) if not row[-1].strip()]:
            raise click.ClickException(f"{name} row {empty[0]:,} has an empty label, as have {len(empty):,} in all")
    labels = sorted({row[-1] for row in train})
    if unknown := sorted({row[-1] for row in test} - {*labels}):
        raise click.ClickException(f"no training row has the label {unknown[0]!r}; they have: {', '.join(labels)}")
    return {label: number for number, label in enumerate(labels)}
