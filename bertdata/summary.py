"""What a build made, in words: the last table of `bertdata build`, and warnings about data that will not train well."""

from __future__ import annotations

from collections.abc import Iterator

from bertdata.data_set import DataSet
from bertdata.disk import format_bytes
from bertdata.dry_run import Estimate
from bertdata.manifest import Manifest
from bertdata.progress import Took, format_seconds

__all__ = [
    "describe_reason",
    "estimate_rows",
    "format_table",
    "iter_warnings",
    "manifest_rows",
    "summary_rows",
    "took_rows",
]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _describe_languages(languages: dict[str, int]) -> str:
    total = sum(languages.values())
    largest = sorted(languages.items(), key=lambda item: (-item[1], item[0]))[:3]
    named = [f"{language} {_share(count, total):.0%}" for language, count in largest]
    return ", ".join([*named, "..."] if len(languages) > len(largest) else named)


_DROPPED_RECORDS = {"empty": "empty", "too_short": "too short"}
_DROPPED = _DROPPED_RECORDS | {
    "documents_without_tokens": "without words",
    "excluded_documents": "excluded",
}
_DROPPED_PREFIXES = ("filtered_", "rejected_")


def describe_reason(name: str) -> str:
    """Returns in words why documents were dropped that are counted under `name`."""
    if name.startswith("filtered_"):
        return f"filtered: {name.removeprefix('filtered_')}"
    if name.startswith("rejected_"):
        return f"rejected: {name.removeprefix('rejected_').replace('_', ' ')}"
    return _DROPPED[name]


def _dropped_rows(counts: dict[str, int], *, of_records: bool) -> list[tuple[str, str]]:
    """Returns a row for each reason for which records, or documents, were dropped, the most frequent first."""
    found = [name for name in counts if counts[name] and (name in _DROPPED or name.startswith(_DROPPED_PREFIXES))]
    found = [name for name in found if of_records == (name in _DROPPED_RECORDS or name.startswith(_DROPPED_PREFIXES))]
    found.sort(key=lambda name: (-counts[name], name))
    return [(f"  {describe_reason(name)}, dropped", f"{counts[name]:,}") for name in found]


def summary_rows(data_set: DataSet) -> list[tuple[str, str]]:
    """Returns the table's rows: what, and how much."""
    return manifest_rows(data_set.manifest, where=data_set.location)


def manifest_rows(manifest: Manifest, *, where: str) -> list[tuple[str, str]]:
    """Returns the same of a data set that is said to lie `where`."""
    counts = manifest.counts
    num_train, num_eval = manifest.num_samples("train"), manifest.num_samples("eval")
    num_shards = sum(shard.split == "train" for shard in manifest.shards)
    num_bytes = sum(shard.num_bytes for shard in manifest.shards)
    max_seq_length = manifest.options["pairs"]["max_seq_length"]
    next_sentence = manifest.options["pairs"]["next_sentence"]
    label = "share in order" if next_sentence == "sop" else "IsNext share"
    dropped_records = _dropped_rows(counts, of_records=True)
    rows = [
        *([("records", f"{counts.get('records', 0):,}"), *dropped_records] if dropped_records else []),
        ("documents", f"{counts.get('documents', 0):,}"),
        ("  for training / evaluation", f"{counts.get('train_documents', 0):,} / {counts.get('eval_documents', 0):,}"),
        ("  duplicates, dropped", f"{counts.get('duplicates', 0):,}"),
        ("  of one sentence, dropped", f"{counts.get('one_sentence_documents', 0):,}"),
        *_dropped_rows(counts, of_records=False),
        ("languages", _describe_languages(manifest.languages)),
        ("sentences", f"{counts.get('sentences', 0):,}"),
        ("tokens of text", f"{counts.get('tokens', 0):,}"),
        ("vocabulary", f"{manifest.tokenizer.vocab_size:,} ({'trained' if manifest.tokenizer.trained else 'given'})"),
        (f"pairs (max_seq_length {max_seq_length})", f"{num_train:,} training / {num_eval:,} evaluation"),
        (label, f"{1 - _share(counts.get('not_next', 0), counts.get('samples', 0)):.1%}"),
        ("mask sets per pair", f"{manifest.options['masks']['num_mask_sets']}"),
        ("shards", f"{num_shards:,} training / {len(manifest.shards) - num_shards:,} evaluation"),
        ("size", f"{num_bytes / 2**20:,.1f} MiB in {where}"),
    ]
    if next_sentence == "none":
        rows = [row for row in rows if row[0] != label]
    return rows


def took_rows(took: Took) -> list[tuple[str, str]]:
    """Returns the rows about what a run of the build took."""

    def done(this_run: int, found: int) -> str:
        return f"{this_run:,} in this run" + (f", {found:,} found done" if found else "")

    speed = f", {format_bytes(took.read_bytes / took.seconds)} of input per second" if took.read_bytes else ""
    worker = f"{took.worker_memory / 2**20:,.0f} MiB of a worker, " if took.worker_memory else ""
    return [
        ("time", f"{format_seconds(took.seconds)}{speed}"),
        ("portions of the input", done(took.portions, took.portions_found)),
        ("shards built", done(took.shards, took.shards_found)),
        ("peak memory", f"{worker}{took.launcher_memory / 2**20:,.0f} MiB of the launcher"),
    ]


def estimate_rows(estimate: Estimate, *, free_bytes: int | None) -> list[tuple[str, str]]:
    """Returns the rows about what a build will make and take; `free_bytes` are those of the disk, where it is known."""
    free = f" ({format_bytes(free_bytes)} free)" if free_bytes is not None else ""
    share = _share(estimate.sampled_bytes, estimate.input_bytes)
    return [
        (
            "input",
            f"{estimate.num_files:,} files, {format_bytes(estimate.input_bytes)}, {share:.1%} of it read for this",
        ),
        ("portions", f"{estimate.num_portions:,}"),
        ("documents", f"{estimate.documents:,}"),
        ("sentences", f"{estimate.sentences:,}"),
        ("tokens of text", f"{estimate.tokens:,}"),
        ("pairs", f"{estimate.train_pairs:,} training / {estimate.eval_pairs:,} evaluation"),
        ("shards", f"{estimate.train_shards:,} training / {estimate.eval_shards:,} evaluation"),
        ("size", f"{format_bytes(estimate.shard_bytes)} in shards"),
        ("disk, at the most", f"{format_bytes(estimate.peak_disk_bytes)}{free}"),
        ("time", f"{format_seconds(estimate.seconds)} with {estimate.num_workers:,} workers on this machine"),
        (
            "peak memory",
            f"{estimate.worker_memory / 2**20:,.0f} MiB of a worker, "
            f"{estimate.launcher_memory / 2**20:,.0f} MiB of the launcher",
        ),
    ]


def format_table(rows: list[tuple[str, str]]) -> str:
    """Returns rows of two columns as text."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def iter_warnings(manifest: Manifest) -> Iterator[str]:
    """Yields what is likely wrong with the data, and which option helps."""
    counts = manifest.counts
    num_documents = counts.get("documents", 0)
    unknown = _share(counts.get("unknown_tokens", 0), counts.get("tokens", 0))
    if unknown > 0.01:
        yield (
            f"{unknown:.1%} of the tokens are [UNK]: the tokenizer does not know this text's words or characters. "
            "Leave out --tokenizer to train one, or check --lowercase/--cased."
        )
    if 2 * counts.get("documents_under_3_sentences", 0) > num_documents:
        yield (
            "more than half of the documents have under three sentences, too few for pairs. "
            "For plain text, check --document-per; --next-sentence none needs no pairs."
        )
    if _share(counts.get("duplicates", 0), num_documents) > 0.05:
        yield (
            f"{_share(counts['duplicates'], num_documents):.1%} of the documents were copies of others and dropped; "
            "--keep-duplicates keeps them."
        )
    forced = counts.get("forced", 0)
    num_samples = counts.get("samples", 0)
    if 2 * forced > num_samples:
        yield (
            f"{_share(forced, num_samples):.1%} of the pairs are NotNext because their chunk had one sentence: "
            "sentences are long for --max-seq-length, or documents short. Check --document-per, or raise the length."
        )
    share = _share(counts.get("not_next", 0), num_samples)
    if manifest.options["pairs"]["next_sentence"] == "balanced" and not 0.45 <= share <= 0.55:
        yield (
            f"{share:.1%} of the pairs are NotNext instead of half: a shard has too few documents to draw a random "
            "sentence from. Use fewer --num-shards, or more text."
        )
    if counts.get("damaged_splits"):
        yield (
            f"{counts['damaged_splits']:,} splits are of damaged files, and the rest of each is missing: see "
            "rejects.jsonl. Fetch these files again and build anew."
        )
    if manifest.excluded_not_found:
        keys = manifest.excluded_not_found
        yield (
            f"{len(keys):,} of {len(manifest.options['shards']['excluded_documents']):,} document keys in "
            f"--exclude-documents belong to no document: {', '.join([*keys[:3], '...'] if len(keys) > 3 else keys)}. "
            "Check the keys; a copy that --keep-duplicates has kept goes with the key of the first one."
        )
    if not counts.get("eval_samples"):
        yield "there are too few documents to hold some out, so training cannot be evaluated"
