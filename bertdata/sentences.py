"""Text to sentences: `sentencex`, and rules on top that mend its most frequent faults.

- After 。！？ a sentence ends, unless a closing quote or bracket follows (sentencex goes on where a digit follows).

- A piece that begins with a lower-case letter, or has no letter or digit, belongs to the sentence before (sentencex
  breaks after abbreviations that it does not know), and an enumerator ("2.") to the sentence after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from unicodedata import normalize

from bertdata.errors import ConfigError

__all__ = ["resolve_language", "split_sentences"]

_CJK_SENTENCE = re.compile("(?<=[。！？])(?![。！？」』”’）)\\]】》〉…\"'])")
_CJK_END = re.compile("[。！？]")
_ENUMERATOR = re.compile(r"\(?(?:\d{1,2}|[A-Za-z])[.)]")
_FIRST_LETTER_OR_DIGIT = re.compile(r"[^\W_]")

# Scripts that tell the language well enough to split sentences; the first language named is the most written one.
_SCRIPTS = {
    "ko": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "ja": "\u3040-\u30ff",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "ru": "\u0400-\u052f",
    "ar": "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff",
    "hi": "\u0900-\u097f",
    "bn": "\u0980-\u09ff",
    "pa": "\u0a00-\u0a7f",
    "gu": "\u0a80-\u0aff",
    "or": "\u0b00-\u0b7f",
    "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f",
    "kn": "\u0c80-\u0cff",
    "ml": "\u0d00-\u0d7f",
    "si": "\u0d80-\u0dff",
    "th": "\u0e00-\u0e7f",
    "lo": "\u0e80-\u0eff",
    "my": "\u1000-\u109f",
    "ka": "\u10a0-\u10ff",
    "am": "\u1200-\u137f",
    "km": "\u1780-\u17ff",
    "el": "\u0370-\u03ff\u1f00-\u1fff",
    "hy": "\u0530-\u058f",
    "he": "\u0590-\u05ff",
    "en": "A-Za-z\u00c0-\u024f",
}
_SCRIPT_CHARACTERS = {language: re.compile(f"[{characters}]") for language, characters in _SCRIPTS.items()}
_SAMPLE_CHARS = 2000


def resolve_language(document_language: str | None, text: str, *, option: str) -> str:
    """Returns the language by whose rules a text is split.

    Args:
        document_language: What the dump or the record says, if anything.
        text: The document; its first 2,000 characters are looked at where nothing else tells.
        option: `--language`; "auto" to go by the document.
    """
    if option != "auto":
        return option
    if document_language:
        return document_language
    sample = text[:_SAMPLE_CHARS]
    if sample.isascii():
        return "en"
    counts = {language: len(pattern.findall(sample)) for language, pattern in _SCRIPT_CHARACTERS.items()}
    # Japanese is written with Chinese characters too, but never without Kana.
    if counts["ja"] > 0.1 * counts["zh"]:
        counts["ja"] += counts["zh"]
        counts["zh"] = 0
    return max(counts, key=lambda language: (counts[language], language == "en"))


def split_sentences(text: str, *, language: str) -> list[str]:
    r"""Splits text into sentences.

    Args:
        text: Paragraphs separated by "\n"; the end of one ends a sentence.
        language: Language code; one that sentencex does not know gets its general rules.

    Returns:
        Sentences in NFC, stripped, none of them empty.

    Raises:
        ConfigError: sentencex is not installed.
    """
    segment = _load_segment()
    sentences: list[str] = []
    for paragraph in normalize("NFC", text).split("\n"):
        pieces = segment(language, paragraph)
        if not paragraph.isascii() and _CJK_END.search(paragraph):
            pieces = [part for piece in pieces for part in _CJK_SENTENCE.split(piece)]
        begins = len(sentences)  # where the paragraph does, in sentences
        for piece in pieces:
            sentence = piece.strip()
            # Nearly all sentences begin with a capital and are longer, so that is asked first.
            if (
                len(sentence) > 4
                and sentence[0].isupper()
                and not (len(sentences) > begins and len(sentences[-1]) <= 4 and _ENUMERATOR.fullmatch(sentences[-1]))
            ):
                sentences.append(sentence)
            elif sentence and len(sentences) > begins and _belongs_together(sentences[-1], sentence):
                sentences[-1] = f"{sentences[-1]} {sentence}"
            elif sentence:
                sentences.append(sentence)
    return sentences


def _belongs_together(before: str, piece: str) -> bool:
    first = _FIRST_LETTER_OR_DIGIT.search(piece)
    return first is None or first[0].islower() or _ENUMERATOR.fullmatch(before) is not None


def _load_segment() -> Callable[[str, str], list[str]]:
    try:
        from sentencex import segment
    except ImportError as error:
        raise ConfigError('splitting sentences needs sentencex; install it: pip install "bertdata[build]"') from error
    return segment  # type: ignore[no-any-return]
