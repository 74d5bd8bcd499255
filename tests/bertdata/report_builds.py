"""Data sets for tests of the report: each mode of pairs, and input of which every kind is dropped."""

import dataclasses
import json
from pathlib import Path

from bertdata.config import BuildOptions, MaskOptions
from bertdata.documents import Document
from bertdata.spill import document_key
from tests.bertdata.small_builds import build
from tests.corpus import article, iter_texts

EXCLUDED = ["Secret letter.", "Old garden."]
MODES = ("balanced", "google", "sop", "none")


def drop_some(document: Document) -> Document | str:
    """A filter of the user's own."""
    return "no_milk" if "milk" in document.text else document


def write_inputs(folder: Path) -> list[Path]:
    """Writes a dump and a file of records, with pages, records and documents that are dropped for many reasons."""
    texts = list(iter_texts(130))
    pages = [article(f"Title {number}", text) for number, text in enumerate(texts[:60])]
    pages += [article(f"Old {number}", "#REDIRECT [[Title 1]]", redirect="Title 1") for number in range(7)]
    pages += [article("Talk:Title 1", "I think so too.", namespace=1), article("Nothing", "")]
    dump = folder / "wiki.xml"
    dump.write_text('<mediawiki version="0.11" xml:lang="en">\n' + "".join(pages) + "</mediawiki>\n")
    texts = [
        *texts[60:],
        texts[70],
        texts[71],
        "One sentence only.",
        "!!! 123.",
        "I like milk. You do not.",
        " ".join(EXCLUDED),
    ]
    lines = [json.dumps({"text": text}) for text in texts]
    records = folder / "records.jsonl"
    records.write_text("\n".join([*lines, "{", '{"text": ""}', '{"words": "none"}']) + "\n")
    return [dump, records]


def options_for(mode: str, small_options: BuildOptions) -> BuildOptions:
    """Options of a mode; sop stores no mask sets."""
    return dataclasses.replace(
        small_options,
        pairs=dataclasses.replace(small_options.pairs, next_sentence=mode),
        masks=MaskOptions(
            num_mask_sets=0 if mode == "sop" else 2, max_predictions_per_seq=8 if mode == "none" else None
        ),
        read=dataclasses.replace(small_options.read, max_rejects=10, filter="tests.bertdata.report_builds:drop_some"),
        shards=dataclasses.replace(small_options.shards, excluded_documents=(document_key(EXCLUDED)[:8].hex(),)),
    )


def build_all_modes(folder: Path, small_options: BuildOptions) -> tuple[dict[str, Path], list[Path]]:
    """Returns the data set of each mode, and what they are built from."""
    inputs = write_inputs(folder)
    built = {mode: build(folder / mode, *inputs, options=options_for(mode, small_options)) for mode in MODES}
    return built, inputs
