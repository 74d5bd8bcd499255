"""The libraries that one would read samples with instead, each set up as a careful user would.

Records are those of `tests.benchmarks.batches`, collating is vectorized and the same for all. Each way shuffles, reads
local files, and drops the last batch of an epoch if it is not full.

- webdataset: one group of members per sample, as `.npy` files of one array each, or as one `.ten` file of all, which is
  the fastest of its own decoders. And our blocks, decoded by it and cut by a generator: sample by sample, as one writes
  it, or with all by whole arrays but the cut itself. It looks at no checksum.
- mosaicml-streaming: one record per sample, columns of bytes, which it decodes faster than arrays.
  It looks ahead over the whole epoch, since nothing is to be downloaded, and its thread for this does not hold up the
  reading for long. It compares hashes when it first finds a file, not when it reads a sample.
- litdata: one record per sample, of bytes, with everything else as it comes: 256 neighbours are shuffled among
  themselves, so the same samples share a batch in every epoch. And of arrays with whole chunks shuffled, for which
  whole chunks have to be kept decoded. It has no checksums.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from bertdata.data_set import DataSet
from bertdata.shards import END_OF_ARCHIVE, Block
from bertdata.spans import offsets_of
from tests.benchmarks.batches import BATCH_SIZE, Array, Finished, Record, choose_masks, collate, facts_of, records_of

__all__ = ["PEERS", "Epoch", "Peer"]

SHUFFLE_BUFFER = 8192  # samples; as many as a window of the plan has
FIELDS = ("tokens", "facts", "masks")
Epoch = Callable[[], Iterable[Finished]]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A way to read samples.

    Attributes:
        name: Its name in the tables.
        module: What it needs.
        checksum: What it checks of the bytes it reads.
        open: From samples, the data set whose first ones they are, a new folder and random numbers, makes what iterates
            over the batches of one epoch.
        goal: How many times as fast we want to be.
    """

    name: str
    module: str
    checksum: str
    open: Callable[[Block, DataSet, Path, np.random.Generator], Epoch]
    goal: int

    def load(self) -> None:
        """Imports what it needs; raises whatever this raises."""
        if self.module == "streaming":
            # What it has for images and text needs torchvision and transformers of versions of its own, for nothing.
            for part in ("multimodal", "text", "vision"):
                sys.modules.setdefault(f"streaming.{part}", types.ModuleType(part))
        importlib.import_module(self.module)


def _from_arrays(records: Sequence[Any], *, keys: Sequence[Any], rng: np.random.Generator | None) -> Finished:
    return collate(*(np.concatenate([record[key] for record in records]) for key in keys), rng=rng)


def _from_bytes(records: Sequence[dict[str, bytes]], *, rng: np.random.Generator) -> Finished:
    joined = (b"".join([record[field] for record in records]) for field in FIELDS)
    return collate(*(np.frombuffer(data, dtype=np.uint16) for data in joined), rng=rng)


def _as_bytes(record: Record) -> dict[str, bytes]:
    return {field: array.tobytes() for field, array in zip(FIELDS, record, strict=True)}


def _as_arrays(record: Record) -> dict[str, Array]:
    return {field: array.ravel() for field, array in zip(FIELDS, record, strict=True)}


def _tar(
    encode: Callable[[Record], dict[str, Any]],
    keys: Sequence[Any],
    pick: str | None,
    block: Block,
    data_set: DataSet,
    folder: Path,
    rng: np.random.Generator,
) -> Epoch:
    """One group of members per sample, read by webdataset alone."""
    import webdataset as wds

    path = folder / "samples.tar"
    with wds.TarWriter(str(path)) as tar:
        for number, record in enumerate(records_of(block)):
            tar.write({"__key__": f"{number:08d}", **encode(record)})

    def combine(samples: list[dict[str, Any]]) -> Finished:
        return _from_arrays([sample[pick] for sample in samples] if pick else samples, keys=keys, rng=rng)

    samples = wds.WebDataset(str(path), shardshuffle=False).shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER).decode()
    pipeline: Epoch = samples.batched(BATCH_SIZE, collation_fn=combine, partial=False).__iter__
    return pipeline


def _cut(blocks: Iterable[dict[str, Any]], *, rng: np.random.Generator) -> Iterator[Record]:
    """Yields the samples of decoded blocks as records of the one mask set to show; all but cutting is done by block."""
    for block in map(_block_of, blocks):
        counts, indices = choose_masks(block, rng)
        masks = np.stack([block.mask_positions[indices], block.mask_tokens[indices]], axis=1)
        facts = np.concatenate([facts_of(block)[:, :3], counts[:, None].astype(np.uint16)], axis=1)
        starts, mask_starts = block.token_offsets.tolist(), offsets_of(counts).tolist()
        for number in range(block.num_samples):
            yield (
                block.tokens[starts[number] : starts[number + 1]],
                facts[number],
                masks[mask_starts[number] : mask_starts[number + 1]],
            )


def _mask_each(blocks: Iterable[dict[str, Any]], *, rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Yields the samples of decoded blocks ready for the model, as one writes it sample by sample."""
    for block in map(_block_of, blocks):
        counts, indices = choose_masks(block, rng)
        positions, shown = block.mask_positions[indices].astype(np.int64), block.mask_tokens[indices]
        starts, mask_starts = block.token_offsets.tolist(), offsets_of(counts).tolist()
        for number in range(block.num_samples):
            here = slice(mask_starts[number], mask_starts[number + 1])
            token_ids = block.tokens[starts[number] : starts[number + 1]].astype(np.int32)
            labels = token_ids[positions[here]].astype(np.int64)
            token_ids[positions[here]] = shown[here]
            types = np.zeros(len(token_ids), dtype=np.int32)
            types[block.segment_b[number] :] = 1
            yield token_ids, types, positions[here], labels, int(block.next_sentence_label[number])


def _join_masked(samples: Sequence[tuple[Any, ...]]) -> Finished:
    token_ids, types, positions, labels, is_next = zip(*samples, strict=True)
    cu_seqlens = np.cumsum([0, *map(len, token_ids)], dtype=np.int32)
    rows = np.repeat(cu_seqlens[:-1], [len(array) for array in labels]) + np.concatenate(positions)
    return Finished(
        token_ids=torch.from_numpy(np.concatenate(token_ids)),
        token_type_ids=torch.from_numpy(np.concatenate(types)),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        max_seqlen=max(map(len, token_ids)),
        mask_rows=torch.from_numpy(rows),
        mask_labels=torch.from_numpy(np.concatenate(labels)),
        next_sentence_labels=torch.tensor(is_next),
    )


def _block_of(fields: dict[str, Any]) -> Block:
    return Block(
        **{
            field.name: fields[f"{field.name}.npy"]
            for field in dataclasses.fields(Block)
            if f"{field.name}.npy" in fields
        }
    )


def _blocks(
    cut: Callable[..., Iterator[Any]],
    combine: Callable[..., Finished],
    block: Block,
    data_set: DataSet,
    folder: Path,
    rng: np.random.Generator,
) -> Epoch:
    """Our own first blocks, read by webdataset and cut into samples."""
    import webdataset as wds

    index, path = data_set.blocks("train"), folder / "blocks.tar"
    ends = np.cumsum(index.num_samples)
    with path.open("wb") as file:
        for row in range(int(np.searchsorted(ends, block.num_samples)) + 1):
            shard = data_set.folder / data_set.manifest.shards[int(index.shard[row])].name
            start = int(index.offset[row])
            file.write(shard.read_bytes()[start : start + int(index.num_bytes[row])])
        file.write(END_OF_ARCHIVE)
    blocks = wds.WebDataset(str(path), shardshuffle=False).decode()
    samples = blocks.compose(functools.partial(cut, rng=rng)).shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER)
    pipeline: Epoch = samples.batched(BATCH_SIZE, collation_fn=combine, partial=False).__iter__
    return pipeline


def _mds(block: Block, data_set: DataSet, folder: Path, rng: np.random.Generator) -> Epoch:
    """One record per sample, columns of bytes, through mosaicml-streaming."""
    import streaming

    columns = dict.fromkeys(FIELDS, "bytes")
    with streaming.MDSWriter(out=str(folder), columns=columns, hashes=["xxh64"], size_limit="64mb") as writer:
        for record in records_of(block):
            writer.write(_as_bytes(record))
    samples = streaming.StreamingDataset(
        local=str(folder), shuffle=True, batch_size=BATCH_SIZE, validate_hash="xxh64", predownload=1 << 20
    )
    return _loaded(samples, functools.partial(_from_bytes, rng=rng))


def _litdata(
    encode: Callable[[Record], dict[str, Any]],
    combine: Callable[..., Finished],
    settings: dict[str, Any],
    block: Block,
    data_set: DataSet,
    folder: Path,
    rng: np.random.Generator,
) -> Epoch:
    """One record per sample through litdata."""
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(folder / "work")
    import litdata

    litdata.optimize(
        fn=encode,
        inputs=list(records_of(block)),
        output_dir=str(folder / "data"),
        chunk_bytes="64MB",
        num_workers=1,
        start_method="fork",
        verbose=False,
    )
    samples = litdata.StreamingDataset(
        str(folder / "data"), shuffle=True, cache_dir=str(folder / "cache"), drop_last=False, **settings
    )
    return _loaded(samples, functools.partial(combine, rng=rng))


def _loaded(samples: Any, combine: Callable[[Any], Finished]) -> Epoch:
    loader = DataLoader(samples, batch_size=BATCH_SIZE, collate_fn=combine, num_workers=0, drop_last=True)
    return loader.__iter__


_NPY = {field: f"{field}.npy" for field in FIELDS}
_MEMBERS = functools.partial(
    _tar, lambda record: dict(zip(_NPY.values(), record, strict=True)), list(_NPY.values()), None
)
_TENSORS = functools.partial(_tar, lambda record: {"ten": list(record)}, range(3), "ten")
_CUT = functools.partial(_blocks, _cut, functools.partial(_from_arrays, keys=range(3), rng=None))
_MASKED = functools.partial(_blocks, _mask_each, _join_masked)
_LITDATA_BYTES = functools.partial(_litdata, _as_bytes, _from_bytes, {})
_LITDATA_ARRAYS = functools.partial(
    _litdata,
    _as_arrays,
    functools.partial(_from_arrays, keys=FIELDS),
    {"item_shuffle_window": 0, "batch_decode": "all"},
)

PEERS = (
    Peer(name="webdataset, .npy per field", module="webdataset", checksum="none", open=_MEMBERS, goal=30),
    Peer(name="webdataset, .ten per sample", module="webdataset", checksum="none", open=_TENSORS, goal=30),
    Peer(name="webdataset, blocks by sample", module="webdataset", checksum="none", open=_MASKED, goal=8),
    Peer(name="webdataset, blocks cut up", module="webdataset", checksum="none", open=_CUT, goal=8),
    Peer(name="mosaicml-streaming", module="streaming", checksum="xxh64, once", open=_mds, goal=8),
    Peer(name="litdata", module="litdata", checksum="none", open=_LITDATA_BYTES, goal=8),
    Peer(name="litdata, chunks shuffled", module="litdata", checksum="none", open=_LITDATA_ARRAYS, goal=8),
)
