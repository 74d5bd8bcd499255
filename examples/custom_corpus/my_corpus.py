"""A reader and a filter of one's own, to copy and change.

Run in the folder of this file, or with the module installed:

    bertdata build --input reviews.csv --out shards/ --format my_corpus:read_csv --filter my_corpus:keep_prose

`bertdata.hooks` documents both protocols.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from bertdata import Document

FOOTER = "Was this review helpful to you?"


def read_csv(path: str) -> Iterator[dict[str, str]]:
    """Reads a CSV file with the columns "body" and "language": a document per row."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {"text": row["body"], "language": row["language"]}


def keep_prose(document: Document) -> Document | str:
    """Takes off a line that ends every document, and drops documents that are hardly made of letters.

    The documents of `read_csv` have text only; where there are `sentences`, these would have to be changed instead.
    """
    text = document.text.removesuffix(FOOTER)
    if 2 * sum(map(str.isalpha, text)) < len(text):
        return "few_letters"
    return dataclasses.replace(document, text=text)
