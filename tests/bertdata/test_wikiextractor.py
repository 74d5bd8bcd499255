import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata.errors import InputError
from tests.bertdata.formats import URL, extract
from tests.bertdata.reading import read


def test_iter_documents_takes_titles_off_and_brings_characters_back(tmp_path):
    text = extract(1, "A", "This is A.\n\nIt is &lt;small&gt; &amp;amp; old.") + extract(
        2, 'The "B" & <C>', "This is B."
    )
    (tmp_path / "wiki_00").write_text(text + '<doc id="3" revid="9" url="u" title="D">\n\nThis is D.\n</doc>\n')
    documents, counts, _ = read(tmp_path / "wiki_00")
    assert [document.text for document in documents] == [
        "This is A.\nIt is <small> &amp; old.",
        "This is B.",
        "This is D.",
    ]
    assert [document.id for document in documents] == ["wiki_00:A", 'wiki_00:The "B" & <C>', "wiki_00:D"]
    assert counts == {"records": 3, "documents": 3}


def test_iter_documents_keeps_first_line_that_is_no_title(tmp_path):
    (tmp_path / "a").write_text(f'<doc id="1" url="{URL}1" title="A">\nThis is A.\n</doc>\n')
    assert [document.text for document in read(tmp_path / "a")[0]] == ["This is A."]


def test_iter_documents_reads_json_of_wikiextractor(tmp_path):
    record = {"id": "1", "revid": "2", "url": f"{URL}1", "title": "A", "text": "This is &lt;A&gt;."}
    other = {"url": "https://example.org/a", "text": "This is &lt;B&gt;."}
    (tmp_path / "wiki_00").write_text(json.dumps(record) + "\n" + json.dumps(other) + "\n")
    assert [document.text for document in read(tmp_path / "wiki_00")[0]] == ["This is <A>.", "This is &lt;B&gt;."]


@settings(max_examples=80, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["One.", "Two.\n\nThree.", "", "é", "\n\n"]), max_size=8),
    split_bytes=st.integers(1, 300),
)
def test_splits_lose_no_article(tmp_path_factory, texts, split_bytes):
    path = tmp_path_factory.mktemp("extracts") / "a"
    path.write_text("".join(extract(number, f"T{number}", text) for number, text in enumerate(texts)))
    documents, counts, _ = read(path, split_bytes=split_bytes, format="wikiextractor")
    expected = [text.replace("\n\n", "\n").strip() for text in texts]
    assert [document.text for document in documents] == [text for text in expected if text]
    assert counts["records"] == len(texts)


DAMAGE = {
    "no opening tag": ("<doc id=", "<dxc id=", 1, "A"),
    "no closing tag": ("</doc>", "</dxc>", 1, "B"),
    "text between": ("</doc>\n<doc", "</doc>\nstray\nlines\n\n<doc", 1, "AB"),
}


@pytest.mark.parametrize("split_bytes", [1, 50, 10**6])
@pytest.mark.parametrize("damage", DAMAGE)
def test_iter_documents_books_damaged_tags(tmp_path, damage, split_bytes):
    old, new, num_bad, left = DAMAGE[damage]
    text = extract(1, "A", "This is A.") + extract(2, "B", "This is B.")
    place = text.rindex(old) if damage == "no opening tag" else text.index(old)
    (tmp_path / "a").write_text(text[:place] + text[place:].replace(old, new, 1))
    documents, counts, rejects = read(tmp_path / "a", split_bytes=split_bytes, format="wikiextractor")
    assert [document.text for document in documents] == [f"This is {letter}." for letter in left]
    assert counts["rejected_bad_markup"] == num_bad
    assert [reject.reason for reject in rejects] == ["bad_markup"]


@pytest.mark.parametrize("split_bytes", [1, 10**6])
def test_iter_documents_books_lines_before_the_first_tag(tmp_path, split_bytes):
    (tmp_path / "a").write_text("\nstray\n" + extract(1, "A", "This is A."))
    documents, _, rejects = read(tmp_path / "a", split_bytes=split_bytes, format="wikiextractor")
    assert len(documents) == 1
    assert [(reject.where, reject.excerpt) for reject in rejects] == [("line 2", "stray")]


def test_iter_documents_tells_that_a_file_is_cut_off(tmp_path):
    (tmp_path / "a").write_text((extract(1, "A", "This is A.") + extract(2, "B", "This is B."))[:-8])
    with pytest.raises(InputError, match=r"/a ends inside the <doc> 'B': the file is cut off"):
        read(tmp_path / "a")


def test_iter_documents_books_what_is_too_large_or_no_utf8(tmp_path):
    pages = [extract(1, "A", "x" * (5 << 20)), extract(2, "B", "y" * 2000), extract(3, "C", "This is C.")]
    data = "".join(pages).encode() + extract(4, "D", "b?d").encode().replace(b"?", b"\xff")
    (tmp_path / "a").write_bytes(data)
    documents, counts, _ = read(tmp_path / "a", max_document_bytes=1000)
    assert [document.text for document in documents] == ["This is C."]
    assert counts == {"records": 4, "documents": 1, "rejected_too_large": 2, "rejected_bad_utf8": 1}
