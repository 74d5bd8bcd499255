import ast
import bz2
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import bertdata
from bertdata.config import ReadOptions
from bertdata.documents import Document, Reject
from bertdata.dump_header import read_header
from bertdata.errors import InputError
from bertdata.readers import iter_documents
from bertdata.splits import plan_splits
from tests.bertdata.reading import read as read_file

HEADER = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.3/" version="0.3" xml:lang='nds'>
<siteinfo><namespaces><namespace key="-1">Spezial</namespace><namespace key="0" /><namespace key="4">Wiki</namespace>
<namespace key="6" case="first-letter">Bild</namespace><namespace key="14">Kategorie</namespace></namespaces></siteinfo>
"""
TEXT = "<revision><text>This is a text here.</text></revision>"


def read(path: Path, xml: str, **options: Any) -> tuple[list[Document], Counter[str], list[Reject]]:
    (path / "a.xml").write_text(xml)
    return read_file(path / "a.xml", **options)


def count_page(path: Path, inner: str, header: str = HEADER) -> Counter[str]:
    return read(path, f"{header}<page>{inner}</page></mediawiki>")[1]


def test_read_header_takes_language_and_namespaces() -> None:
    header = read_header("a", HEADER.encode() + b'<page><namespace key="9">No</namespace>')
    assert header.has_root
    assert header.language == "nds"
    assert header.namespaces == (("Spezial", -1), ("Wiki", 4), ("Bild", 6), ("Kategorie", 14))


def test_read_header_takes_no_number_that_is_none() -> None:
    header = read_header(
        "a", f'<mediawiki><siteinfo><namespace key="{"9" * 5000}">No</namespace></siteinfo><page>'.encode()
    )
    assert header.namespaces == ()


def test_reading_modules_import_only_downwards() -> None:
    imports: dict[str, set[str]] = {}  # those for types too
    waiting = ["readers"]
    while waiting:
        module = waiting.pop()
        tree = ast.parse(Path(bertdata.__path__[0], f"{module}.py").read_text())
        froms = [(node.module or "", node.names) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = {name.removeprefix("bertdata.") for name, _ in froms if name.startswith("bertdata.")}
        names |= {alias.name for name, aliases in froms if name == "bertdata" for alias in aliases}
        imports[module] = names
        waiting += names - imports.keys()
    order = list(TopologicalSorter(imports).static_order())
    assert order.index("splits") < order.index("mediawiki") < order.index("readers")


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        (f"<title>A</title><ns>0</ns>{TEXT}", "articles"),
        (f"<title>A</title>{TEXT}", "articles"),
        (f"<title>Star Trek: A</title>{TEXT}", "articles"),
        (f"<title>Wiki:A</title>{TEXT}", "other_namespaces"),
        (f"<title>bild:A</title>{TEXT}", "other_namespaces"),
        (f"<title>A</title><ns>10</ns>{TEXT}", "other_namespaces"),
        (f"<title>A</title><ns>0</ns><redirect title='B' />{TEXT}", "redirects"),
        (f"<title>A</title><redirect />{TEXT}", "redirects"),
        ("<title>A</title><revision><text>#REDIRECT [[B]]</text></revision>", "redirects"),
        ("<title>A</title><revision><text>#WEITERLEITUNG: [[B]]</text></revision>", "redirects"),
        ("<title>A</title><revision><text># [[B]] is one.</text></revision>", "articles"),
        ("<title>A</title><revision><model>css</model><text>a {}</text></revision>", "other_models"),
        ("<title>A</title><revision><model>wikitext</model><text>x</text></revision>", "articles"),
        ("<title>A</title><revision><text deleted='deleted' /></revision>", "articles"),
        ("<title>A</title>", "articles"),
    ],
)
def test_iter_documents_sorts_pages(inner: str, kind: str, tmp_path: Path) -> None:
    counts = count_page(tmp_path, inner)
    assert counts["pages"] == counts[kind] == 1
    kinds = ("articles", "redirects", "other_namespaces", "other_models")
    assert counts["pages"] == sum(counts[name] for name in kinds)


def test_iter_documents_knows_english_namespaces_without_siteinfo(tmp_path: Path) -> None:
    counts = count_page(tmp_path, f"<title>Template talk:A</title>{TEXT}", header="<mediawiki>")
    assert counts["other_namespaces"] == 1


def test_iter_documents_takes_last_revision_and_its_main_slot(tmp_path: Path) -> None:
    revisions = (
        "<revision><text>This is the old text.</text></revision>"
        "<revision><model>wikitext</model><text bytes='5'>This is the new &amp;amp; last text.</text>"
        "<content><role>other</role><model>json</model><text>{}</text></content></revision>"
    )
    (document,), _, _ = read(tmp_path, f"{HEADER}<page><title>A &amp; B</title>{revisions}</page></mediawiki>")
    assert document == Document(id="a.xml:A & B", text="This is the new & last text.", language="nds")


def test_iter_documents_knows_namespaces_of_the_dump(tmp_path: Path) -> None:
    header = HEADER.replace("Bild", "Bielde")
    text = "<revision><text>[[Bielde:A.jpg|thumb|Caption here.]]This is a text here.</text></revision>"
    (document,), _, _ = read(tmp_path, f"{header}<page><title>A</title>{text}</page></mediawiki>")
    assert document.text == "This is a text here."


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("<page><title>B</title><revision><text>cut", r"the <page> at byte \d+ has no end: the dump is cut off"),
        ("", r"ends at byte \d+ without </mediawiki>"),
        ("<page><title>B</page></mediawiki>", r"the <page> at byte \d+ is not well-formed XML \(mismatched tag"),
        ("<page><title>&bomb;</title></page></mediawiki>", "undefined entity"),
        ("<page><title>\x01</title></page></mediawiki>", "not well-formed"),
    ],
)
def test_iter_documents_names_byte_of_damage(tail: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, f"{HEADER}<page><title>A</title>{TEXT}</page>{tail}")


DAMAGED_TAGS = [
    ("<page><title>1<", "<pbge><title>1<", "instead of a <page>"),
    ("<page><title>0<", "<pbge><title>0<", "stands before its first <page>"),
    ("</page>\n<page><title>1<", "</qage>\n<page><title>1<", "not well-formed"),
    ("</siteinfo>", "</siteimfo>", "damaged"),
    ('<namespace key="6"', '<namespbce key="6"', "the <siteinfo> before its first page is damaged"),
    ("</mediawiki>", "</mediawikj>", "instead of a <page>"),
    ("<mediawiki ", "<nediawiki ", "whose beginning is damaged"),
]


@pytest.mark.parametrize("split_bytes", [1, 7, 100, 10**6])
@pytest.mark.parametrize(("tag", "damaged", "message"), DAMAGED_TAGS, ids=[damaged for _, damaged, _ in DAMAGED_TAGS])
def test_iter_documents_loses_no_page_by_a_damaged_tag(
    tag: str, damaged: str, message: str, split_bytes: int, tmp_path: Path
) -> None:
    pages = "\n".join(f"<page><title>{number}</title>{TEXT}</page>" for number in range(3))
    dump = f"{HEADER}{pages}\n</mediawiki>\n"
    assert tag in dump
    with pytest.raises(InputError, match=message):
        read(tmp_path, dump.replace(tag, damaged), split_bytes=split_bytes)


def test_iter_documents_yields_the_page_before_damage(tmp_path: Path) -> None:
    pages = [f"<page><title>{number}</title>{TEXT}</page>".encode() for number in range(4)]
    streams = [bz2.compress(data) for data in (HEADER.encode(), pages[0], b"".join(pages[1:]))]
    streams[2] = streams[2][:20] + bytes(20) + streams[2][40:]
    (tmp_path / "a.xml.bz2").write_bytes(b"".join(streams))
    options = ReadOptions()
    counts: Counter[str] = Counter()
    (split,) = plan_splits([str(tmp_path / "a.xml.bz2")], options=options)
    documents = iter_documents(split, options=options, counts=counts, rejects=[])
    assert next(documents).id == "a.xml.bz2:0"
    with pytest.raises(InputError, match="bz2 data damaged"):
        next(documents)
    assert counts["pages"] == counts["documents"] == 1


def test_iter_documents_takes_log_items_and_comments_between_pages(tmp_path: Path) -> None:
    page = f"<page><title>A</title>{TEXT}</page>"
    between = "<!-- a --><logitem><id>1</id></logitem>"
    assert len(read(tmp_path, f"{HEADER}{between}{page}{between}{page}{between}</mediawiki>")[0]) == 2


def test_iter_documents_reads_dumps_that_were_joined(tmp_path: Path) -> None:
    dump = f"{HEADER}<page><title>A</title>{TEXT}</page></mediawiki>\n"
    assert len(read(tmp_path, dump * 3)[0]) == 3


def test_iter_documents_reads_pages_without_root(tmp_path: Path) -> None:
    assert len(read(tmp_path, f"<page><title>A</title>{TEXT}</page>\n<page><title>B</title>{TEXT}</page>\n")[0]) == 2


def test_iter_documents_skips_page_over_the_limit(tmp_path: Path) -> None:
    long = "<revision><text>" + "x" * (5 << 20) + "</text></revision>"
    xml = (
        f"{HEADER}<page><title>A</title>{long}</page><page><title>Wiki:A</title>{long}</page>"
        f"<page><title>B</title>{TEXT}</page></mediawiki>"
    )
    documents, counts, rejects = read(tmp_path, xml, max_document_bytes=1000)
    assert [document.id for document in documents] == ["a.xml:B"]
    expected = {"pages": 3, "articles": 2, "other_namespaces": 1, "records": 2, "documents": 1, "rejected_too_large": 1}
    assert counts == expected
    assert [(reject.where, reject.reason) for reject in rejects] == [("A", "too_large")]
