"""Marks: the bytes by which the formats of input files are known, and by which their records begin and end.

What looks into a file for its format, what cuts it, and what reads it have to mean the same by a page or an article.
"""

from __future__ import annotations

import re

__all__ = [
    "ARTICLE",
    "ARTICLE_END",
    "ARTICLE_TAG",
    "PAGE",
    "PAGE_END",
    "PARQUET",
    "RECORD_ENDS",
    "RECORD_STARTS",
    "WRITTEN_TAG",
]

PARQUET = b"PAR1"

# A page of a MediaWiki dump. Wikitext is escaped there, so these bytes mean nothing else.
PAGE, PAGE_END = b"<page>", b"</page>"

# An article in the output of WikiExtractor, whose tags stand in lines of their own.
ARTICLE, ARTICLE_END = b"<doc ", b"</doc>"
ARTICLE_TAG = re.compile(rb'<doc [^>]*\btitle="(.*)">\s*')
# How WikiExtractor itself begins a tag, by which its output is told from other text with a <doc> in it.
WRITTEN_TAG = re.compile(rb'^<doc id="[^"\n]*" (?:revid="[^"\n]*" )?url="', re.MULTILINE)

# Of formats that can be cut anywhere.
RECORD_STARTS = {"mediawiki": PAGE, "wikiextractor": ARTICLE, "jsonl": b"\n"}
RECORD_ENDS = {"mediawiki": PAGE_END, "wikiextractor": ARTICLE_END, "jsonl": b"\n"}
