import bz2
import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata.config import ReadOptions
from bertdata.decompress import iter_chunks
from bertdata.errors import InputError
from bertdata.splits import plan_splits
from tests.bertdata.reading import read

OPTIONS = ReadOptions()


def read_texts(path: Path, **options: Any) -> list[str]:
    """Reads a file split by split."""
    return [document.text for document in read(path, **options)[0]]


def page(title: str, text: str) -> str:
    return f"<page><title>{title}</title><ns>0</ns><revision><text>{text}</text></revision></page>\n"


def dump(num_pages: int) -> str:
    pages = "".join(page(f"T{i}", f"This is the text of page {i}.") for i in range(num_pages))
    return f'<mediawiki xml:lang="en">\n{pages}</mediawiki>\n'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a", '<mediawiki xml:lang="fr">\n<page>', "mediawiki"),
        ("a", '\n<?xml version="1.0"?><mediawiki>', "mediawiki"),
        ("a", "<page><title>", "mediawiki"),
        ("a", '{"text": "x"}\n{"text"', "jsonl"),
        ("a.jsonl", "{broken\n", "jsonl"),
        ("a", "\ufeff" + '{"text": "x"}', "jsonl"),
        ("a.jsonl", "damaged\n", "jsonl"),
        ("a.JSONL.old", "null\n", "jsonl"),
        ("a", 'damaged\n["a"]\n{"text": "x"}\n{"text": "y"}\n', "jsonl"),
        ("a", 'Most lines\nare text here\n{"text": "x"}\n', "text"),
        ("a", '{"text": "cut', "text"),
        ("a", 'stray\n<doc id="1" url="u" title="A">\n', "wikiextractor"),
        ("a", 'A text about <doc id="1" url="u" title="A">', "text"),
        ("a", "{a brace} opens this text.", "text"),
        ("a", '{"a":' * 40_000, "text"),
        ("a", "[1] opens this text.", "text"),
        ("a", "<!DOCTYPE html><p>x", "text"),
        ("a", " \n", "text"),
    ],
)
def test_plan_splits_detects_format(name: str, content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert [split.format for split in plan_splits([str(tmp_path / name)], options=OPTIONS)] == [expected]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.7z", b"7z\xbc\xaf\x27\x1c...", "7z"),
        ("a.xz", b"\xfd7zXZ\x00...", "xz"),
        ("a.zip", b"PK\x03\x04...", "zip"),
        ("a.parquet", b"PAR1...", "Parquet"),
        ("a.txt", "text".encode("utf-16"), "UTF-16"),
        ("a.json", b'{\n "text": "x"\n}', "one JSON object per line"),
        ("a.xml", b"<?xml version='1.0'?><feed/>", "not a MediaWiki dump"),
        ("a.tar", b"a.txt" + bytes(252) + b"ustar\x00", "a tar archive"),
        ("a.xml", b"<!DOCTYPE x [<!ENTITY a 'b'>]><mediawiki><page>", "DOCTYPE"),
    ],
)
def test_plan_splits_refuses_what_it_cannot_read(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        plan_splits([str(tmp_path / name)], options=OPTIONS)


@pytest.mark.parametrize("content", ["Plain text.", '<mediawiki xmlns="http'])
def test_plan_splits_refuses_as_a_dump_what_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(content)
    with pytest.raises(InputError, match="has neither <mediawiki> nor <page>"):
        plan_splits([str(tmp_path / "a")], options=ReadOptions(format="mediawiki"))


def test_plan_splits_lets_format_option_override(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"text": "x"}\n')
    assert plan_splits([str(tmp_path / "a")], options=ReadOptions(format="text"))[0].format == "text"


def test_plan_splits_cuts_evenly_and_skips_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x" * 100)
    (tmp_path / "b").write_text("")
    splits = plan_splits([str(tmp_path)], options=OPTIONS, split_bytes=30)
    assert [(split.start, split.stop) for split in splits] == [(0, 25), (25, 50), (50, 75), (75, 100)]
    assert len(plan_splits([str(tmp_path)], options=OPTIONS)) == 1
    assert len(plan_splits([str(tmp_path)], options=ReadOptions(document_per="file"), split_bytes=30)) == 1


def test_split_has_what_a_dump_says_of_itself(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<mediawiki xml:lang="de"><siteinfo><namespaces><namespace key="6">Datei &amp; Bild</namespace>'
        '<namespace key="0" /></namespaces></siteinfo></mediawiki>'
    )
    (split,) = plan_splits([str(tmp_path)], options=OPTIONS)
    assert split.language == "de"
    assert split.namespaces == (("Datei & Bild", 6),)
    assert split.name == "a.xml[0-151]"


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "bz2": bz2.compress,
    "gz": gzip.compress,
    "zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("text", [dump(5), '{"text": "One."}\n{"text": "Two."}', "One.\n\nTwo.\nThree.\n"])
def test_plan_splits_reads_compressed_files_the_same(compression: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text(text)
    (tmp_path / "packed").write_bytes(COMPRESS[compression](text.encode()))
    (split,) = plan_splits([str(tmp_path / "packed")], options=OPTIONS)
    assert split.compression == compression
    assert read_texts(tmp_path / "packed") == read_texts(tmp_path / "plain")


# A flipped bit in zstd data is found only where the frame has a checksum, as the command line tool writes it.
@pytest.mark.parametrize(
    ("compression", "damage"), [("bz2", "cut"), ("bz2", "flip"), ("gz", "cut"), ("gz", "flip"), ("zst", "cut")]
)
def test_iter_documents_names_damaged_file_and_byte(compression: str, damage: str, tmp_path: Path) -> None:
    data = bytearray(COMPRESS[compression](dump(200).encode()))
    if damage == "cut":
        del data[-10:]
    else:
        data[len(data) // 2] ^= 0xFF
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError, match=r"/a: .* near byte [\d,]+ of [\d,]+.*leave it out of the input"):
        read_texts(tmp_path / "a")


def test_plan_splits_tells_how_to_get_parallelism(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(dump(50).encode()))
    with caplog.at_level(logging.WARNING):
        assert len(plan_splits([str(tmp_path)], options=OPTIONS, split_bytes=100)) == 1
    assert "multistream" in caplog.text


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 2000), max_size=12), split_bytes=st.integers(1, 1500))
def test_plan_splits_of_multistream_bz2_lose_no_page(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], split_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("bz2") / "a.bz2"
    data = dump(20).encode()
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    path.write_bytes(b"".join(bz2.compress(data[a:b]) for a, b in zip(edges, edges[1:], strict=False)))
    assert read_texts(path, split_bytes=split_bytes) == [f"This is the text of page {i}." for i in range(20)]


def test_plan_splits_cuts_multistream_bz2_at_streams(tmp_path: Path) -> None:
    streams = [bz2.compress(page(f"T{i}", f"This is the text of page {i}.").encode()) for i in range(8)]
    (tmp_path / "a").write_bytes(b"".join(streams))
    splits = plan_splits([str(tmp_path)], options=OPTIONS, split_bytes=1)
    assert [split.stop - split.start for split in splits] == [len(stream) for stream in streams]


TEXT = st.lists(st.sampled_from(["One.", "Two", " ", "", "\n", "\r\n", "é", "\n\n", "\ufeff", " \n \n"]), max_size=30)


@settings(max_examples=150, deadline=None)
@given(pieces=TEXT, split_bytes=st.integers(1, 40), document_per=st.sampled_from(["blank-line", "line", "file"]))
def test_plan_splits_of_text_lose_no_document(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], split_bytes: int, document_per: str
) -> None:
    path = tmp_path_factory.mktemp("text") / "a"
    path.write_bytes("".join(pieces).encode())
    options = {"format": "text", "document_per": document_per}
    whole = read_texts(path, **options)
    assert read_texts(path, split_bytes=split_bytes, **options) == whole
    assert "".join("".join(whole).split()) == "".join("".join(pieces).replace("\ufeff", "").split())


@settings(max_examples=80, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1, max_size=8), max_size=12), split_bytes=st.integers(1, 60), blank=st.booleans()
)
def test_plan_splits_of_jsonl_lose_no_record(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], split_bytes: int, blank: bool
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text(("\n\n" if blank else "\n").join(json.dumps({"text": text}, ensure_ascii=False) for text in texts))
    assert read_texts(path, format="jsonl", split_bytes=split_bytes) == read_texts(path, format="jsonl")


@settings(max_examples=60, deadline=None)
@given(split_bytes=st.integers(1, 400), num_pages=st.integers(0, 6))
def test_plan_splits_of_xml_lose_no_page(
    tmp_path_factory: pytest.TempPathFactory, split_bytes: int, num_pages: int
) -> None:
    path = tmp_path_factory.mktemp("xml") / "a.xml"
    path.write_text(dump(num_pages))
    texts = read_texts(path, split_bytes=split_bytes)
    assert texts == [f"This is the text of page {i}." for i in range(num_pages)]


def test_iter_chunks_bounds_what_a_bomb_unpacks_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bz2.compress(bytes(20 << 20)))
    sizes = [len(chunk.data) for chunk in iter_chunks(str(tmp_path / "a"), compression="bz2", start=0, stop=1)]
    assert sum(sizes) == 20 << 20
    assert max(sizes) <= 1 << 20
