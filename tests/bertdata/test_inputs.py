import os
from pathlib import Path

import pytest

from bertdata.errors import InputError
from bertdata.inputs import InputFile, find_inputs


def paths(*args, **values) -> list[str]:
    return [file.path for file in find_inputs(*args, **values)]


def test_find_inputs_tells_size_and_version(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    assert find_inputs([str(tmp_path)]) == [InputFile(str(tmp_path / "a"), 3, (tmp_path / "a").stat().st_mtime_ns)]


def test_find_inputs_takes_files_folders_and_globs(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", "a/.hidden", ".git/x", "a/d[1].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    everything = [str(tmp_path / name) for name in ("a/c.txt", "a/d[1].txt", "b.txt")]
    assert paths([str(tmp_path)]) == everything
    assert paths([str(tmp_path / "*.txt"), str(tmp_path / "a"), str(tmp_path / "b.txt")]) == everything
    assert paths([str(tmp_path / "**/*.txt")]) == everything
    assert paths([str(tmp_path / "a/d[1].txt")]) == everything[1:2]
    assert paths([str(tmp_path / "a/.hidden")]) == [str(tmp_path / "a/.hidden")]


def test_find_inputs_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert paths(["./a.txt", "a.txt"]) == [str(tmp_path / "a.txt")]


def test_find_inputs_follows_links_and_takes_each_file_once(tmp_path: Path) -> None:
    inner, outer = tmp_path / "in" / "inner", tmp_path / "outer"
    inner.mkdir(parents=True)
    outer.mkdir()
    for path in (inner / "a", outer / "b"):
        path.write_text("x")
    (tmp_path / "in" / "link").symlink_to(outer)
    (tmp_path / "in" / "again").symlink_to(inner / "a")
    (inner / "up").symlink_to(tmp_path / "in")
    found = paths([str(tmp_path / "in"), str(tmp_path / "in" / "**")])
    assert found == [str(tmp_path / "in" / "again"), str(tmp_path / "in" / "link" / "b")]


def test_find_inputs_names_links_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "none")
    with pytest.raises(InputError, match=r"/a is a link to nothing"):
        find_inputs([str(tmp_path)])


def test_find_inputs_names_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "secret").mkdir()
    (tmp_path / "a").write_text("x")
    assert paths([str(tmp_path)]) == [str(tmp_path / "a")]
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        find_inputs([str(tmp_path)])


def test_find_inputs_skips_the_output(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "out" / "128").mkdir(parents=True)
    (tmp_path / "out" / "rejects.jsonl").write_text("{}")
    assert paths([str(tmp_path)], out=tmp_path / "out") == [str(tmp_path / "a")]
    with pytest.raises(InputError, match="is the output folder; give another --out"):
        find_inputs([str(tmp_path)], out=tmp_path)


@pytest.mark.parametrize("path", ["missing.txt", "*.none", "empty"])
def test_find_inputs_names_what_matches_nothing(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=path.replace("*", r"\*")):
        find_inputs([str(tmp_path / path)])
