"""The commit: what lies beside the shards of a data set, and last of all the manifest that makes it one."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

from bertdata.errors import BertDataError
from bertdata.fingerprint import library_versions
from bertdata.index import INDEX, IndexBuilder
from bertdata.inputs import file_name
from bertdata.manifest import DROPPED_DOCUMENTS, MANIFEST, Manifest, ShardEntry, TokenizerInfo, encode_manifest
from bertdata.planning import ShardTask
from bertdata.shards import FORMAT_VERSION, BlockEntry
from bertdata.statistics import STATISTICS, Statistics
from bertdata.wordpiece import Vocabulary, encode_tokenizer, is_lowercase, parse_tokenizer
from bertdata.work import Work, shard_record

__all__ = ["write_data_set"]


def write_data_set(
    work: Work, tasks: list[ShardTask], *, counts: Counter[str], languages: Counter[str], vocabulary: Vocabulary
) -> None:
    """Writes tokenizer, index, statistics and manifest of one data set, whose shards are all built.

    Args:
        work: The build.
        tasks: The shards of the data set.
        counts: What was counted over all portions.
        languages: Documents by language.
        vocabulary: The vocabulary of the tokens.

    Raises:
        BertDataError: What was counted does not add up.
    """
    length = tasks[0].max_seq_length
    folder = work.data_set_folder(length)
    entries, index, shard_counts = [], IndexBuilder(), Counter[str]()
    not_found = set(work.options.shards.excluded_documents)
    for task in tasks:
        record = work.read(shard_record(task))
        not_found.difference_update(record["excluded"])
        entries.append(ShardEntry(**record["entry"]))
        index.add([BlockEntry(**block) for block in record["blocks"]])
        shard_counts.update(record["counts"])
        shard_counts[f"{task.split}_documents"] += record["counts"]["documents_kept"]
        shard_counts[f"{task.split}_samples"] += record["counts"]["samples"]
    tokenizer_json = work.folder.read("tokenizer.json")
    tokenizer = parse_tokenizer(tokenizer_json, where=f"{work.folder.location}/tokenizer.json")
    empty = Statistics.empty(max_seq_length=length, vocab_size=vocabulary.size)
    files = {
        "tokenizer_config.json": encode_tokenizer(tokenizer)["tokenizer_config.json"],
        INDEX: index.encode(),
        STATISTICS: sum((work.read_statistics(task) for task in tasks), start=empty).to_json(),
    }
    for name, data in (("tokenizer.json", tokenizer_json), *files.items()):
        folder.write(name, data)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        build=work.fingerprint,
        options=work.options.for_length(length).to_json(),
        tokenizer=TokenizerInfo(
            sha256=hashlib.sha256(tokenizer_json).hexdigest(),
            vocab_size=vocabulary.size,
            token_dtype=vocabulary.dtype.name,
            roles=vocabulary.roles,
            lowercase=is_lowercase(tokenizer),
            trained=work.options.tokenizer.path is None,
        ),
        versions=library_versions(),
        inputs=_input_facts(work),
        counts=_add_up(counts, shard_counts, folder=folder.location),
        languages=dict(sorted(languages.items())),
        shards=tuple(entries),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        excluded_not_found=tuple(sorted(not_found)),
    )
    folder.write(MANIFEST, encode_manifest(manifest))


def _add_up(counts: Counter[str], shard_counts: Counter[str], *, folder: str) -> dict[str, int]:
    """Returns the counts of portions and shards together, those of nothing left out."""
    del shard_counts["documents"]  # what the portions counted, less the documents without tokens
    merged = counts + shard_counts
    if merged["documents"] != merged["documents_kept"] + sum(merged[reason] for reason in DROPPED_DOCUMENTS):
        raise BertDataError(f"the counts of {folder} do not add up: {dict(merged)}; please report this")
    return {name: count for name, count in sorted(merged.items()) if count}


def _input_facts(work: Work) -> list[dict[str, Any]]:
    """Returns the files that the build was made of, as they were found; empty ones are none of them."""
    return [{"name": file_name(file.path), "bytes": file.num_bytes} for file in work.inputs if file.num_bytes]
