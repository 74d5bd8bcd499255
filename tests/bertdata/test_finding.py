import json
from pathlib import Path

import pytest

from bertdata.config import ReadOptions
from bertdata.errors import InputError
from bertdata.finding import find_record
from tests.bertdata.formats import FORMATS, format_of, write_format
from tests.bertdata.reading import read
from tests.corpus import article, iter_texts

TEXTS = [text.replace("\n\n", " ") for text in iter_texts(12)]


def find(path, name, **options):
    return find_record([str(path)], name=name, options=ReadOptions(**options))


@pytest.mark.parametrize("name", FORMATS)
def test_records_of_every_format_are_found_by_what_readers_call_them(tmp_path, name):
    path = write_format(tmp_path, name, TEXTS)
    documents, _, _ = read(path)
    assert len(documents) == len(TEXTS)
    for document in documents:
        where = document.id.partition(":")[2]
        for called in (where,) if format_of(name) == "mediawiki" else (where, document.id):
            found = find(path, called)
            assert (found.document, found.where, found.dropped) == (document, where, "")
            assert found.path == str(path)
            assert document.text in found.raw.replace("&gt;", ">")


@pytest.mark.parametrize("name", ["records.jsonl", "text.txt", "wiki_00"])
def test_records_are_found_by_their_byte(tmp_path, name):
    """Readers name records so in all splits but the first."""
    path = write_format(tmp_path, name, TEXTS)
    documents, _, _ = read(path, split_bytes=500)
    by_byte = [document for document in documents if ":byte " in document.id]
    if format_of(name) != "wikiextractor":
        assert len(by_byte) > 5
    for document in by_byte:
        assert find(path, document.id).document.text == document.text
        assert find(path, document.id.partition(":")[2]).document.text == document.text
    with pytest.raises(InputError, match="--document 'byte 3' is no record's place"):
        find(path, "byte 3")
    with pytest.raises(InputError, match="is no record's place"):
        find(path, "byte 99,999,999")


def test_json_records_are_found_by_title_and_id(tmp_path):
    path = tmp_path / "records.jsonl"
    records = [{"id": number, "title": f"Täle {number}", "text": text} for number, text in enumerate(TEXTS)]
    path.write_text("not json\n{broken\n" + "".join(json.dumps(record) + "\n" for record in records))
    assert find(path, "Täle 5", max_rejects=2).document.text == TEXTS[5]
    assert find(path, "5").where == "line 8"
    with pytest.raises(InputError, match="the nearest names are 'Täle 5'"):
        find(path, "Tale 5.")


def test_lines_keep_their_numbers_with_and_without_commas(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"Line {number} of the text.\n" for number in range(1, 2001)))
    for name in ("line 1234", "line 1,234", "lines.txt:line 1,234"):
        assert find(path, name, document_per="line").raw == "Line 1234 of the text."


def test_whole_files_are_found_by_their_name(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"The file {name}. Two lines.\n")
    assert find(tmp_path, "b.txt:file", document_per="file").raw == "The file b. Two lines.\n"
    assert find(tmp_path, "file", document_per="file").path.endswith("a.txt")


@pytest.fixture
def wiki(tmp_path):
    pages = [
        article("Ångström", "The town. A river."),
        article("Old name", "#REDIRECT [[Ångström#Life|there]]", redirect="Ångström"),
        article("Talk:Ångström", "I think so too.", namespace=1),
        article("Data", "{}").replace("<model>wikitext", "<model>json"),
        article("Nothing", "{{stub}}"),
        article("Short", "A town."),
    ]
    path = tmp_path / "wiki.xml"
    path.write_text('<mediawiki xml:lang="en">\n' + "".join(pages) + "</mediawiki>\n")
    return path


@pytest.mark.parametrize("name", ["Ångström", "ångström", "_Ångström"])
def test_titles_are_looked_up_as_a_wiki_does(wiki, name):
    assert find(wiki, name).document.text == "The town. A river."


def test_titles_have_spaces_for_underscores(wiki):
    assert find(wiki, "old_name").where == "Old name"


@pytest.mark.parametrize(
    ("name", "dropped", "raw"),
    [
        ("Old name", "it is a redirect to 'Ångström#Life'", "#REDIRECT [[Ångström#Life|there]]"),
        ("Talk:Ångström", "it is in another namespace than the articles", "I think so too."),
        ("Data", "what it holds is not wikitext", "{}"),
        ("Nothing", "no text is left of it", "{{stub}}"),
    ],
)
def test_pages_without_a_document_say_what_they_are(wiki, name, dropped, raw):
    found = find(wiki, name)
    assert (found.dropped, found.raw, found.document) == (dropped, raw, None)


def test_short_text_is_shown_with_its_length(wiki):
    found = find(wiki, "Short", min_document_chars=10)
    assert found.dropped == "its text has 7 characters; --min-document-chars is 10"
    assert found.document.text == "A town."


def test_filtered_document_is_shown_with_the_reason(wiki, tmp_path, monkeypatch):
    (tmp_path / "finding_filter.py").write_text("def no_rivers(document):\n    return 'wet'\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = find(wiki, "Ångström", filter="finding_filter:no_rivers")
    assert found.dropped == "--filter finding_filter:no_rivers drops it: wet"
    assert found.document.text == "The town. A river."


def test_custom_records_are_found_by_number_and_title(tmp_path, monkeypatch):
    (tmp_path / "finding_reader.py").write_text(
        "def read(path):\n    yield 'A town.'\n    yield {'title': 'River', 'text': ['A river.', 'A boat.']}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "data.bin").write_bytes(b"\0")
    options = {"format": "finding_reader:read"}
    assert find(tmp_path / "data.bin", "record 1", **options).document.text == "A town."
    found = find(tmp_path / "data.bin", "River", **options)
    assert (found.where, found.document.sentences) == ("record 2", ("A river.", "A boat."))
    assert json.loads(found.raw)["text"] == ["A river.", "A boat."]


def test_bad_records_say_why(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": 5}\n{"no": "text"}\n{"text": "\xff"}\n{"text": "' + b"x" * 2000 + b'"}\n')
    reasons = [find(path, f"line {number}", max_document_bytes=1000).dropped for number in range(1, 5)]
    assert reasons == [
        f"the record is rejected: {why}" for why in ("bad field", "missing field", "bad utf8", "too large")
    ]
    assert find(path, "line 3").raw == '{"text": "\\xff"}'


def test_record_too_large_to_hold_has_no_text(tmp_path):
    path = tmp_path / "large.jsonl"
    path.write_text(json.dumps({"text": "x" * (2 << 20)}) + "\n")
    found = find(path, "line 1", max_document_bytes=1000)
    assert (found.raw, found.document, found.dropped) == (None, None, "the record is rejected: too large")


def test_unknown_name_is_an_error_with_the_nearest(wiki_file):
    with pytest.raises(InputError, match=r"'Titel 7' is not among the 325 records .* nearest names are 'Title 7'"):
        find(wiki_file, "Titel 7")
    with pytest.raises(InputError, match="no name is like it"):
        find(wiki_file, "xyz")


def test_nearest_names_are_kept_over_many(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"title": f"{number:05d} page", "text": "A."}) + "\n" for number in range(9000)))
    with pytest.raises(InputError, match=r"9,000 records of the input; the nearest names are '01234 page', "):
        find(path, "01234_page")


def test_damage_before_the_record_is_an_error_unless_it_is_skipped(tmp_path, caplog):
    for name, text in (("a.xml", "<page><title>A"), ("b.xml", article("Title", "A town.") + "</mediawiki>")):
        (tmp_path / name).write_text(f"<mediawiki>\n{text}\n")
    with pytest.raises(InputError, match=r"a\.xml"):
        find(tmp_path, "Title")
    assert Path(find(tmp_path, "Title", skip_bad_splits=True).path).name == "b.xml"
