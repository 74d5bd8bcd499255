"""The examples of interchange: each prints what `read_samples` says, on a data set and on a merged one."""

import ast
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import bertdata
from bertdata.export import export_data_set
from bertdata.merging import merge_data_sets, open_sources
from bertdata.wordpiece import load_tokenizer
from tests.bertdata.small_builds import build, write_jsonl
from tests.corpus import iter_texts

EXAMPLES = Path(__file__).parents[2] / "examples" / "interchange"
NAMES = ("with_numpy.py", "with_webdataset.py", "with_datasets.py", "with_parquet.py")


@pytest.fixture(scope="module")
def merged(tmp_path_factory, small_data_set, small_options):
    """The small data set and another one, merged."""
    folder = tmp_path_factory.mktemp("merged")
    shutil.copytree(small_data_set, folder / "first")
    texts = [f"{text} The end." for text in iter_texts(120)]
    build(folder / "second", write_jsonl(folder / "a.jsonl", texts), options=small_options)
    data_sets = open_sources([folder / "first", folder / "second"], out=folder / "both")
    return merge_data_sets(data_sets, out=folder / "both").folder


@pytest.fixture(params=["built", "merged"])
def folder(request):
    return request.getfixturevalue("merged" if request.param == "merged" else "small_data_set")


def wanted_lines(folder):
    samples = list(bertdata.read_samples(folder))
    shown = list(samples[0].tokens)
    for position, token in zip(*samples[0].mask_sets[0], strict=True):
        shown[position] = token
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    return [
        f"samples        {len(samples):,}",
        f"mean length    {np.mean([len(sample.tokens) for sample in samples]):.2f}",
        f"NotNext        {np.mean([sample.next_sentence_label for sample in samples]):.4f}",
        f"first sample   {' '.join(tokenizer.id_to_token(token) for token in shown)}",
    ]


@pytest.mark.filterwarnings("error:overflow")
@pytest.mark.parametrize("name", NAMES)
def test_example_prints_what_the_samples_are(folder, tmp_path, monkeypatch, capsys, name):
    argument = folder
    if name == "with_parquet.py":
        argument = tmp_path / "exported"
        export_data_set(folder, out=argument, mask_set=0)
    monkeypatch.setattr(sys, "argv", [name, str(argument)])
    capsys.readouterr()
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == wanted_lines(folder)
    if name == "with_parquet.py":
        length = max(len(sample.tokens) for sample, _ in zip(bertdata.read_samples(folder), range(8), strict=False))
        assert lines[4].startswith(f"a batch        input_ids [8, {length}], token_type_ids [8, {length}], labels [8, ")
    else:
        assert len(lines) == 4


@pytest.mark.parametrize("name", NAMES)
def test_example_imports_nothing_of_ours_and_is_short(name):
    text = (EXAMPLES / name).read_text()
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {
        module.split(".")[0]
        for node in imports
        for module in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not modules & {"bertdata", "pipelines", "trainer"}
    if name == "with_numpy.py":
        assert modules - sys.stdlib_module_names == {"numpy"}
    assert len(text.splitlines()) <= 50
    assert name in (EXAMPLES / "README.md").read_text()
