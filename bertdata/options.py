"""The options of the command lines: their help, their types, and how they become the stages' options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from bertdata.config import FORMATS, BuildOptions, MaskOptions, PairOptions, ReadOptions, ShardOptions, TokenizerOptions
from bertdata.parameters import Format, Lengths, NearestChoice, Size, Workers

__all__ = [
    "RUNNERS",
    "build_options",
    "make_build_options",
    "make_read_options",
    "make_tokenizer_options",
    "read_options",
    "workers_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])

RUNNERS = ("FnApiRunner", "PrismRunner", "FlinkRunner", "SparkRunner", "DataflowRunner", "PortableRunner")

workers_option = click.option(
    "--num-workers",
    type=Workers(),
    default="all",
    help="Worker processes on this machine: a number, or all for one per processor.",
)


def _add(command: Command, options: Sequence[Callable[[Any], Any]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


_READ = ReadOptions()
_TOKENIZER = TokenizerOptions()
_PAIRS = PairOptions()
_MASKS = MaskOptions()
_SHARDS = ShardOptions()


_READ_OPTIONS = (
    click.option(
        "--input",
        "inputs",
        multiple=True,
        required=True,
        metavar="PATH",
        help="Files, folders or glob patterns, here or at s3://BUCKET/... and gs://BUCKET/...; may be given "
        "several times. MediaWiki XML, JSONL, Parquet, WikiExtractor's output or plain text; all but Parquet also "
        "compressed with bzip2, gzip or zstd.",
    ),
    click.option(
        "--format",
        type=Format(),
        default=_READ.format,
        help=f"Format of all inputs: {', '.join(FORMATS)} (auto looks into each file); or MODULE:FUNCTION, a "
        "reader of your own.",
    ),
    click.option(
        "--document-per",
        type=click.Choice(["blank-line", "file", "line"]),
        default=_READ.document_per,
        help="Plain text: what separates documents.",
    ),
    click.option("--sentence-per-line", is_flag=True, help="Plain text: every line is one sentence."),
    click.option(
        "--text-field",
        default=_READ.text_field,
        help="JSONL and Parquet: the field or column that holds the text, or a list of sentences.",
    ),
    click.option(
        "--language",
        default=_READ.language,
        help="Language code for sentence rules, such as en or zh; auto takes the dump's, the record's, else "
        "guesses by script.",
    ),
    click.option(
        "--filter",
        metavar="MODULE:FUNCTION",
        help="A function of your own that gets each document and returns it, maybe changed, or why to drop it. "
        "[default: none]",
    ),
    click.option(
        "--min-document-chars",
        type=int,
        default=_READ.min_document_chars,
        help="Documents with fewer characters are dropped and counted.",
    ),
    click.option(
        "--max-document-bytes",
        type=Size(),
        default="64MiB",
        help="Documents with more bytes of text are rejected and counted.",
    ),
    click.option(
        "--max-rejects",
        type=int,
        default=_READ.max_rejects,
        help="Bad records allowed before the build ends with an error.",
    ),
    click.option(
        "--skip-bad-splits",
        is_flag=True,
        help="Where a file is damaged, leave out the rest of its split, count it and go on.",
    ),
    click.option(
        "--vocab-size",
        type=int,
        default=_TOKENIZER.vocab_size,
        help="Entries of a trained vocabulary at most.",
    ),
    click.option(
        "--lowercase/--cased",
        default=None,
        help="Lower-case text or not. [default: as the tokenizer says; if trained, English only]",
    ),
    click.option(
        "--strip-accents/--keep-accents",
        default=None,
        help="Remove accents or not. [default: as the tokenizer says; if trained, in lower-cased English]",
    ),
)


def read_options(command: Command) -> Command:
    """Adds the options that say how input is read."""
    return _add(command, _READ_OPTIONS)


_BUILD_OPTIONS = (
    click.option(
        "--out",
        required=True,
        metavar="DIRECTORY",
        type=click.Path(file_okay=False),
        help="Folder for the shards, here or at s3://BUCKET/FOLDER or gs://BUCKET/FOLDER; what is done so far lies "
        "in OUT/.work.",
    ),
    click.option(
        "--tokenizer",
        metavar="PATH",
        help="tokenizer.json, vocab.txt, or a folder with one. [default: train a vocabulary]",
    ),
    click.option(
        "--max-seq-length",
        type=Lengths(),
        default="128",
        help="Tokens of a sample at most, specials included; several with commas write a data set each, in folders "
        "of OUT.",
    ),
    click.option(
        "--short-seq-prob",
        type=float,
        default=_PAIRS.short_seq_prob,
        help="Share of samples with a shorter target length.",
    ),
    click.option(
        "--next-sentence",
        type=click.Choice(["balanced", "google", "sop", "none"]),
        default=_PAIRS.next_sentence,
        help="Pairs: balanced labels, Google's own distribution, sentence order (ALBERT), or single segments "
        "(RoBERTa).",
    ),
    click.option(
        "--dupe-factor",
        type=int,
        default=_PAIRS.dupe_factor,
        help="Passes over the documents, each with its own pairs.",
    ),
    click.option(
        "--num-mask-sets",
        type=int,
        default=_MASKS.num_mask_sets,
        help="Mask sets per pair, another one in each epoch; 0 stores none and lets the loader draw them.",
    ),
    click.option(
        "--masked-lm-prob",
        type=float,
        default=_MASKS.masked_lm_prob,
        help="Share of positions that are predicted.",
    ),
    click.option("--max-predictions-per-seq", type=int, help="Predictions per mask set at most. [default: no cap]"),
    click.option("--whole-word-mask", is_flag=True, help="Mask all pieces of a word together."),
    click.option(
        "--eval-fraction",
        type=float,
        default=_SHARDS.eval_fraction,
        help="Share of documents held out; at least 100 documents, at most a tenth. 0 for none.",
    ),
    click.option("--shard-size", type=Size(), default="64MiB", help="Bytes of a shard, about."),
    click.option("--num-shards", type=int, help="Number of training shards. [default: by --shard-size]"),
    click.option(
        "--block-size",
        type=int,
        default=_SHARDS.block_size,
        help="Samples per block of a shard at most.",
    ),
    click.option("--keep-duplicates", is_flag=True, help="Keep documents whose text occurs more than once."),
    click.option(
        "--exclude-documents",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Leave out the documents whose keys FILE lists, one per line, and all their copies. Goes on from a "
        "work folder kept by --keep-work and builds the shards that change. A vocabulary that is trained still "
        "sees them; give --tokenizer where it must not. [default: none]",
    ),
    click.option("--seed", type=int, default=0, help="Number that all draws are derived from."),
    click.option(
        "--keep-work",
        is_flag=True,
        help="Leave the work folder, OUT/.work, when all is done: about as large as the tokens of all documents, "
        "excluded ones too; it lets --exclude-documents build the shards that change alone.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Write nothing: read a sample of the input, and print what the build would make, and take in disk, "
        "time and memory.",
    ),
    click.option("--json", "as_json", is_flag=True, help="With --dry-run: print the estimate as JSON."),
    click.option("--overwrite", is_flag=True, help="Replace another build in OUT."),
    click.option(
        "--runner",
        type=NearestChoice(RUNNERS),
        default=RUNNERS[0],
        help="Apache Beam runner; workers on other machines need input and output where they reach them.",
    ),
    workers_option,
)


def build_options(command: Command) -> Command:
    """Adds the options that only a build has."""
    return _add(command, _BUILD_OPTIONS)


def _pick(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """Returns the values of those options that a stage's options have too."""
    return {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}


def make_read_options(values: dict[str, Any]) -> ReadOptions:
    """Returns the options of the reading stage from those of a command."""
    return ReadOptions(**_pick(values, ReadOptions))


def make_tokenizer_options(values: dict[str, Any], *, path: str | None) -> TokenizerOptions:
    """Returns the options of the tokenizer from those of a command."""
    return TokenizerOptions(path=path, **_pick(values, TokenizerOptions))


def make_build_options(values: dict[str, Any]) -> BuildOptions:
    """Returns the options of a build from those of the command; `max_seq_length` holds all lengths."""
    lengths = values["max_seq_length"]
    return BuildOptions(
        read=make_read_options(values),
        tokenizer=make_tokenizer_options(values, path=values["tokenizer"]),
        pairs=PairOptions(**_pick(values, PairOptions) | {"max_seq_length": lengths[0]}),
        masks=MaskOptions(**_pick(values, MaskOptions)),
        shards=ShardOptions(**_pick(values, ShardOptions)),
        max_seq_lengths=lengths,
        seed=values["seed"],
    )
