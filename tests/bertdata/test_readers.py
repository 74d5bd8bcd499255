import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bertdata.config import ReadOptions
from bertdata.documents import Document, Reject
from bertdata.lines import join_lines
from bertdata.readers import iter_documents
from bertdata.splits import plan_splits
from tests.bertdata.reading import read

DATA = Path(__file__).parents[3] / "shared" / "data"


def read_text(path: Path, text: str, **options: Any) -> list[str]:
    (path / "a.txt").write_text(text)
    return [document.text for document in read(path / "a.txt", format="text", **options)[0]]


def test_iter_documents_reads_jsonl(tmp_path: Path) -> None:
    records = [
        {"text": "Un.\nDeux.\r\n\r\nTrois.", "language": "fr"},
        {"text": ["One  sentence.", " ", "Another\none."]},
        {"text": "e\u0301"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    documents, _, _ = read(tmp_path / "a.jsonl")
    assert documents == [
        Document(id="a.jsonl:line 1", text="Un.\nDeux.\nTrois.", language="fr"),
        Document(
            id="a.jsonl:line 2",
            text="One sentence.\nAnother one.",
            language=None,
            sentences=("One sentence.", "Another one."),
        ),
        Document(id="a.jsonl:line 3", text="é", language=None),
    ]


def test_iter_documents_counts_bad_jsonl_by_reason(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}',
        b'{"text": "bad',
        b"[1]",
        b'{"other": "x"}',
        b'{"text": null}',
        b'{"text": 5}',
        b'{"text": ["a", 5]}',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b'{"text": ["\\udfff"]}',
        b'{"text": " "}',
        b'{"text": "ab"}',
        b'{"text": "' + b"x" * 1001 + b'"}',
        b"[" * 200_000,
        b"",
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    documents, counts, rejects = read(tmp_path / "a.jsonl", min_document_chars=3, max_document_bytes=1000)
    assert [document.text for document in documents] == ["good"]
    assert counts == {
        "records": 14,
        "documents": 1,
        "empty": 1,
        "too_short": 1,
        "rejected_bad_json": 3,
        "rejected_missing_field": 2,
        "rejected_bad_field": 2,
        "rejected_bad_utf8": 3,
        "rejected_too_large": 1,
    }
    assert len(rejects) == 11
    assert rejects[0] == Reject(
        path=str(tmp_path / "a.jsonl"), where="line 2", reason="bad_json", excerpt='{"text": "bad'
    )
    assert max(len(reject.excerpt) for reject in rejects) == 200
    json.dumps([reject.excerpt for reject in rejects]).encode()


BAD_RECORDS = [
    ("jsonl", b'{"text": "bad', "bad_json"),
    ("jsonl", b'"a string"', "bad_json"),
    ("jsonl", b'{"text": "\xff"}', "bad_utf8"),
    ("jsonl", b'{"text": "\\udc00"}', "bad_utf8"),
    ("jsonl", b'{"body": "x"}', "missing_field"),
    ("jsonl", b'{"text": {}}', "bad_field"),
    ("jsonl", b'{"text": "' + b"x" * 2000 + b'"}', "too_large"),
    ("jsonl", b'{"text": "' + b"x" * (2 << 20) + b'"}', "too_large"),
    ("text", b"\xff", "bad_utf8"),
    ("text", b"x" * 2000, "too_large"),
    ("text", b"x" * (2 << 20), "too_large"),
]


@pytest.mark.parametrize(("file_format", "record", "reason"), BAD_RECORDS)
@pytest.mark.parametrize("document_per", ["blank-line", "line", "file"])
def test_iter_documents_books_bad_record_under_its_reason(
    file_format: str, record: bytes, reason: str, document_per: str, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(record)
    options = {"format": file_format, "document_per": document_per, "max_document_bytes": 1000}
    documents, counts, rejects = read(tmp_path / "a", **options)
    assert documents == []
    assert counts == {"records": 1, f"rejected_{reason}": 1}
    assert [(reject.path, reject.reason) for reject in rejects] == [(str(tmp_path / "a"), reason)]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("num_records", [1, 2])
def test_iter_documents_takes_byte_order_mark_off_jsonl(num_records: int, end: str, tmp_path: Path) -> None:
    records = "\n".join(['{"text": "One."}'] * num_records)
    (tmp_path / "a.jsonl").write_bytes(f"\ufeff{records}{end}".encode())
    assert [document.text for document in read(tmp_path / "a.jsonl")[0]] == ["One."] * num_records


@pytest.mark.parametrize("document_per", ["blank-line", "line", "file"])
def test_iter_documents_takes_byte_order_mark_off_text_without_line_end(document_per: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffOne.".encode())
    assert [document.text for document in read(tmp_path / "a.txt", document_per=document_per)[0]] == ["One."]


def test_iter_documents_keeps_first_20_rejects(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{bad\n" * 50)
    _, counts, rejects = read(tmp_path / "a.jsonl")
    assert counts["rejected_bad_json"] == 50
    assert [reject.where for reject in rejects] == [f"line {i}" for i in range(1, 21)]


def test_iter_documents_never_holds_a_line_over_the_limit(tmp_path: Path) -> None:
    long = '{"text": "' + "x" * (6 << 20) + '"}'
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a"}}\n{long}\n{{"text": "b"}}\n{long}')
    documents, counts, _ = read(tmp_path / "a.jsonl", max_document_bytes=1000)
    assert [document.text for document in documents] == ["a", "b"]
    assert counts["rejected_too_large"] == 2


def test_iter_documents_reads_other_text_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "no", "body": "yes"}')
    assert read(tmp_path / "a.jsonl", text_field="body")[0][0].text == "yes"


def test_iter_documents_rejects_records_without_the_given_text_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "no"}\n{"body": "yes"}\n{"body": null}')
    documents, counts, rejects = read(tmp_path / "a.jsonl", text_field="body")
    assert [document.text for document in documents] == ["yes"]
    assert counts == {"records": 3, "documents": 1, "rejected_missing_field": 2}
    assert [reject.where for reject in rejects] == ["line 1", "line 3"]


@pytest.mark.parametrize(
    ("document_per", "expected"),
    [
        ("blank-line", ["One.\nTwo.", "Three."]),
        ("line", ["One.", "Two.", "Three."]),
        ("file", ["One.\nTwo.\nThree."]),
    ],
)
def test_iter_documents_divides_text(document_per: str, expected: list[str], tmp_path: Path) -> None:
    assert read_text(tmp_path, "\ufeff\nOne.\nTwo.\n \t\n\n Three.", document_per=document_per) == expected


@pytest.mark.parametrize("blank", ["\u3000", "\u00a0 ", "\u2003\t", "\x85", "\x1c"])
def test_iter_documents_divides_text_at_lines_of_any_white_space(blank: str, tmp_path: Path) -> None:
    assert read_text(tmp_path, f"一。\n{blank}\n　二。\n{blank}\n三。") == ["一。", "二。", "三。"]


def test_iter_documents_takes_lines_as_sentences(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n two \n\nthree\n")
    documents, _, _ = read(tmp_path / "a.txt", sentence_per_line=True)
    assert [document.sentences for document in documents] == [("one", "two"), ("three",)]


def test_iter_documents_reads_the_form_of_googles_create_pretraining_data(tmp_path: Path) -> None:
    long = "This sentence fills one line of a file and ends without any stop"
    (tmp_path / "a.txt").write_text(
        f"\n\n{long}\n{long}\n{long}\n\n \t\n\nDr. Two\tis  here. Or not.\r\nend\r\n\r\nlast"
    )
    documents, counts, _ = read(tmp_path / "a.txt", sentence_per_line=True)
    expected = [(long, long, long), ("Dr. Two is here. Or not.", "end"), ("last",)]
    assert [document.sentences for document in documents] == expected
    assert [document.text for document in documents] == ["\n".join(sentences) for sentences in expected]
    assert [document.id for document in documents] == ["a.txt:line 3", "a.txt:line 9", "a.txt:line 12"]
    assert counts == {"records": 3, "documents": 3}


@pytest.mark.parametrize(("document_per", "expected"), [("line", [("One.",), ("Two.",)]), ("file", [("One.", "Two.")])])
def test_iter_documents_takes_lines_as_sentences_of_lines_and_files(
    document_per: str, expected: list[tuple[str, ...]], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n")
    documents, _, _ = read(tmp_path / "a.txt", sentence_per_line=True, document_per=document_per)
    assert [document.sentences for document in documents] == expected


@pytest.mark.parametrize(
    ("document_per", "ids"),
    [("line", ["a:line 1", "a:line 3", "b:line 1"]), ("file", ["a:file", "b:file"])],
)
def test_iter_documents_never_joins_files(document_per: str, ids: list[str], tmp_path: Path) -> None:
    (tmp_path / "a").write_text("One.\n\nTwo.")
    (tmp_path / "b").write_text("Three.")
    assert [document.id for document in read(tmp_path, document_per=document_per)[0]] == ids


def test_iter_documents_joins_hard_wrapped_lines(tmp_path: Path) -> None:
    wrapped = (
        "It was the best of times, it was the worst of times, it was the age\n"
        "of wisdom, it was the age of foolishness, it was the epoch of well-\n"
        "known belief.\n"
        "\n"
        "It was the season of Light, it was the season of Darkness, it was the\n"
        "spring of hope.\n"
    )
    assert read_text(tmp_path, wrapped, document_per="file") == [
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
        "it was the epoch of well-known belief.\nIt was the season of Light, it was the season of Darkness, it was the "
        "spring of hope."
    ]


def test_join_lines_is_linear_in_a_run_of_spaces() -> None:
    started = time.process_time()
    assert join_lines("a \n  b" + " " * 500_000 + "c") == "a\nb c"
    assert time.process_time() - started < 15


@pytest.mark.parametrize(
    "text",
    [
        "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,",
        "This line is wide enough to be a wrapped one, but it is a sentence.\nAnd so is this one here.\nAnd this.",
        "A line that is much longer than a page is wide, as a paragraph of one line is in most of the files that people "
        "have\nAnother of them",
    ],
)
def test_iter_documents_keeps_other_lines_apart(text: str, tmp_path: Path) -> None:
    assert read_text(tmp_path, text) == [text]


def test_iter_documents_rejects_bad_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\n\nb\xffd\n\n" + b"x" * 2000 + b"\n\ngood too")
    documents, counts, rejects = read(tmp_path / "a.txt", max_document_bytes=1000)
    assert [document.text for document in documents] == ["good", "good too"]
    assert counts["rejected_bad_utf8"] == counts["rejected_too_large"] == 1
    assert rejects[0].where == "line 3"
    assert rejects[0].excerpt == "b\\xffd"


def test_iter_documents_counts_articles_of_real_dump() -> None:
    if not DATA.is_dir():
        pytest.skip("no real dump here")
    documents, counts, rejects = read(DATA / "enwiki-106-articles.xml.bz2")
    assert counts["pages"] == counts["articles"] + counts["redirects"] + counts["other_namespaces"] == 206
    assert counts["articles"] == counts["records"] == 106
    assert {document.language for document in documents} == {"en"}
    assert rejects == []
    text = "\n".join(document.text for document in documents)
    for markup in ("{{", "}}", "[[", "]]", "<ref", "</", "''", "\n=", "\n*", "&nbsp;", "  "):
        assert text.count(markup) <= 3, markup
    assert text.startswith("Anarchism is a political philosophy that advocates self-governed societies")
    assert len(text) > 2_500_000


def test_iter_documents_reads_real_zstd_jsonl() -> None:
    if not DATA.is_dir():
        pytest.skip("no real books here")
    options = ReadOptions()
    (split,) = plan_splits([str(DATA / "books-en.jsonl.zst")], options=options)
    documents = iter_documents(split, options=options, counts=Counter(), rejects=[])
    first = next(documents)
    assert first.id == "books-en.jsonl.zst:line 1"
    assert first.text.split("\n")[1].startswith("Among the high mountains of our fatherland")
