"""Counting the numbers of a report again: those of samples from the shards, all others from the input."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bertdata.build import build_serially
from bertdata.config import BuildOptions
from bertdata.data_set import DataSet, open_data_set
from bertdata.errors import ConfigError
from bertdata.inputs import file_name, find_inputs
from bertdata.launch import open_build
from bertdata.progress import Progress
from bertdata.report_numbers import INPUT, Number, Numbers, report_numbers
from bertdata.statistics import SAMPLE_COUNTS
from bertdata.verify import recount

__all__ = ["Comparison", "describe_comparison", "recompute"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Stored numbers beside those counted again.

    Attributes:
        agreeing: Names of the numbers that are the same.
        differing: Stored and recounted number of each that is not; None where there is none of that name.
        left_out: Names of the numbers that only the input can tell, where it was not given.
        is_same_input: Whether the input gives these very shards; None where it was not given.
    """

    agreeing: list[str]
    differing: dict[str, tuple[Number | None, Number | None]]
    left_out: list[str]
    is_same_input: bool | None


def recompute(data_set: DataSet, *, inputs: Sequence[str], num_workers: int = 1) -> Comparison:
    """Counts the numbers of a report again and compares them with those that manifest and statistics tell.

    Args:
        data_set: The data set.
        inputs: Files, folders or globs that it was built from; where there are none, only what the shards hold is
            counted.
        num_workers: Processes that count the shards; the input is built from in this one.

    Raises:
        ShardError: A shard is damaged, or not what the manifest says of it.
        ConfigError: There is an input, but the data set is merged from several builds.
        BertDataError: The input cannot be built from again.
    """
    if inputs and data_set.manifest.merged_from:
        folders = ", ".join(origin.path for origin in data_set.manifest.merged_from)
        raise ConfigError(
            f"{data_set.folder} is merged from {folders}, and no one build gives it; leave out --input, or count the "
            "numbers of each of these again"
        )
    if inputs:
        _check_same_files(data_set, inputs)
    stored = report_numbers(data_set, data_set.load_statistics())
    found = _recount(data_set, num_workers=num_workers)
    fingerprint = None
    if inputs:
        rebuilt, fingerprint = _rebuild(data_set, inputs=inputs)
        found |= rebuilt
    names = [name for name in dict.fromkeys((*stored, *found)) if inputs or not name.startswith(INPUT)]
    pairs = {name: (stored.get(name), found.get(name)) for name in names}
    return Comparison(
        agreeing=[name for name, (before, after) in pairs.items() if before == after],
        differing={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
        left_out=[name for name in stored if name not in pairs],
        is_same_input=None if fingerprint is None else fingerprint == data_set.manifest.fingerprint,
    )


def _check_same_files(data_set: DataSet, inputs: Sequence[str]) -> None:
    """Refuses input that has other names or sizes than what the data set was built from."""
    wanted = sorted((str(file["name"]), int(file["bytes"])) for file in data_set.manifest.inputs)
    found = sorted(
        (file_name(file.path), file.num_bytes) for file in find_inputs(inputs, out=data_set.folder) if file.num_bytes
    )
    for files, others, where in (
        (wanted, found, "is not in --input"),
        (found, wanted, "is not what it was built from"),
    ):
        for name, num_bytes in files:
            if (name, num_bytes) not in others:
                raise ConfigError(f"{data_set.folder}: {name} of {num_bytes:,} bytes {where}; give just the same files")


def _recount(data_set: DataSet, *, num_workers: int) -> Numbers:
    """Returns the numbers that the shards alone tell; what the manifest says of each shard is checked on the way."""
    manifest = data_set.manifest
    total = recount(data_set, num_workers=num_workers)
    counted = {name: getattr(total, name) for name in SAMPLE_COUNTS}
    statistics = dataclasses.replace(data_set.load_statistics(), **counted)
    counts = {"samples": int(total.sample_lengths.sum()), "not_next": int(total.segment_lengths[:, 1].sum())}
    recounted = dataclasses.replace(manifest, counts=manifest.counts | counts)
    numbers = report_numbers(dataclasses.replace(data_set, manifest=recounted), statistics)
    return {name: value for name, value in numbers.items() if not name.startswith(INPUT)}


def _rebuild(data_set: DataSet, *, inputs: Sequence[str]) -> tuple[Numbers, str]:
    """Builds the data set again in a temporary folder; returns the numbers of the input, and the fingerprint."""
    with TemporaryDirectory(prefix="bertdata-") as folder:
        out = Path(folder) / "shards"
        with open_build(inputs, out=out, options=_rebuild_options(data_set)) as work:
            assert work is not None
            with Progress(work):
                build_serially(work)
        rebuilt = open_data_set(out)
        numbers = report_numbers(rebuilt, rebuilt.load_statistics())
        return {name: value for name, value in numbers.items() if name.startswith(INPUT)}, rebuilt.manifest.fingerprint


def _rebuild_options(data_set: DataSet) -> BuildOptions:
    """Returns the options of the build, with its tokenizer as it is now: given, case rules and all."""
    options = BuildOptions.from_json(data_set.manifest.options)
    path = data_set.folder / "tokenizer.json"
    tokenizer = dataclasses.replace(options.tokenizer, path=str(path), lowercase=None, strip_accents=None)
    return dataclasses.replace(options, tokenizer=tokenizer)


def describe_comparison(comparison: Comparison) -> list[str]:
    """Returns the outcome as lines of text: each number that differs, then how many do."""
    lines = [f"{name}: {_describe_values(*values)}" for name, values in comparison.differing.items()]
    if comparison.is_same_input is False:
        lines.append(
            "the input gives other shards than these: it has changed, or the versions of libraries, or a function of "
            "your own"
        )
    num_compared = len(comparison.agreeing) + len(comparison.differing)
    if comparison.differing:
        lines.append(f"{len(comparison.differing):,} of {num_compared:,} numbers are not what the data says")
    else:
        lines.append(f"all {num_compared:,} numbers agree with the data")
    if comparison.left_out:
        lines.append(
            f"{len(comparison.left_out):,} numbers, all that begin with {INPUT!r}, were left out: they can only be "
            "counted from what a data set was built from, by --input"
        )
    return lines


def _describe_values(stored: Number | None, found: Number | None) -> str:
    if isinstance(stored, list) and isinstance(found, list):
        flat = [np.ravel(values).tolist() for values in (stored, found)]
        if len(flat[0]) != len(flat[1]):
            return f"{len(flat[0]):,} values stored, {len(flat[1]):,} counted"
        places = [place for place, (before, after) in enumerate(zip(*flat, strict=True)) if before != after]
        first = f"the first, number {places[0]}: {flat[0][places[0]]} stored, {flat[1][places[0]]} counted"
        return f"{len(places):,} of {len(flat[0]):,} values differ; {first}"
    return f"{'nothing' if stored is None else stored} stored, {'nothing' if found is None else found} counted"
