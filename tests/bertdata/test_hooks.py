import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bertdata.config import BuildOptions, ReadOptions
from bertdata.errors import ConfigError, InputError
from bertdata.fingerprint import fingerprint_of
from bertdata.hooks import load_hook
from bertdata.inputs import find_inputs
from tests.bertdata.reading import read
from tests.bertdata.small_builds import write_jsonl


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Returns a function that writes a module into the folder in which the command runs, and returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"hooks_of_{abs(hash(request.node.name))}"

    def write(code: str) -> str:
        (tmp_path / f"{name}.py").write_text(code)
        load_hook.cache_clear()
        sys.modules.pop(name, None)
        return name

    return write


FILTER = """
import dataclasses
def f(document):
    if "drop" in document.text:
        return "has-drop"
    if "change" in document.text:
        return dataclasses.replace(document, text=document.text.replace("change", "e\\u0301  x\\n\\n"), language="fr")
    if "shrink" in document.text:
        return dataclasses.replace(document, text=" ")
    return document
"""


def test_filter_keeps_changes_and_drops_documents(tmp_path, module):
    texts = ["Keep this.", "Please drop this.", "Please change this.", "Please shrink this."]
    documents, counts, _ = read(write_jsonl(tmp_path / "a.jsonl", texts), filter=f"{module(FILTER)}:f")
    assert [(document.text, document.language) for document in documents] == [
        ("Keep this.", None),
        ("Please é x\nthis.", "fr"),
    ]
    assert counts == {"records": 4, "documents": 2, "filtered_has-drop": 1, "empty": 1}


def test_filter_sees_and_changes_sentences(tmp_path, module):
    code = "import dataclasses\ndef f(d):\n    return dataclasses.replace(d, sentences=(*d.sentences[1:], ' '))\n"
    path = write_jsonl(tmp_path / "a.jsonl", [["One.", "Two.", "Three."]])
    ((document,), _, _) = read(path, filter=f"{module(code)}:f")
    assert document.sentences == ("Two.", "Three.")
    assert document.text == "Two.\nThree."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "returned None for document 'a.jsonl:line 1'; it must return the document, a changed copy"),
        ("return 'two words'", "returned 'two words'"),
        ("return d.txt", r"raised AttributeError: .* \(.*, line 2\)"),
    ],
)
def test_filter_that_fails_is_named_with_the_document(tmp_path, module, body, message):
    path = write_jsonl(tmp_path / "a.jsonl", ["One."])
    with pytest.raises(ConfigError, match=message):
        read(path, filter=f"{module('def f(d):' + chr(10) + '    ' + body)}:f")


@pytest.mark.parametrize(
    "change",
    [
        "text=None",
        "text=b'x'",
        "text='\\ud800'",
        "language=5",
        "sentences=5",
        "sentences='One.'",
        "sentences=('One.', None)",
    ],
)
def test_filter_that_returns_no_document_is_named(tmp_path, module, change):
    code = f"import dataclasses\ndef f(d):\n    return dataclasses.replace(d, {change})"
    with pytest.raises(ConfigError, match="text must be a string, language a string or None, sentences a tuple"):
        read(write_jsonl(tmp_path / "a.jsonl", ["One."]), filter=f"{module(code)}:f")


def test_filter_that_changes_text_in_vain_is_told(tmp_path, module):
    code = "import dataclasses\ndef f(d):\n    return dataclasses.replace(d, text='x')"
    with pytest.raises(ConfigError, match="changed the text of document 'a.jsonl:line 1', but not its sentences"):
        read(write_jsonl(tmp_path / "a.jsonl", [["One.", "Two."]]), filter=f"{module(code)}:f")


def test_module_with_suffix_is_told_how_to_write_it(tmp_path, module):
    name = module("def f(d):\n    return d")
    with pytest.raises(ConfigError, match=f"write {name}:f$"):
        read(write_jsonl(tmp_path / "a.jsonl", ["One."]), filter=f"{name}.py:f")


READER = """
def f(path):
    yield "One.\\nTwo."
    yield ["Three.", " ", "Four."]
    yield {"text": "Cinq.", "language": "fr"}
    yield {"body": "no text"}
    yield 7
    yield "\\ud800"
    yield ""
"""


def test_reader_gives_records_like_those_of_jsonl(tmp_path, module):
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    documents, counts, rejects = read(tmp_path / "a.bin", format=f"{module(READER)}:f", split_bytes=1)
    assert [(document.id, document.text, document.language) for document in documents] == [
        ("a.bin:record 1", "One.\nTwo.", None),
        ("a.bin:record 2", "Three.\nFour.", None),
        ("a.bin:record 3", "Cinq.", "fr"),
    ]
    assert documents[1].sentences == ("Three.", "Four.")
    assert [(reject.where, reject.reason) for reject in rejects] == [
        ("record 4", "missing_field"),
        ("record 5", "bad_field"),
        ("record 6", "bad_utf8"),
    ]
    assert counts["empty"] == 1


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("def f(path):\n    yield 'One.'\n    1 / 0", InputError, r"/a.bin raised ZeroDivisionError: .*, line 3\)"),
        ("def f(path):\n    return open(path + 'x')", InputError, "raised FileNotFoundError"),
        ("def f(path):\n    return 'One.'", ConfigError, "returned 'One.'; it must return the records of a file"),
        ("def f(path):\n    return 5", ConfigError, "returned 5"),
        ("def f(path):\n    return {'text': 'One.'}", ConfigError, "returned {'text': 'One.'}"),
        ("def f(path):\n    return b'One.'", ConfigError, "returned b'One.'"),
        ("def f(path):\n    raise SystemExit(4)", InputError, r"raised SystemExit: 4 \(.*, line 2\)"),
        (
            "import json\ndef f(path):\n    return json.loads('{')",
            InputError,
            r"JSONDecodeError: .* \(.*hooks_of.*, line 3\)",
        ),
        ("def f():\n    return []", InputError, "raised TypeError: f\\(\\) takes 0"),
        ("import sys\nsys.exit(4)", ConfigError, r"its import raised SystemExit: 4 \(.*, line 2\)"),
        ("def f(path)\n    pass", ConfigError, r"its import raised SyntaxError: .*hooks_of.*, line 1\)"),
        ("import re\nre.no_such", ConfigError, r"its import raised AttributeError: .*, line 2\)"),
        ("def g(path):\n    return []", ConfigError, "f is not there; it must be a function in hooks_of"),
        ("f = 5", ConfigError, "f is int; it must be a function"),
        ("import no_such_module_here", ConfigError, "No module named 'no_such_module_here'"),
        ("1 / 0", ConfigError, "its import raised ZeroDivisionError"),
    ],
)
def test_reader_that_fails_is_named(tmp_path, module, code, error, message):
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    with pytest.raises(error, match=message):
        read(tmp_path / "a.bin", format=f"{module(code)}:f")


@pytest.mark.parametrize("name", ["f", "a-b:f", "a:", ":f", "a:f:g", "a b:f"])
def test_options_refuse_what_names_no_function(name):
    with pytest.raises(ConfigError, match="it must be"):
        ReadOptions(filter=name)
    with pytest.raises(ConfigError, match="--format is .*it must be one of auto, mediawiki, jsonl, parquet"):
        ReadOptions(format=name)


def test_fingerprint_changes_with_the_code_of_a_function(tmp_path, module):
    path = write_jsonl(tmp_path / "a.jsonl", ["One."])
    fingerprints = set()
    for code in ("def f(d):\n    return d", "def f(d):\n    return 'no'"):
        options = dataclasses.replace(BuildOptions(), read=ReadOptions(filter=f"{module(code)}:f"))
        fingerprints |= {fingerprint_of(options, inputs=find_inputs([str(path)])) for _ in range(2)}
    assert len(fingerprints) == 2
