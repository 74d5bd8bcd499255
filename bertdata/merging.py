"""Merging: several data sets become one, by a manifest that names their shards. No sample is copied.

    wiki/    train-00000-of-00002.tar  train-00001-of-00002.tar  eval-00000-of-00001.tar
    books/   train-00000-of-00001.tar  eval-00000-of-00001.tar

    merged/  manifest.json     ../wiki/train-00000-of-00002.tar, ../wiki/train-00001-of-00002.tar,
                               ../books/train-00000-of-00001.tar, ../wiki/eval-00000-of-00001.tar, ...
             index.arrow  statistics.json  tokenizer.json  tokenizer_config.json

What decides what a sample is must be equal: the tokenizer, all options of pairs and masks, and the seed. How text was
read, how large shards and blocks are, how much is held out and whether copies were kept may differ: these say which
samples there are, and `merged_from` in the manifest keeps them for each data set. So may the versions of libraries,
with a warning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertdata.data_set import DataSet, check_shards, open_data_set
from bertdata.errors import ConfigError, OutputError
from bertdata.files import file_sha256
from bertdata.index import INDEX, write_index
from bertdata.manifest import MANIFEST, Manifest, Origin, ShardEntry, write_manifest
from bertdata.shards import BlockEntry
from bertdata.statistics import STATISTICS, Statistics, write_statistics
from bertdata.work import WORK

__all__ = ["merge_data_sets", "open_sources"]

_LOG = logging.getLogger(__name__)


def open_sources(folders: Sequence[Path], *, out: Path) -> list[DataSet]:
    """Opens the data sets that are to be merged, and checks that they go together and may be merged there.

    Raises:
        ConfigError: There are fewer than two, one or one of their shards is named twice, or an option differs.
        ShardError: A folder is no data set, or a shard is missing.
        OutputError: `out` is one of the data sets, or holds something else.
    """
    if len(folders) < 2:
        raise ConfigError(f"{len(folders)} data set to merge; name at least two")
    data_sets = [open_data_set(folder) for folder in folders]
    for data_set in data_sets:
        check_shards(data_set.folder, data_set.manifest)
        _check_alike(data_set, data_sets[0])
    _check_different(data_sets)
    _check_out(out, data_sets=data_sets)
    return data_sets


def _traits(manifest: Manifest) -> dict[str, Any]:
    """Returns what must be equal, by the name that a user knows."""
    options = manifest.options
    named = options["pairs"] | options["masks"] | {"seed": options["seed"]}
    return {
        "the tokenizer (SHA-256)": manifest.tokenizer.sha256[:12],
        **{f"--{name.replace('_', '-')}": value for name, value in named.items()},
    }


def _check_alike(data_set: DataSet, first: DataSet) -> None:
    own, wanted = _traits(data_set.manifest), _traits(first.manifest)
    for name in {**wanted, **own}:
        if own.get(name) != wanted.get(name):
            raise ConfigError(
                f"{name} is {own.get(name)} in {data_set.folder} and {wanted.get(name)} in {first.folder}; data sets "
                "can be merged only where it is the same: build one of them again"
            )
    versions, expected = data_set.manifest.versions, first.manifest.versions
    differing = [name for name in sorted({*versions, *expected}) if versions.get(name) != expected.get(name)]
    if differing:
        _LOG.warning(
            "%s and %s were built with other versions: %s",
            first.folder,
            data_set.folder,
            ", ".join(f"{name} {expected.get(name)} and {versions.get(name)}" for name in differing),
        )


def _check_different(data_sets: Sequence[DataSet]) -> None:
    """Refuses a data set or a shard that comes twice: its samples would be shown twice as often."""
    resolved = [data_set.folder.resolve() for data_set in data_sets]
    for number, folder in enumerate(resolved):
        if folder in resolved[:number]:
            raise ConfigError(f"{data_sets[number].folder} is named twice; name each data set once")
    seen: dict[str, Path] = {}
    for data_set in data_sets:
        for shard in data_set.manifest.shards:
            path = data_set.folder / shard.name
            if shard.num_samples and shard.sha256 in seen:
                raise ConfigError(f"{path} and {seen[shard.sha256]} are the same shard; name one of their data sets")
            seen[shard.sha256] = path


def merge_data_sets(data_sets: Sequence[DataSet], *, out: Path) -> DataSet:
    """Writes a data set that names the shards of others; the same merge there is written again.

    Args:
        data_sets: From `open_sources`; their shards come in this order, train before eval.
        out: Its folder.

    Raises:
        OutputError: `out` is one of the data sets, holds something else, or cannot be written to.
        ShardError: The statistics of a data set cannot be read.
    """
    _check_out(out, data_sets=data_sets)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(data_sets, out=out)
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written to: {error.strerror}") from error
    return open_data_set(out)


def _build_of(data_sets: Sequence[DataSet]) -> str:
    """Returns what a merge of these data sets has for the fingerprint of a build."""
    fingerprints = [data_set.manifest.fingerprint for data_set in data_sets]
    return hashlib.sha256("\n".join(["merge", *fingerprints]).encode()).hexdigest()[:16]


def _check_out(out: Path, *, data_sets: Sequence[DataSet]) -> None:
    if out.resolve() in [data_set.folder.resolve() for data_set in data_sets]:
        raise OutputError(f"--out {out} is one of the data sets to merge; give a folder of its own")
    if (out / WORK).exists():
        raise OutputError(f"{out} holds a build that is not finished; give another --out")
    path = out / MANIFEST
    if not path.exists():
        return
    try:
        found = json.loads(path.read_bytes())["build"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} cannot be read ({error}); give another --out") from error
    if found != _build_of(data_sets):
        raise OutputError(f"{out} holds another data set: {found}, not {_build_of(data_sets)}; give another --out")


def _write(data_sets: Sequence[DataSet], *, out: Path) -> None:
    first = data_sets[0]
    first.copy_tokenizer(out)
    chosen = [
        (data_set, number)
        for split in ("train", "eval")
        for data_set in data_sets
        for number, shard in enumerate(data_set.manifest.shards)
        if shard.split == split
    ]
    shards = [_renamed(one.manifest.shards[number], folder=one.folder, out=out) for one, number in chosen]
    write_index(out, (_block_entries(data_set, number) for data_set, number in chosen))
    empty = Statistics.empty(
        max_seq_length=first.manifest.options["pairs"]["max_seq_length"], vocab_size=first.manifest.tokenizer.vocab_size
    )
    write_statistics(out, (data_set.load_statistics() for data_set in data_sets), empty=empty)
    write_manifest(out, _merge_manifests(data_sets, out=out, shards=shards))


def _relative(path: Path, *, out: Path) -> str:
    """Returns the path from `out` on, with links followed, because ".." does not go back through one."""
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()


def _renamed(shard: ShardEntry, *, folder: Path, out: Path) -> ShardEntry:
    return dataclasses.replace(shard, name=_relative(folder / shard.name, out=out))


def _block_entries(data_set: DataSet, shard: int) -> list[BlockEntry]:
    start, stop = np.searchsorted(data_set.index.shard, [shard, shard + 1]).tolist()
    own = data_set.index.take(np.arange(start, stop))
    columns = [getattr(own, field.name).tolist() for field in dataclasses.fields(BlockEntry)]
    names = [field.name for field in dataclasses.fields(BlockEntry)]
    return [BlockEntry(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _origins(data_set: DataSet, *, out: Path) -> list[Origin]:
    """Returns the builds that a data set is made of: itself, or what it was merged from."""
    manifest = data_set.manifest
    itself = Origin(
        path=".",
        build=manifest.build,
        fingerprint=manifest.fingerprint,
        options=manifest.options,
        versions=manifest.versions,
        inputs=manifest.inputs,
    )
    return [
        dataclasses.replace(origin, path=_relative(data_set.folder / origin.path, out=out))
        for origin in manifest.merged_from or (itself,)
    ]


def _merge_manifests(data_sets: Sequence[DataSet], *, out: Path, shards: list[ShardEntry]) -> Manifest:
    manifests = [data_set.manifest for data_set in data_sets]
    names = sorted({name for manifest in manifests for name in manifest.versions})
    versions = {
        name: ", ".join(sorted({manifest.versions.get(name, "unknown") for manifest in manifests})) for name in names
    }
    counts, languages = Counter[str](), Counter[str]()
    for manifest in manifests:
        counts.update(manifest.counts)
        languages.update(manifest.languages)
    trained = any(manifest.tokenizer.trained for manifest in manifests)
    options = manifests[0].options
    excluded = sorted(
        set[str].intersection(*(set(manifest.options["shards"]["excluded_documents"]) for manifest in manifests))
    )
    keep_duplicates = any(manifest.options["shards"]["keep_duplicates"] for manifest in manifests)
    in_common = {"keep_duplicates": keep_duplicates, "excluded_documents": excluded}
    return dataclasses.replace(
        manifests[0],
        options=options | {"shards": options["shards"] | in_common},
        build=_build_of(data_sets),
        tokenizer=dataclasses.replace(manifests[0].tokenizer, trained=trained),
        versions=versions,
        inputs=[facts for manifest in manifests for facts in manifest.inputs],
        counts=dict(sorted(counts.items())),
        languages=dict(sorted(languages.items())),
        shards=tuple(shards),
        files={name: file_sha256(out / name) for name in ("tokenizer_config.json", INDEX, STATISTICS)},
        excluded_not_found=tuple(sorted({key for manifest in manifests for key in manifest.excluded_not_found})),
        merged_from=tuple(origin for data_set in data_sets for origin in _origins(data_set, out=out)),
    )
