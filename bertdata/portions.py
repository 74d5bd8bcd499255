"""Portions: the splits that one task of a worker reads, and how `build.json` holds them.

A task, its records and its runs cost the same whether it reads 4 MiB or one sentence. So whole files that are small
are put together, in order, until they have the bytes of a split:

    split size 10     files  a: 4   b: 5   c: 2   d: 25            e: 1
                      splits a      b      c      d1, d2, d3       e
                      portions (a, b)     (c)    (d1) (d2) (d3)   (e)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bertdata.config import ReadOptions
from bertdata.inputs import InputFile
from bertdata.splits import Split, plan_files, usual_split_bytes

__all__ = ["Portion", "group_splits", "plan_portions", "portion_bytes", "portions_from_json", "portions_to_json"]

Portion = tuple[Split, ...]


def plan_portions(files: Sequence[InputFile], *, options: ReadOptions, split_bytes: int | None = None) -> list[Portion]:
    """Cuts files into splits, and puts small ones together; see `bertdata.splits.plan_files`."""
    split_bytes = split_bytes or usual_split_bytes(files)
    return list(group_splits(plan_files(files, options=options, split_bytes=split_bytes), split_bytes=split_bytes))


def portion_bytes(portion: Portion) -> int:
    """Returns how many bytes of input a portion has, as stored."""
    return sum(split.num_bytes for split in portion)


def group_splits(splits: Iterable[Split], *, split_bytes: int) -> Iterator[Portion]:
    """Yields splits in order, with those that are whole files put together up to `split_bytes`."""
    group: list[Split] = []
    num_bytes = 0
    for split in splits:
        fits = split.is_whole and num_bytes + split.file_bytes <= split_bytes
        if group and not fits:
            yield tuple(group)
            group, num_bytes = [], 0
        group.append(split)
        # Nothing is put to a part of a file.
        num_bytes = num_bytes + split.file_bytes if split.is_whole else split_bytes
    if group:
        yield tuple(group)


def portions_to_json(files: Sequence[InputFile], portions: Sequence[Portion]) -> dict[str, Any]:
    """Returns files and portions as JSON values, each path and each dump's namespaces once."""
    numbers = {file.path: number for number, file in enumerate(files)}
    kinds: dict[tuple[Any, ...], int] = {}
    rows = []
    for portion in portions:
        row = []
        for split in portion:
            kind = (split.format, split.compression, split.language, split.namespaces, split.closing_tag)
            row.append((numbers[split.path], split.start, split.stop, kinds.setdefault(kind, len(kinds))))
        rows.append(row)
    return {"inputs": files, "kinds": list(kinds), "portions": rows}


def portions_from_json(values: dict[str, Any]) -> tuple[tuple[InputFile, ...], tuple[Portion, ...]]:
    """Returns the files and portions that `portions_to_json` wrote."""
    files = tuple(InputFile(*file) for file in values["inputs"])
    kinds = [
        {
            "format": file_format,
            "compression": compression,
            "language": language,
            "namespaces": tuple((name, number) for name, number in namespaces),
            "closing_tag": closing_tag,
        }
        for file_format, compression, language, namespaces, closing_tag in values["kinds"]
    ]

    def split_of(number: int, start: int, stop: int, kind: int) -> Split:
        path, num_bytes, version = files[number]
        return Split(path=path, start=start, stop=stop, file_bytes=num_bytes, file_version=version, **kinds[kind])

    return files, tuple(tuple(split_of(*row) for row in portion) for portion in values["portions"])
