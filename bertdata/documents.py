"""What readers give: documents, and records that could not be used."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Document", "Reject"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    r"""Plain text of one article, record, file, paragraph or line.

    Attributes:
        id: "<file name>:<title, line number or byte>", for messages; it never decides bytes.
        text: NFC text, paragraphs separated by "\n".
        language: Language code that the dump or the record declares, if any.
        sentences: The sentences, where the input has them already (sentence per line, list of sentences in a record).
    """

    id: str
    text: str
    language: str | None
    sentences: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """A record that could not be used.

    Attributes:
        path: Its file.
        where: Line, row, byte offset or page title.
        reason: too_large, bad_utf8, bad_json, missing_field, bad_field, bad_markup; or damaged_split.
        excerpt: Its beginning, 200 characters at most.
    """

    path: str
    where: str
    reason: str
    excerpt: str
