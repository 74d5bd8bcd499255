"""Export: shards become Parquet files, a row per sample, for tools that read tables.

    exported/
    ├── train-00000-of-00002.parquet ...    see `bertdata.rows` for the columns
    └── tokenizer.json                      and tokenizer_config.json

Each file appears whole or not at all, and its metadata names the export that it belongs to, so an export goes on where
it stopped and two never mix.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from bertdata.byte_progress import ByteProgress
from bertdata.config import BuildOptions
from bertdata.data_set import DataSet, open_data_set
from bertdata.errors import ConfigError, OutputError, ShardError
from bertdata.files import open_atomically
from bertdata.manifest import MANIFEST
from bertdata.masking import with_mask_sets
from bertdata.rows import MARK, export_schema, to_record_batch
from bertdata.shards import shard_name
from bertdata.workers import map_in_processes

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["export_data_set", "export_rows"]

_LOG = logging.getLogger(__name__)

_ROW_GROUP_ROWS = 1 << 14
_UNREADABLE = b""  # stands for the mark of a file that is no Parquet


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """A shard to export, the only one of `part`, to the file `path` with the columns of `schema`."""

    part: DataSet
    schema: pa.Schema
    path: Path
    mask_set: int | None

    @property
    def num_bytes(self) -> int:
        """Bytes of the shard."""
        return self.part.manifest.shards[0].num_bytes


def _iter_batches(task: _Task) -> Iterator[pa.RecordBatch]:
    """Yields the rows of each block of the task's shard."""
    options = BuildOptions.from_json(task.part.manifest.options)
    has_sets = task.mask_set is None or options.masks.num_mask_sets > 0
    vocabulary = None if has_sets else task.part.load_vocabulary()
    for row in range(len(task.part.index)):
        block, mask_set = task.part.read(task.part.index, row), task.mask_set
        if vocabulary is not None and mask_set is not None:
            block, mask_set = with_mask_sets(block, options=options, vocabulary=vocabulary, sets=[mask_set]), 0
        yield to_record_batch(block, schema=task.schema, mask_set=mask_set)


def _export_shard(task: _Task) -> None:
    """Writes the file of one shard."""
    import pyarrow.parquet as pq  # here, because it is large and few commands need it

    waiting: list[pa.RecordBatch] = []
    try:
        with (
            open_atomically(task.path) as file,
            pq.ParquetWriter(file, task.schema, compression="zstd", write_page_checksum=True) as writer,
        ):
            for batch in _iter_batches(task):
                waiting.append(batch)
                if sum(map(len, waiting)) >= _ROW_GROUP_ROWS:
                    _write_row_group(writer, waiting)
            if waiting:
                _write_row_group(writer, waiting)
    except OSError as error:
        raise OutputError(
            f"{task.path} cannot be written ({error}); make room, or mend what is wrong, and run the same command again"
        ) from error


def _write_row_group(writer: pq.ParquetWriter, waiting: list[pa.RecordBatch]) -> None:
    table = pa.Table.from_batches(waiting)
    writer.write_table(table, row_group_size=len(table))
    waiting.clear()


def export_data_set(
    folder: Path,
    *,
    out: Path,
    mask_set: int | None,
    splits: Sequence[str] = ("train", "eval"),
    overwrite: bool = False,
    num_workers: int = 1,
) -> list[Path]:
    """Writes a Parquet file per shard, and the tokenizer; files of the same export that are there are kept.

    Args:
        folder: The data set.
        out: Folder for the files.
        mask_set: Number of the mask set; None for all.
        splits: Which shards: "train", "eval" or both.
        overwrite: Remove the files of another export first.
        num_workers: Processes.

    Returns:
        The files of these splits.

    Raises:
        ConfigError: There is no mask set of that number.
        ShardError: The folder is no data set, has no such samples, or a block is damaged.
        OutputError: `out` holds something else, or cannot be written to.
    """
    data_set = open_data_set(folder)
    manifest = data_set.manifest
    num_sets = manifest.options["masks"]["num_mask_sets"]
    if mask_set is not None and num_sets and not 0 <= mask_set < num_sets:
        raise ConfigError(f"--mask-set is {mask_set}; this data set has the sets 0 to {num_sets - 1}, or give all")
    if mask_set is None and num_sets == 0:
        _LOG.warning("%s stores no mask sets, so their columns hold empty lists; --mask-set 0 draws one", folder)
    tasks = list(_iter_tasks(data_set, out=out, mask_set=mask_set, splits=splits))
    if not tasks:
        raise ShardError(f"{folder} has no {' or '.join(splits)} shards to export")
    own = {task.path for task in tasks}
    finished = _prepare_folder(data_set, out=out, own=own, mask_set=mask_set, overwrite=overwrite)
    if kept := own & finished:
        _LOG.info("%d of %d files are there already", len(kept), len(own))
    wanted = [task for task in tasks if task.path not in finished]
    total, left = (sum(task.num_bytes for task in some) for some in (tasks, wanted))
    with ByteProgress("exporting", total=total, initial=total - left) as progress:
        for task, _ in zip(wanted, map_in_processes(_export_shard, wanted, num_workers=num_workers), strict=True):
            progress.advance(task.num_bytes)
    return [task.path for task in tasks]


def export_rows(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Returns a table of what an export wrote: what, and how much."""
    import pyarrow.parquet as pq

    num_rows = sum(pq.read_metadata(path).num_rows for path in paths)
    return [
        ("rows", f"{num_rows:,}"),
        ("columns", ", ".join(pq.read_schema(paths[0]).names)),
        ("files", f"{len(paths):,}"),
        ("size", f"{sum(path.stat().st_size for path in paths) / 2**20:,.1f} MiB in {paths[0].parent}"),
    ]


def _iter_tasks(data_set: DataSet, *, out: Path, mask_set: int | None, splits: Sequence[str]) -> Iterator[_Task]:
    """Yields a task per shard. Files are numbered anew, because shards of a merged data set may share a name."""
    schema = export_schema(data_set.manifest, mask_set=mask_set)
    for split in splits:
        shards = [number for number, shard in enumerate(data_set.manifest.shards) if shard.split == split]
        for number, shard in enumerate(shards):
            path = (out / shard_name(split, number, len(shards))).with_suffix(".parquet")
            yield _Task(part=data_set.only(shard), schema=schema, path=path, mask_set=mask_set)


def _prepare_folder(
    data_set: DataSet, *, out: Path, own: set[Path], mask_set: int | None, overwrite: bool
) -> set[Path]:
    """Makes the output folder; returns the finished files of this export that are in it.

    Args:
        data_set: What is exported.
        out: The folder.
        own: The files that the export writes.
        mask_set: Number of the mask set; None for all.
        overwrite: Remove files of another export, and damaged ones of this.
    """
    if (out / MANIFEST).exists():
        raise OutputError(f"{out} holds a data set; give the export a folder of its own with --out")
    mark = export_schema(data_set.manifest, mask_set=mask_set).metadata[MARK]
    marks = {path: _read_mark(path) for path in sorted(out.glob("*.parquet"))}
    for path, found in marks.items():
        if found == _UNREADABLE and path in own:
            if not overwrite:
                raise OutputError(f"{path} is damaged; --overwrite writes it again")
        elif found in (None, _UNREADABLE):
            raise OutputError(f"{path} is no file of bertdata export; give another --out")
        elif found != mark and not overwrite:
            raise OutputError(
                f"{out} holds another export: {path.name} has {_describe(found)}, not {_describe(mark)}; give another "
                "--out, or --overwrite"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
        unwanted = [path for path, found in marks.items() if found != mark]
        for path in (*unwanted, *out.glob("*.parquet.*.tmp")):
            path.unlink()
        data_set.copy_tokenizer(out, overwrite=overwrite)
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written to: {error.strerror}") from error
    return set(marks).difference(unwanted)


def _read_mark(path: Path) -> bytes | None:
    import pyarrow.parquet as pq

    try:
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return _UNREADABLE
    return metadata.get(MARK)


def _describe(mark: bytes) -> str:
    values = json.loads(mark)
    return f"data set {values['data_set'][:12]}, mask set {values['mask_set']}"
