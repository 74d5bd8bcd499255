"""Parquet files: a row is a record, with its text (or a list of its sentences) in one column.

A row group belongs to the split in which its first byte lies. It is read in batches of rows, so that memory does not
depend on how large it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import SEEK_END
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from bertdata.config import MIB
from bertdata.errors import ConfigError, InputError
from bertdata.inputs import input_facts, open_input
from bertdata.meter import count

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["Row", "iter_rows", "row_group_starts"]

_BATCH_BYTES = 8 * MIB
_MAX_BATCH_ROWS = 64  # few, since rows may be far longer than their share of the file: equal ones are stored once
_LANGUAGE = "language"


class Row(NamedTuple):
    """A row of a Parquet file.

    Attributes:
        where: Its number, counted from 1.
        value: Text, list of sentences or None; bytes where it is not UTF-8.
        language: What its column "language" says, if there is one.
    """

    where: str
    value: Any
    language: Any


@contextmanager
def _open(path: str) -> Iterator[tuple[pq.ParquetFile, list[int]]]:
    """Opens a file, and finds the first byte of each of its row groups."""
    import pyarrow.parquet as pq  # here, since every worker loads this module, and few read Parquet

    opened = open_input(path)
    size = opened.seek(0, SEEK_END)
    try:
        file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=MIB, page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: Parquet data damaged or cut off near byte {size:,} of {size:,}, where the footer ends ({error}); "
            "fetch or write the file again, or leave it out of the input"
        ) from error
    with opened, file:
        starts = [_first_byte(file.metadata.row_group(number)) for number in range(file.metadata.num_row_groups)]
        if not all(0 < start < size for start in starts):
            raise InputError(
                f"{path}: Parquet data damaged: its footer, which ends at byte {size:,}, has row groups start at bytes "
                f"{', '.join(f'{start:,}' for start in starts)}; fetch or write the file again, or leave it out"
            )
        yield file, starts


def _first_byte(group: pq.RowGroupMetaData) -> int:
    columns = [group.column(number) for number in range(group.num_columns)]
    pages = [
        column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset for column in columns
    ]
    return min((page for page in pages if page is not None), default=0)


def row_group_starts(path: str) -> list[int]:
    """Returns the first byte of each row group.

    Raises:
        InputError: The file is no Parquet file, or damaged.
    """
    with _open(path) as (_, starts):
        return sorted(starts)


def iter_rows(path: str, *, start: int, stop: int, text_field: str) -> Iterator[Row]:
    """Yields the rows of the row groups whose first byte lies in a range.

    Args:
        path: The file.
        start: First byte of the range.
        stop: The byte after it.
        text_field: Column that holds the text.

    Raises:
        InputError: The file is damaged.
        ConfigError: It has no such column of text.
    """
    with _open(path) as (file, starts):
        columns = _check_columns(path, file.schema_arrow, text_field=text_field)
        first_row = 0
        for number, first_byte in enumerate(starts):
            if start <= first_byte < stop:
                try:
                    yield from _iter_group(file, number, columns=columns, first_row=first_row)
                except (OSError, ValueError, pa.ArrowException) as error:
                    size = input_facts(path)[0]
                    raise InputError(
                        f"{path}: Parquet data damaged in the row group at byte {first_byte:,} of {size:,} ({error}); "
                        "fetch or write the file again, or leave it out of the input"
                    ) from error
            first_row += file.metadata.row_group(number).num_rows


def _check_columns(path: str, schema: pa.Schema, *, text_field: str) -> list[str]:
    if text_field not in schema.names:
        raise ConfigError(
            f"{path} has no column {text_field!r}; it has {', '.join(schema.names)}. Name the one with --text-field"
        )
    if schema.names.count(text_field) > 1:
        raise ConfigError(f"{path} has several columns {text_field!r}; name another one with --text-field")
    kind = schema.field(text_field).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not is_string and not pa.types.is_null(kind):
        raise ConfigError(
            f"{path}: column {text_field!r} holds {schema.field(text_field).type}; it must hold strings, or lists of "
            "strings. Name another one with --text-field"
        )
    return [text_field, _LANGUAGE] if _LANGUAGE in schema.names and text_field != _LANGUAGE else [text_field]


def _iter_group(file: pq.ParquetFile, number: int, *, columns: list[str], first_row: int) -> Iterator[Row]:
    group = file.metadata.row_group(number)
    if group.num_rows == 0:
        return
    row_bytes = max(1, group.total_byte_size // group.num_rows)
    batch_rows = max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES // row_bytes))
    row = first_row
    stored_bytes = sum(group.column(column).total_compressed_size for column in range(group.num_columns))
    for batch in file.iter_batches(batch_size=batch_rows, row_groups=[number], columns=columns, use_threads=False):
        languages = _values(batch.column(1)) if len(columns) == 2 else [None] * len(batch)
        count(read_bytes=stored_bytes * len(batch) // group.num_rows)
        for value, language in zip(_values(batch.column(0)), languages, strict=True):
            row += 1
            yield Row(f"row {row:,}", value, language)
    if row - first_row != group.num_rows:
        raise ValueError(f"{row - first_row:,} rows where the footer says {group.num_rows:,}")


def _values(column: pa.Array) -> list[Any]:
    """Returns a column's values; bytes for those that are not UTF-8, which Parquet does not rule out."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes() if hasattr(scalar, "as_buffer") else b""
