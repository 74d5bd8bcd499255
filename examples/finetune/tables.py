"""Reads tables as GLUE has them: tab-separated (or .csv), under a line with the names of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import click


def read_table(path: Path, *, columns: Sequence[str], header: str | None = None) -> list[tuple[str, ...]]:
    """Reads some columns of a table.

    Args:
        path: A .csv file, in which quotes hold commas and line ends, or a file with tabs, in which quotes are text.
        columns: Names of the wanted columns.
        header: Names of all columns with commas between them, for a file that has no line of them.

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
    with io.StringIO(text, newline="") as file:
        reader = csv.reader(file, **dialect)
        names = next(reader, []) if header is None else header.split(",")
        if missing := [column for column in columns if column not in names]:
            raise click.ClickException(f"{path} has no column {missing[0]!r}; there are: {', '.join(names)}")
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


def number_labels(train: Sequence[Sequence[str]], test: Sequence[Sequence[str]]) -> dict[str, int]:
    """Returns the number of each label, which is the last text of a row: sorted, so that 0 and 1 stay what they are.

    Raises:
        click.ClickException: If the test rows have a label that no training row has.
    """
    labels = sorted({row[-1] for row in train})
    if unknown := sorted({row[-1] for row in test} - {*labels}):
        raise click.ClickException(f"no training row has the label {unknown[0]!r}; they have: {', '.join(labels)}")
    return {label: number for number, label in enumerate(labels)}
