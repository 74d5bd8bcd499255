"""Elements and tags in wikitext: what stands in angle brackets, or between a pair of them."""

from __future__ import annotations

import re

from bertdata.characters import collapse_spaces
from bertdata.nesting import resolve_nested

__all__ = ["drop_elements", "drop_tags", "restore_brackets"]

# "<" that opens no tag is put aside, so that the expressions below need not look at it.
_OPENING = re.compile(r"<(?!/)([a-zA-Z]+|!--|)")
_LONE_BRACKET = re.compile(r"<(?![a-zA-Z/!])")
_LESS_THAN = "\ufdd0"
_COMMENT = re.compile(r"<!--[^-<]*(?:(?:-(?!->)|<(?!!--))[^-<]*)*-->")
_OPEN_COMMENT = re.compile(r"<!--[^\n]*")
_NOWIKI = re.compile(r"<nowiki>([^<]*(?:<(?!/?nowiki)[^<]*)*)</nowiki>", re.IGNORECASE)
_MARKUP_CHARACTER = re.compile(r"[\[\]{}'<>|=*#:;_&\n]")
# A reference ends at a blank line at the latest: an unclosed one would otherwise reach to the next one's end.
_REFERENCE = re.compile(
    r"<ref\b[^<>]*(?:(?<=/)>|(?<!/)>[^<\n]*(?:(?:<(?!/?ref\b)|\n(?!\n))[^<\n]*)*</ref\s*>)", re.IGNORECASE
)
_MATH_NAMES = ("math", "chem", "ce")
_MATH = re.compile(rf"<({'|'.join(_MATH_NAMES)})\b[^<>]*(?<!/)>([^<]*)</\1\s*>", re.IGNORECASE)
_CODE = re.compile(r"<code\b[^<>]*>([^<\n]{1,60})</code>", re.IGNORECASE)
_DROPPED_NAMES = (
    *("references", "gallery", "math", "chem", "ce", "score", "hiero", "timeline", "imagemap", "graph", "mapframe"),
    *("maplink", "templatedata", "code", "syntaxhighlight", "source", "pre", "inputbox", "categorytree", "indicator"),
    *("templatestyles", "includeonly", "table", "rt", "rp"),
)
_DROPPED = re.compile(
    rf"<({'|'.join(_DROPPED_NAMES)}|ref)\b"
    r"[^<>]*(?:(?<=/)>|(?<!/)>[^<]*(?:<(?!/?\1\b)[^<]*)*</\1\s*>)",
    re.IGNORECASE,
)
_OPEN_REFERENCE = re.compile(r"<ref\b[^\n]*", re.IGNORECASE)
_POWER = re.compile(r"<sup>(?<=\d<sup>)(?=[-−–+]?\d)", re.IGNORECASE)
_LIST_TAG = re.compile(r"<(?:li|dd|dt)\b[^<>]*>", re.IGNORECASE)
_BLOCK_TAG = re.compile(
    r"</?(?:p|div|blockquote|center|poem|h[1-6]|ul|ol|dl|li|dd|dt|hr|table|tr|td|th|caption|section|gallery)\b[^<>]*>",
    re.IGNORECASE,
)
_BREAK_TAG = re.compile(r"</?br\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:b|i|u|s|q|em|strong|small|big|sub|sup|span|font|tt|code|kbd|samp|var|cite|abbr|del|ins|strike|mark|dfn|time|data"
    r"|bdi|bdo|wbr|ruby|rb|rt|rp|nowiki|noinclude|includeonly|onlyinclude|translate|tvar|ref|references|math|pre|source"
    r"|syntaxhighlight|timeline|chem|ce|templatestyles|section|a|img|label|langconvert)\b[^<>]*>",
    re.IGNORECASE,
)


def drop_elements(text: str) -> str:
    """Drops comments, references, galleries, math, code and the like, with what is in them.

    What stays are <nowiki> text (as entities), a formula that can be written in a line, and a few words of code.

    Args:
        text: Wikitext.

    Returns:
        Wikitext in which each "<" that opens no tag is put aside; `restore_brackets` brings it back.
    """
    # A look at what there is: each substitution takes as long as this, and most pages need two or three of them.
    names = {name.lower() for name in set(_OPENING.findall(text))}
    if "" in names:
        text = _LONE_BRACKET.sub(_LESS_THAN, text)
    if "!--" in names:
        text = _COMMENT.sub("", text)
        if "<!--" in text:
            text = _OPEN_COMMENT.sub("", text)
    if "nowiki" in names:
        text = _NOWIKI.sub(_protect, text)
    if "ref" in names:
        text = _REFERENCE.sub("", text)
    if not names.isdisjoint(_MATH_NAMES):
        text = _MATH.sub(_keep_plain_math, text)
    if "code" in names:
        text = _CODE.sub(r"\1", text)
    has_references = "ref" in names and _OPEN_REFERENCE.search(text) is not None  # still: nested, or not closed
    if has_references or not names.isdisjoint(_DROPPED_NAMES):
        text = resolve_nested(text, _drop_innermost)
    return _OPEN_REFERENCE.sub("", text) if has_references else text


def _drop_innermost(text: str) -> str:
    return _DROPPED.sub("", text)


def drop_tags(text: str) -> str:
    """Drops the tags of all other elements; those that begin a block or a list item leave a line break behind."""
    text = _POWER.sub("^", text)
    text = _LIST_TAG.sub("\n* ", text)
    text = _BLOCK_TAG.sub("\n\n", text)
    return _TAG.sub("", _BREAK_TAG.sub(" ", text))


def restore_brackets(text: str) -> str:
    """Brings back what `drop_elements` put aside."""
    return text.replace(_LESS_THAN, "<")


def _protect(match: re.Match[str]) -> str:
    """Returns <nowiki> text as entities, so that nothing in it is taken for markup."""
    return _MARKUP_CHARACTER.sub(lambda character: f"&#{ord(character[0])};", match[1])


# ---- formulas --------------------------------------------------------------------------------------------------------

_TEX_COMMAND = re.compile(r"\\([a-zA-Z]+|[,;:! {}%])")
_TEX_BRACES = str.maketrans("", "", "{}")
_TEX_SYMBOLS = {"times": "×", "cdot": "·", "pm": "±", "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥"}
_TEX_SYMBOLS |= {"neq": "≠", "ne": "≠", "approx": "≈", "to": "→", "rightarrow": "→", "in": "∈", "infty": "∞"}
_TEX_SYMBOLS |= {"ldots": "...", "dots": "...", "%": "%"}
_TEX_SYMBOLS |= {"sin": "sin", "cos": "cos", "tan": "tan", "log": "log", "ln": "ln"}
_TEX_SYMBOLS |= dict.fromkeys([",", ";", ":", " ", "quad"], " ")
_TEX_SYMBOLS |= dict.fromkeys(["mathrm", "text", "textrm", "mathbf", "mathit", "mathbb", "mathcal", "operatorname"], "")
_TEX_SYMBOLS |= dict.fromkeys(["left", "right", "displaystyle", "scriptstyle", "rm", "bf", "!", "{", "}"], "")

_ALPHABET = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau"
_ALPHABET += " upsilon phi chi psi omega"
_GREEK = {name: chr(ord("α") + i) for i, name in enumerate(_ALPHABET.split())}
_GREEK |= {"digamma": "ϝ", "stigma": "ϛ", "koppa": "ϟ", "sampi": "ϡ"}
_TEX_SYMBOLS |= _GREEK | {name.capitalize(): letter.upper() for name, letter in _GREEK.items()}
_TEX_SYMBOLS |= {f"var{name}": _GREEK[name] for name in ("epsilon", "theta", "kappa", "pi", "rho", "phi")}


def _keep_plain_math(match: re.Match[str]) -> str:
    """Returns a short formula as text ("where <math>x_i</math> is 1" stays a sentence), nothing for others."""
    formula = _TEX_COMMAND.sub(lambda command: _TEX_SYMBOLS.get(command[1], command[0]), match[2])
    formula = collapse_spaces(formula.translate(_TEX_BRACES).replace("\n", " ")).strip()
    return formula if len(formula) <= 40 and "\\" not in formula else ""
