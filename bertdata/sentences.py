"""Text to sentences: `sentencex`, and rules on top that mend its most frequent faults.

- A sentence ends after 。！？ unless a closing quote or bracket follows (sentencex goes on where a digit follows).
- A sentence ends inside a quotation too (sentencex takes the whole quotation, half a page of a novel, as part of one).
- A piece that begins with a lower-case letter or a comma, or has no letter or digit, belongs to the sentence before
  (sentencex breaks after abbreviations that it does not know), and an enumerator ("2.") to the sentence after it.
- In Cyrillic script, initials and some abbreviations do not end a sentence; others do where a new one plainly begins.
- Some abbreviations ("vol.", "p.") do not end a sentence before a number, nor does the point within one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from unicodedata import normalize

import numpy as np

from bertdata.documents import Document
from bertdata.errors import ConfigError

__all__ = ["has_letter", "resolve_language", "sentences_of", "split_sentences"]

_QUOTATION_MARKS = '"“”„«»_'  # the last one is for italics, in plain text of books
# No apostrophe: before a word, or after a mark of punctuation. The mark comes first, since that is searched fast.
_SINGLE_QUOTATION_MARK = re.compile(r"['‘’](?:(?<!\w.)(?=\w)|(?<=[^\w\s].))")
_CLOSING = re.compile(r"[.!?…\"“”„«»_'’)\]]*")
_CJK_SENTENCE = re.compile("(?<=[。！？])(?![。！？」』”’）)\\]】》〉…\"'])")
_CJK_END = re.compile("[。！？]")
_ENUMERATOR = re.compile(r"\(?(?:\d{1,2}|[A-Za-z])[.)]")
_ENUMERATOR_CHARS = 4  # at most
_DECIMAL_POINT = re.compile(r"\d[.．]$")
_FIRST_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_BEFORE_NUMBER = re.compile(r"(?:^|[\s(])(?:vol|pp?|no|ca|fig|род|ум|ок|рис|табл|стр)\.$", re.IGNORECASE)
_CYRILLIC_LANGUAGES = frozenset({"be", "bg", "kk", "ky", "mk", "mn", "ru", "sr", "tg", "tt", "uk"})
_CYRILLIC_UNFINISHED = re.compile(
    # An initial, or a name cut to two letters that is not the sentence's first word and no short word of its own ...
    r"(?<![^\W_])(?:[А-ЯЁІЇЄЂЈЉЊЋЏ]|(?<=[\w,] )(?!(?:Да|Но|Он|Ты|Мы|Вы|Ви|Ну|Не|Их|Ей|Те|Аз|Ти|То)\.)[А-Я][а-я])\.$"
    # ... or an abbreviation that needs what follows.
    r"|(?:^|[\s(„“«])(?:[Сс]м|св|[Нн]апр|т\. ?е|сл)\.$"
)
_CYRILLIC_END = re.compile(
    # A year, a century or "and others", before a word that begins sentences.
    r"(?:[\dIVXІ] ?(?:гг?|вв?)|\bн\. ?э)\. "
    r"(?=(?:В|Во|На|С|По|Он|Она|Они|Его|Её|Ее|Это|После|През|След|От|За|Той|Тя|Те|Това|И|Но|А|До|При) )"
    r"|\bи (?:др|пр|т\. ?[дпн])\. (?=[А-Я])"
)

# Scripts that tell the language well enough to split sentences; the first language named is the most written one.
_SCRIPTS = {
    "ko": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)),
    "ja": ((0x3040, 0x30FF),),
    "zh": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),
    "ru": ((0x0400, 0x052F),),
    "ar": ((0x0600, 0x06FF), (0x0750, 0x077F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE)),
    "hi": ((0x0900, 0x097F),),
    "bn": ((0x0980, 0x09FF),),
    "pa": ((0x0A00, 0x0A7F),),
    "gu": ((0x0A80, 0x0AFF),),
    "or": ((0x0B00, 0x0B7F),),
    "ta": ((0x0B80, 0x0BFF),),
    "te": ((0x0C00, 0x0C7F),),
    "kn": ((0x0C80, 0x0CFF),),
    "ml": ((0x0D00, 0x0D7F),),
    "si": ((0x0D80, 0x0DFF),),
    "th": ((0x0E00, 0x0E7F),),
    "lo": ((0x0E80, 0x0EFF),),
    "my": ((0x1000, 0x109F),),
    "ka": ((0x10A0, 0x10FF),),
    "am": ((0x1200, 0x137F),),
    "km": ((0x1780, 0x17FF),),
    "el": ((0x0370, 0x03FF), (0x1F00, 0x1FFF)),
    "hy": ((0x0530, 0x058F),),
    "he": ((0x0590, 0x05FF),),
    "en": ((0x0041, 0x005A), (0x0061, 0x007A), (0x00C0, 0x024F)),
}
_LANGUAGES = ("", *_SCRIPTS)
_LANGUAGE_OF_CODE = np.zeros(1 << 16, dtype=np.uint8)  # place in _LANGUAGES
for _number, _ranges in enumerate(_SCRIPTS.values(), start=1):
    for _first, _last in _ranges:
        _LANGUAGE_OF_CODE[_first : _last + 1] = _number
_SAMPLE_CHARS = 2000


def has_letter(text: str) -> bool:
    """Returns whether there is a letter of any script in a text."""
    return text[:1].isalpha() or any(map(str.isalpha, text))


def sentences_of(document: Document, *, option: str) -> tuple[str, list[str], int]:
    """Returns the sentences of a document from which samples are made; those without a letter are left out.

    Args:
        document: The document.
        option: `--language`.

    Returns:
        Its language, its sentences, and how many were left out.
    """
    language = resolve_language(document.language, document.text, option=option)
    sentences = document.sentences or split_sentences(document.text, language=language)
    kept = [sentence for sentence in sentences if has_letter(sentence)]
    return language, kept, len(sentences) - len(kept)


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
    codes = np.frombuffer(sample.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    found = np.bincount(_LANGUAGE_OF_CODE[codes[codes < 1 << 16]], minlength=len(_LANGUAGES)).tolist()
    counts = dict(zip(_LANGUAGES[1:], found[1:], strict=True))
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
    is_cyrillic = language.split("-")[0] in _CYRILLIC_LANGUAGES
    sentences: list[str] = []
    # One paragraph at a time: a copy of a whole text of 60 MB with one character of four bytes takes 240 MB.
    for part in text.split("\n"):
        if not part:
            continue
        paragraph = normalize("NFC", part)
        bare = _without_quotation_marks(paragraph)
        pieces = segment(language, bare)
        if bare != paragraph:
            pieces = _cut_alike(paragraph, pieces)
        if not paragraph.isascii():
            if is_cyrillic:
                pieces = [part for piece in pieces for part in _CYRILLIC_END.sub("\\g<0>\n", piece).split("\n")]
            if _CJK_END.search(paragraph):
                pieces = [part for piece in pieces for part in _CJK_SENTENCE.split(piece)]
        begins = len(sentences)  # where the paragraph does, in sentences
        before = " "
        for piece in pieces:
            sentence = piece.strip()
            if not sentence:
                before = " "
                continue
            # Nearly all sentences begin with a capital after one that is no enumerator, so that is asked first.
            is_plain = (
                sentence[0].isupper() and not is_cyrillic and sentences and len(sentences[-1]) > _ENUMERATOR_CHARS
            )
            if len(sentences) == begins or is_plain:
                sentences.append(sentence)
            else:
                is_spaced = before[-1].isspace() or piece[0].isspace()
                if _belongs_together(sentences[-1], sentence, is_spaced=is_spaced, is_cyrillic=is_cyrillic):
                    sentences[-1] += f" {sentence}" if is_spaced else sentence
                else:
                    sentences.append(sentence)
            before = piece
    return sentences


def _without_quotation_marks(text: str) -> str:
    """Returns text of the same length with spaces for quotation marks."""
    for mark in _QUOTATION_MARKS:
        text = text.replace(mark, " ")
    return _SINGLE_QUOTATION_MARK.sub(" ", text) if "'" in text or "’" in text else text


def _cut_alike(paragraph: str, bare_pieces: list[str]) -> list[str]:
    """Cuts a paragraph where it was cut without its quotation marks; those that close a piece go with it."""
    pieces = []
    start = position = 0
    for piece in bare_pieces:
        stop = position + len(piece.rstrip())
        position += len(piece)
        if stop <= start or piece.isspace():
            continue
        if paragraph[stop : stop + 1] != " ":
            closing = _CLOSING.match(paragraph, stop)
            stop = closing.end() if closing else stop
        pieces.append(paragraph[start:stop])
        start = stop
    return [*pieces, paragraph[start:]] if start < len(paragraph) else pieces


def _belongs_together(before: str, piece: str, *, is_spaced: bool, is_cyrillic: bool) -> bool:
    if _ENUMERATOR.fullmatch(before) is not None:
        return True
    if is_cyrillic and (_CYRILLIC_UNFINISHED.search(before[-8:]) is not None or piece.startswith("Хр.")):
        return True
    if piece[0].isupper():
        return False
    first = _FIRST_LETTER_OR_DIGIT.search(piece)
    return (
        first is None
        or first[0].islower()
        or piece[0] in ",;:)"
        or (piece[0].isdigit() and (_BEFORE_NUMBER.search(before[-8:]) is not None))
        or (not is_spaced and piece[0].isdigit() and _DECIMAL_POINT.search(before[-2:]) is not None)
    )


def _load_segment() -> Callable[[str, str], list[str]]:
    try:
        from sentencex import segment
    except ImportError as error:
        raise ConfigError('splitting sentences needs sentencex; install it: pip install "bertdata[build]"') from error
    return segment  # type: ignore[no-any-return]
