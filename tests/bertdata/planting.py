"""Data sets with faults: blocks are changed, and all else is made to fit, as a builder with a bug would leave it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

import bertdata
from bertdata.counting import count_block
from bertdata.files import file_sha256
from bertdata.index import write_index
from bertdata.manifest import ShardEntry, write_manifest
from bertdata.shard_reading import iter_blocks
from bertdata.shards import Block, block_name, open_shard
from bertdata.statistics import Statistics, write_statistics
from bertdata.storage import LocalFolder

Blocks = dict[str, list[Block]]


def copy(folder: Path, out: Path) -> Path:
    """A copy that may be written to."""
    shutil.copytree(folder, out)
    return out


def read_blocks(folder: Path) -> Blocks:
    """The blocks of each shard, by its name."""
    return {
        shard.name: list(iter_blocks(folder / shard.name)) for shard in bertdata.open_data_set(folder).manifest.shards
    }


def write_blocks(folder: Path, blocks: Blocks, *, recounted: bool = True) -> Path:
    """Writes shards anew, and index, statistics and manifest that fit them."""
    manifest = bertdata.open_data_set(folder).manifest
    stored = bertdata.open_data_set(folder).load_statistics()
    length = manifest.options["pairs"]["max_seq_length"]
    empty = Statistics.empty(max_seq_length=length, vocab_size=manifest.tokenizer.vocab_size)
    statistics = dataclasses.replace(
        empty, **{name: getattr(stored, name) for name in ("document_tokens", "document_sentences", "sentence_tokens")}
    )
    entries, shards = [], []
    for name, own in blocks.items():
        split, number = name.split("-")[:2]
        with open_shard(LocalFolder(folder), name) as writer:
            for place, block in enumerate(own):
                writer.add(block, name=block_name(split, int(number), place))
                if recounted:
                    has_labels = manifest.options["pairs"]["next_sentence"] != "none"
                    mask = manifest.tokenizer.roles["mask"]
                    statistics += count_block(block, empty=empty, mask_token=mask, has_labels=has_labels)
        entries.append(writer.entries)
        shards.append(entry_of(folder / name, split=split, blocks=own))
    write_index(folder, entries)
    if recounted:
        write_statistics(folder, [statistics], empty=empty)
    labels = np.concatenate([block.next_sentence_label for own in blocks.values() for block in own])
    num_samples = {
        split: sum(shard.num_samples for shard in shards if shard.split == split) for split in ("train", "eval")
    }
    counts = manifest.counts | {"samples": len(labels), "not_next": int((labels == 1).sum())}
    counts |= {f"{split}_samples": number for split, number in num_samples.items()}
    files = {name: file_sha256(folder / name) for name in manifest.files}
    write_manifest(folder, dataclasses.replace(manifest, shards=tuple(shards), counts=counts, files=files))
    return folder


def entry_of(path: Path, *, split: str, blocks: list[Block]) -> ShardEntry:
    """What the manifest says of a shard file."""
    return ShardEntry(
        name=path.name,
        split=split,
        num_samples=sum(block.num_samples for block in blocks),
        num_blocks=len(blocks),
        num_tokens=sum(len(block.tokens) for block in blocks),
        num_bytes=path.stat().st_size,
        sha256=file_sha256(path),
    )


def change_block(folder: Path, change: Callable[[Block], Block], *, shard: int = 0, block: int = 0) -> Path:
    """Changes one block; the statistics stay, because what is changed may not be countable."""
    blocks = read_blocks(folder)
    name = list(blocks)[shard]
    blocks[name][block] = change(blocks[name][block])
    return write_blocks(folder, blocks, recounted=False)


def put(block: Block, field: str, place: int | tuple[int, int], value: int) -> Block:
    """The block with another value at a place of one of its arrays."""
    array = getattr(block, field).copy()
    array[place] = value
    return dataclasses.replace(block, **{field: array})


def take(block: Block, rows: list[int]) -> Block:
    """The samples in the given rows, in that order, with their mask sets; slow and plain."""
    bounds = np.concatenate([[0], np.cumsum(block.num_predictions.sum(axis=1, dtype=int))])
    spans = [slice(block.token_offsets[row], block.token_offsets[row + 1]) for row in rows]
    masks = [slice(bounds[row], bounds[row + 1]) for row in rows]
    tokens = [block.tokens[span] for span in spans]
    return Block(
        tokens=np.concatenate(tokens),
        token_offsets=np.cumsum([0, *map(len, tokens)]).astype(np.uint32),
        segment_b=block.segment_b[rows],
        next_sentence_label=block.next_sentence_label[rows],
        document_keys=block.document_keys[rows],
        num_predictions=block.num_predictions[rows],
        mask_positions=np.concatenate([block.mask_positions[mask] for mask in masks]),
        mask_tokens=np.concatenate([block.mask_tokens[mask] for mask in masks]),
        label_forced=None if block.label_forced is None else block.label_forced[rows],
    )


def edit_manifest(folder: Path, change: Callable[[dict], None]) -> Path:
    """Changes the manifest's JSON."""
    path = folder / "manifest.json"
    values = json.loads(path.read_bytes())
    change(values)
    path.write_text(json.dumps(values))
    return folder
