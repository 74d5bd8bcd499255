import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata.config import ReadOptions
from bertdata.documents import Reject
from bertdata.errors import ConfigError, InputError
from bertdata.parquet import row_group_starts
from bertdata.rejects import iter_checked_documents
from bertdata.splits import plan_splits
from tests.bertdata.reading import read


def write(path: Path, values: Any, *, rows: int = 2, **options: Any) -> Path:
    """Writes a column "text" in row groups of some rows."""
    pq.write_table(pa.table({"text": values}), path, row_group_size=rows, **options)
    return path


def texts_of(path: Path, **options: Any) -> list[str]:
    return [document.text for document in read(path, **options)[0]]


TEXTS = [f"This is text {number} of a file." for number in range(7)]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_iter_documents_reads_any_column_of_text(tmp_path, kind, compression):
    path = write(tmp_path / "a", pa.array(TEXTS, pa.string()).cast(kind), compression=compression)
    documents, counts, _ = read(path)
    assert [document.text for document in documents] == TEXTS
    assert [document.id for document in documents] == [f"a:row {row}" for row in range(1, 8)]
    assert counts == {"records": 7, "documents": 7}


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string())], ids=str)
def test_iter_documents_reads_lists_of_sentences(tmp_path, kind):
    path = write(tmp_path / "a", pa.array([["One  of.", " ", "Two."], [], None], kind))
    documents, counts, rejects = read(path)
    assert [document.sentences for document in documents] == [("One of.", "Two.")]
    assert counts == {"records": 3, "documents": 1, "empty": 1, "rejected_missing_field": 1}
    assert [reject.where for reject in rejects] == ["row 3"]


def test_iter_documents_takes_language_and_other_column(tmp_path):
    table = pa.table({"text": ["no", "no"], "body": ["Oui.", "Ja."], "language": ["fr", None], "more": [1, 2]})
    pq.write_table(table, tmp_path / "a")
    documents, _, _ = read(tmp_path / "a", text_field="body")
    assert [(document.text, document.language) for document in documents] == [("Oui.", "fr"), ("Ja.", None)]


def test_iter_documents_books_what_is_no_utf8(tmp_path):
    binary = pa.array([b"good", b"b\xffd", None, b"good too"], pa.binary())
    path = write(tmp_path / "a", pa.Array.from_buffers(pa.string(), 4, binary.buffers()), rows=4)
    documents, counts, rejects = read(path)
    assert [document.text for document in documents] == ["good", "good too"]
    assert counts == {"records": 4, "documents": 2, "rejected_bad_utf8": 1, "rejected_missing_field": 1}
    assert [(reject.where, reject.excerpt) for reject in rejects] == [("row 2", "b\\xffd"), ("row 3", "None")]


def test_iter_documents_books_rows_over_the_limit(tmp_path):
    _, counts, _ = read(write(tmp_path / "a", ["x" * 2000, "y"]), max_document_bytes=1000)
    assert counts == {"records": 2, "documents": 1, "rejected_too_large": 1}


@settings(max_examples=40, deadline=None)
@given(num_rows=st.integers(0, 30), rows=st.integers(1, 10), split_bytes=st.integers(1, 4000))
def test_splits_of_row_groups_lose_no_row(tmp_path_factory, num_rows, rows, split_bytes):
    texts = [f"Text {number}. " * (number + 1) for number in range(num_rows)]
    path = write(tmp_path_factory.mktemp("parquet") / "a", pa.array(texts, pa.string()), rows=rows)
    assert texts_of(path, split_bytes=split_bytes) == [text.strip() for text in texts]


def test_plan_splits_cuts_where_row_groups_start(tmp_path):
    path = write(tmp_path / "a", TEXTS)
    splits = plan_splits([str(path)], options=ReadOptions(), split_bytes=1)
    assert [split.start for split in splits][1:] == row_group_starts(str(path))[1:]
    assert len(splits) == 4
    assert [split.start for split in splits][1:] == [split.stop for split in splits][:-1]
    assert splits[-1].stop == path.stat().st_size


def test_plan_splits_says_how_to_get_parallelism(tmp_path, caplog):
    path = write(tmp_path / "a", TEXTS, rows=100)
    assert len(plan_splits([str(path)], options=ReadOptions(), split_bytes=100)) == 1
    assert "smaller row groups" in caplog.text


def test_iter_documents_reads_lists_of_fixed_size_and_columns_of_nothing(tmp_path):
    pairs = pa.array([["One.", "Two."]], pa.list_(pa.string(), 2))
    assert texts_of(write(tmp_path / "a", pairs)) == ["One.\nTwo."]
    assert read(write(tmp_path / "b", pa.nulls(3)))[1] == {"records": 3, "rejected_missing_field": 3}


def test_iter_documents_names_a_column_that_is_there_twice(tmp_path):
    table = pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a")
    with pytest.raises(ConfigError, match="has several columns 'text'"):
        read(tmp_path / "a")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["x"], "id": [1]}, "has no column 'text'; it has body, id. Name the one with --text-field"),
        ({"text": [5]}, "column 'text' holds int64; it must hold strings"),
        ({"text": [[5]]}, "column 'text' holds list"),
    ],
)
def test_iter_documents_names_columns_that_there_are(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a")
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "a")


def damaged(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("length", [4, 10, 300, -1])
def test_plan_splits_names_a_file_that_is_cut_off(tmp_path, length):
    data = write(tmp_path / "a", TEXTS).read_bytes()
    with pytest.raises(InputError, match=r"/b: Parquet data damaged or cut off near byte [\d,]+ of [\d,]+"):
        read(damaged(tmp_path / "b", data[:length]))


def test_iter_documents_names_the_row_group_that_is_damaged(tmp_path):
    path = write(tmp_path / "a", TEXTS, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    start, end = row_group_starts(str(path))[1:3]
    data[end - 3] ^= 0xFF
    with pytest.raises(InputError, match=rf"/a: Parquet data damaged in the row group at byte {start:,} of"):
        read(damaged(path, bytes(data)))
    documents, counts, rejects = read_checked(path, skip_bad_splits=True, split_bytes=1)
    assert [document.text for document in documents] == TEXTS[:2] + TEXTS[4:]
    assert counts["damaged_splits"] == 1
    assert [reject.reason for reject in rejects] == ["damaged_split"]


def read_checked(path: Path, *, split_bytes: int, **options: Any) -> Any:
    counts: Counter[str] = Counter()
    rejects: list[Reject] = []
    chosen = ReadOptions(**options)
    splits = plan_splits([str(path)], options=chosen, split_bytes=split_bytes)
    documents = iter_checked_documents(splits, options=chosen, counts=counts, rejects=rejects, keep_in=None)
    return list(documents), counts, rejects


def test_skip_bad_splits_counts_a_file_without_a_footer(tmp_path):
    data = write(tmp_path / "a", TEXTS).read_bytes()
    documents, counts, _ = read_checked(damaged(tmp_path / "b", data[:300]), skip_bad_splits=True, split_bytes=1)
    assert documents == []
    assert counts["damaged_splits"] == 1


def test_parquet_in_a_compressed_file_is_refused(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(write(tmp_path / "a", TEXTS).read_bytes()))
    with pytest.raises(InputError, match="a Parquet file within gz; decompress it first"):
        read(tmp_path / "a.gz")
