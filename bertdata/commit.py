"""The commit: what lies beside the shards of a data set, and last of all the manifest that makes it one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from bertdata.errors import BertDataError
from bertdata.files import file_sha256, write_atomically
from bertdata.index import INDEX, write_index
from bertdata.manifest import DROPPED_DOCUMENTS, Manifest, ShardEntry, TokenizerInfo, write_manifest
from bertdata.planning import ShardTask
from bertdata.shards import FORMAT_VERSION, BlockEntry
from bertdata.statistics import STATISTICS, Statistics, write_statistics
from bertdata.wordpiece import Vocabulary, is_lowercase, load_tokenizer
from bertdata.work import TOKENIZER_FILES, Work, library_versions, shard_record, shard_statistics

__all__ = ["write_data_set"]


def write_data_set(
    work: Work, tasks: list[ShardTask], *, counts: Counter[str], languages: Counter[str], vocabulary: Vocabulary
) -> None:
    """Writes tokenizer, index, statistics and manifest of one data set, whose shards are all built.

    Args:
        work: The build.
        tasks: The shards of the data set.
        counts: What was counted over all splits.
        languages: Documents by language.
        vocabulary: The vocabulary of the tokens.

    Raises:
        BertDataError: What was counted does not add up.
    """
    length = tasks[0].max_seq_length
    folder = work.data_set_folder(length)
    entries, blocks, shard_counts = [], [], Counter[str]()
    not_found = set(work.options.shards.excluded_documents)
    for task in tasks:
        record = work.read(shard_record(task))
        not_found.difference_update(record["excluded"])
        entries.append(ShardEntry(**record["entry"]))
        blocks.append([BlockEntry(**block) for block in record["blocks"]])
        shard_counts.update(record["counts"])
        shard_counts[f"{task.split}_documents"] += record["counts"]["documents_kept"]
        shard_counts[f"{task.split}_samples"] += record["counts"]["samples"]
    for name in TOKENIZER_FILES:
        write_atomically(folder / name, (work.folder / name).read_bytes())
    write_index(folder, blocks)
    write_statistics(
        folder,
        (Statistics.from_npz(work.folder / shard_statistics(task)) for task in tasks),
        empty=Statistics.empty(max_seq_length=length, vocab_size=vocabulary.size),
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        build=work.fingerprint,
        options=work.options.for_length(length).to_json(),
        tokenizer=TokenizerInfo(
            sha256=file_sha256(folder / "tokenizer.json"),
            vocab_size=vocabulary.size,
            token_dtype=vocabulary.dtype.name,
            roles=vocabulary.roles,
            lowercase=is_lowercase(load_tokenizer(folder / "tokenizer.json")),
            trained=work.options.tokenizer.path is None,
        ),
        versions=library_versions(),
        inputs=_input_facts(work),
        counts=_add_up(counts, shard_counts, folder=folder),
        languages=dict(sorted(languages.items())),
        shards=tuple(entries),
        files={name: file_sha256(folder / name) for name in ("tokenizer_config.json", INDEX, STATISTICS)},
        excluded_not_found=tuple(sorted(not_found)),
    )
    write_manifest(folder, manifest)


def _add_up(counts: Counter[str], shard_counts: Counter[str], *, folder: Path) -> dict[str, int]:
    """Returns the counts of splits and shards together, those of nothing left out."""
    del shard_counts["documents"]  # what the splits counted, less the documents without tokens
    merged = counts + shard_counts
    if merged["documents"] != merged["documents_kept"] + sum(merged[reason] for reason in DROPPED_DOCUMENTS):
        raise BertDataError(f"the counts of {folder} do not add up: {dict(merged)}; please report this")
    return {name: count for name, count in sorted(merged.items()) if count}


def _input_facts(work: Work) -> list[dict[str, Any]]:
    paths = sorted({split.path for split in work.splits})
    return [{"name": Path(path).name, "bytes": Path(path).stat().st_size} for path in paths]
