"""Wikitext to plain text, by regular expressions over the whole page.

Nested markup is resolved from the inside out: each expression matches only what has no opening of its own kind
inside, and is applied until nothing changes, a bounded number of times. So an expression never runs past the next
opening: the time is linear in the page, and what is left unclosed takes its line with it at most, not the rest of the
page.

Templates are dropped, but for those in `_TEMPLATES`, which carry words of the sentence they stand in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import unescape
from unicodedata import lookup, normalize

__all__ = ["MEDIA_NAMESPACES", "clean_characters", "clean_wikitext"]

MEDIA_NAMESPACES = (6, 14)  # File and Category: links into them show a picture, or nothing

_MAX_DEPTH = 8  # of nested templates, tables and links; what is deeper is cut out line by line

# Their names in the larger wikis, for dumps whose header does not tell. A dump's own names are added.
_MEDIA_NAMES = (
    *("File", "Image", "Category", "Datei", "Bild", "Kategorie", "Fichier", "Catégorie", "Archivo", "Imagen"),
    *("Categoría", "Immagine", "Categoria", "Ficheiro", "Imagem", "Bestand", "Afbeelding", "Categorie", "Plik"),
    *("Grafika", "Kategoria", "Файл", "Изображение", "Категория", "Зображення", "Категорія", "Fil", "Kategori"),
    *("Tiedosto", "Kuva", "Luokka", "Soubor", "Fájl", "Kép", "Kategória", "Dosya", "Resim", "Hình", "Fitxer"),
    *("Imatge", "Berkas", "Gambar", "Fișier", "Αρχείο", "Εικόνα", "Κατηγορία", "Датотека", "Слика"),
    *(
        "Категорија",
        "文件",
        "檔案",
        "图像",
        "圖像",
        "分类",
        "分類",
        "ファイル",
        "画像",
        "カテゴリ",
        "파일",
        "그림",
        "분류",
        "ملف",
        "صورة",
    ),
    *("تصنيف", "پرونده", "رده", "קובץ", "תמונה", "קטגוריה", "चित्र", "श्रेणी", "Tập tin", "Thể loại"),
)


def clean_wikitext(text: str, *, media_names: Sequence[str] = ()) -> str:
    r"""Returns the prose of a page.

    Out go templates (but those that carry words), tables, references, comments, galleries, math, code, pictures with
    their captions, categories, magic words and headings. Link labels stay. A list item stays if it is a sentence: it
    ends with terminal punctuation, has at least five words, and at least half of its words are in lower case (so that
    an entry of a bibliography is none).

    Args:
        text: Wikitext, unescaped once, as an XML parser gives it.
        media_names: Names of the File and Category namespaces in the wiki's own language.

    Returns:
        Paragraphs separated by "\n"; not yet in NFC.
    """
    text = f"\n{text}\n"
    if "<" in text:
        text = _drop_elements(text)
    text = _resolve_templates(text)
    if "<" in text:
        text = _drop_tags(text)
    if "__" in text:
        text = _MAGIC_WORD.sub("", text)
    text = _EXTERNAL_LINK_ITEM.sub("\n", text)
    text = _resolve_links(text, _media_prefixes(tuple(media_names)))
    text = _resolve_quotes(text)
    text = _HEADING.sub("\n\n", text)
    text = _TABLE_ROW.sub("", text)
    text = _LIST_ITEM.sub(_keep_sentence, text)
    if "&" in text:
        text = _ENTITY.sub(_unescape, _ENTITY.sub(_unescape, text))
    return _tidy(clean_characters(text.replace(_LESS_THAN, "<")))


# ---- characters ------------------------------------------------------------------------------------------------------

# Soft hyphen, zero-width space, marks of direction; not the (non-)joiners, which Persian and Indic spelling needs.
_INVISIBLE_OR_SPACE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\xa0\xad\u1680\u2000-\u200b\u200e\u200f\u202a-\u202f\u205f-\u2064\u2066-\u2069\u3000\ufeff"
    "\ufffe\uffff]"
)


def clean_characters(text: str) -> str:
    r"""Returns NFC text without invisible and control characters, each kind of space as " ", each line end as "\n"."""
    for line_end in ("\r\n", "\r", "\x85", "\u2028", "\u2029"):
        if line_end in text:
            text = text.replace(line_end, "\n")
    return normalize("NFC", _INVISIBLE_OR_SPACE.sub(_space_or_nothing, text))


def _space_or_nothing(match: re.Match[str]) -> str:
    return " " if match[0].isspace() else ""


# Escaped characters count as text, so they are unescaped last; &amp;nbsp; is found in dumps.
_ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,30}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")


def _unescape(match: re.Match[str]) -> str:
    return unescape(match[0])


_EMPTY_BRACKETS = re.compile(r"\([ ,;:]*\)")
_BRACKET_START = re.compile(r"\([ ,;:]+")
_DOUBLED_COMMA = (",,", ",;", ";,", ";;", ",)", ";)")
_SPACE_BEFORE = (" ,", " ;", " )", " . ", " .\n", " : ", " :\n")
_SPACES = re.compile(r"  +")
_SOFT_BREAK = re.compile(r"\n(?<!\n\n)(?!\n)")
_BREAKS = re.compile(r"\n\n+")
# Short lines that are no sentence, mostly headings made of bold type; and lines without a letter.
_STUMP = re.compile(r"\n(?:[^\n]{1,24}(?<![.:!?…。！？।؟።\"'”’»)])|[^\s]{1,24}:|[^\w\n]+)(?=\n)")


def _tidy(text: str) -> str:
    """Mends what the removals left: empty brackets, spaces before punctuation, blank lines, stumps of lines."""
    text = _EMPTY_BRACKETS.sub("", text)
    text = _BRACKET_START.sub("(", text)
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    text = _SOFT_BREAK.sub(" ", text)
    for space_before in _SPACE_BEFORE:
        text = text.replace(space_before, space_before[1:])
    for doubled in _DOUBLED_COMMA:
        text = text.replace(doubled, doubled[1:])
    text = _BREAKS.sub("\n", text)
    return _STUMP.sub("", f"\n{text.strip()}\n").strip()


# ---- elements --------------------------------------------------------------------------------------------------------

# "<" that opens no tag is put aside, so that the expressions below need not look at it.
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
_MATH = re.compile(r"<(math|chem|ce)\b[^<>]*(?<!/)>([^<]*)</\1\s*>", re.IGNORECASE)
_TEX_COMMAND = re.compile(r"\\([a-zA-Z]+|[,;:! {}%])")
_TEX_BRACES = str.maketrans("", "", "{}")
_TEX_SYMBOLS = {
    "times": "×",
    "cdot": "·",
    "pm": "±",
    "leq": "≤",
    "le": "≤",
    "geq": "≥",
    "ge": "≥",
    "neq": "≠",
    "ne": "≠",
}
_TEX_SYMBOLS |= {
    "approx": "≈",
    "to": "→",
    "rightarrow": "→",
    "in": "∈",
    "infty": "∞",
    "ldots": "...",
    "dots": "...",
    "%": "%",
}
_TEX_SYMBOLS |= dict.fromkeys(["mathrm", "text", "textrm", "mathbf", "mathit", "mathbb", "mathcal", "operatorname"], "")
_TEX_SYMBOLS |= dict.fromkeys(["left", "right", "displaystyle", "scriptstyle", "rm", "bf", "!", "{", "}"], "")
_TEX_SYMBOLS |= dict.fromkeys([",", ";", ":", " ", "quad"], " ") | {
    name: name for name in ("sin", "cos", "tan", "log", "ln")
}
_CODE = re.compile(r"<code\b[^<>]*>([^<\n]{1,60})</code>", re.IGNORECASE)
_DROPPED = re.compile(
    r"<(references|gallery|math|chem|ce|score|hiero|timeline|imagemap|graph|mapframe|maplink|templatedata|code"
    r"|syntaxhighlight|source|pre|inputbox|categorytree|indicator|templatestyles|includeonly|table|rt|rp|ref)\b"
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
    r"|syntaxhighlight|timeline|chem|ce|includeonly|templatestyles|section|onlyinclude|a|img|label|langconvert)\b[^<>]*>",
    re.IGNORECASE,
)


def _drop_elements(text: str) -> str:
    text = _LONE_BRACKET.sub(_LESS_THAN, text)
    text = _OPEN_COMMENT.sub("", _COMMENT.sub("", text))
    text = _NOWIKI.sub(_protect, text)
    text = _REFERENCE.sub("", text)
    text = _MATH.sub(_keep_plain_math, text)
    text = _CODE.sub(r"\1", text)
    for _ in range(_MAX_DEPTH):
        text, num_dropped = _DROPPED.subn("", text)
        if not num_dropped:
            break
    return _OPEN_REFERENCE.sub("", text)


def _protect(match: re.Match[str]) -> str:
    """Returns <nowiki> text as entities, so that nothing in it is taken for markup."""
    return _MARKUP_CHARACTER.sub(lambda character: f"&#{ord(character[0])};", match[1])


def _keep_plain_math(match: re.Match[str]) -> str:
    """Returns a short formula as text ("where <math>x_i</math> is 1" stays a sentence), nothing for others."""
    formula = _TEX_COMMAND.sub(_spell_command, match[2])
    formula = _SPACES.sub(" ", formula.translate(_TEX_BRACES).replace("\n", " ")).strip()
    return formula if len(formula) <= 40 and "\\" not in formula else ""


def _spell_command(match: re.Match[str]) -> str:
    name = match[1]
    if name in _TEX_SYMBOLS:
        return _TEX_SYMBOLS[name]
    try:
        return lookup(f"GREEK {'SMALL' if name[0].islower() else 'CAPITAL'} LETTER {name.upper().removeprefix('VAR')}")
    except KeyError:
        return match[0]


def _drop_tags(text: str) -> str:
    text = _POWER.sub("^", text)
    text = _LIST_TAG.sub("\n* ", text)
    text = _BLOCK_TAG.sub("\n\n", text)
    return _TAG.sub("", _BREAK_TAG.sub(" ", text))


# ---- templates and tables --------------------------------------------------------------------------------------------

_TEMPLATE = re.compile(r"\{\{([^{}]*(?:(?:\{(?!\{)|\}(?!\}))[^{}]*)*)\}\}")
_PARAMETER = re.compile(r"\{\{\{[^{}]*\}\}\}")
_OPEN_TEMPLATE = re.compile(r"\{\{[^\n]*")
_TABLE = re.compile(r"\n[ \t:*#]*\{\|[^\n]*(?:\n(?![ \t:*#]*(?:\{\||\|\}))[^\n]*)*\n[ \t:*#]*\|\}")
_OPEN_TABLE = re.compile(r"\n[ \t:*#]*\{\|[^\n]*")
_VARIANT = re.compile(r"-\{([^{}\n]*)\}-")

Arguments = dict[str, str]  # "1", "2", ... and names


def _resolve_templates(text: str) -> str:
    if "-{" in text:
        text = _VARIANT.sub(_choose_variant, text)
    for _ in range(_MAX_DEPTH):
        before = len(text)
        if "{{" in text:
            if "{{{" in text:
                text = _PARAMETER.sub("", text)
            text = _TEMPLATE.sub(_expand_template, text)
        if "{|" in text:
            text = _TABLE.sub("\n", text)
        if len(text) == before:
            break
    if "{{" in text:
        text = _OPEN_TEMPLATE.sub("", text)
    if "{|" in text:
        text = _OPEN_TABLE.sub("\n", text)
    return text.replace("}}", "")


def _choose_variant(match: re.Match[str]) -> str:
    """Returns the first of -{zh-hans:...; zh-hant:...}-, which Chinese and Serbian convert between."""
    flag, bar, rest = match[1].partition("|")
    if bar and flag.strip() not in ("A", "R", ""):
        return ""
    first = (rest if bar else flag).partition(";")[0]
    return first.rpartition(":")[2]


def _expand_template(match: re.Match[str]) -> str:
    content = match[1]
    name, _, rest = content.partition("|")
    name = name.strip().replace("_", " ").lower()
    rule = _TEMPLATES.get(name)
    if rule is None:
        if name.startswith("lang-"):
            rule = _first
        elif name.startswith(("script/", "font/")):
            rule = _last
        elif name.startswith("formatnum:"):
            return name.removeprefix("formatnum:").strip()
        else:
            return ""
    if isinstance(rule, str):
        return rule
    if "[[" in rest:
        rest = _label_links(rest)
    arguments: Arguments = {}
    position = 0
    for argument in rest.split("|"):
        key, equals, value = argument.partition("=")
        if equals:
            arguments[key.strip().lower()] = value.strip()
        else:
            position += 1
            arguments[str(position)] = argument.strip()
    return rule(arguments)


def _positional(arguments: Arguments) -> list[str]:
    values: list[str] = []
    while (value := arguments.get(str(len(values) + 1))) is not None:
        values.append(value)
    return values


def _first(arguments: Arguments) -> str:
    return arguments.get("1", "")


def _second(arguments: Arguments) -> str:
    return arguments.get("2") or arguments.get("text", "")


def _third(arguments: Arguments) -> str:
    return arguments.get("3") or arguments.get("2", "")


def _last(arguments: Arguments) -> str:
    return (_positional(arguments) or [""])[-1]


def _joined(arguments: Arguments) -> str:
    return "".join(_positional(arguments))


def _spaced(arguments: Arguments) -> str:
    return " ".join(filter(None, _positional(arguments)))


def _first_given(arguments: Arguments) -> str:
    return next(filter(None, _positional(arguments)), "")


def _quotation(arguments: Arguments) -> str:
    quoted = arguments.get("text") or arguments.get("quote") or arguments.get("content") or arguments.get("1", "")
    return f"\n\n{quoted}\n\n"


def _fraction(arguments: Arguments) -> str:
    values = _positional(arguments)
    if len(values) < 2:
        return f"1/{_first(arguments)}"
    return " ".join([*values[:-2], "/".join(values[-2:])])


def _value(arguments: Arguments) -> str:
    number = _first(arguments) + (f"×10^{arguments['e']}" if "e" in arguments else "")
    unit = arguments.get("u") or arguments.get("ul") or ""
    return f"{number} {unit}".strip()


def _ship(arguments: Arguments) -> str:
    """{{ship|prefix|name|number}}."""
    values = _positional(arguments)
    return " ".join(filter(None, values[:2])) + (f" ({values[2]})" if len(values) > 2 and values[2] else "")


def _ship_of(prefix: str) -> Callable[[Arguments], str]:
    return lambda arguments: _ship({"1": prefix, **{str(i + 2): v for i, v in enumerate(_positional(arguments))}})


def _money_in(sign: str) -> Callable[[Arguments], str]:
    return lambda arguments: sign + _first(arguments)


def _circa(arguments: Arguments) -> str:
    return f"c. {_first(arguments)}".strip()


_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def _as_of(arguments: Arguments) -> str:
    values = _positional(arguments)
    month = values[1] if len(values) > 1 else ""
    month = _MONTHS[int(month) - 1] if month.isdecimal() and 1 <= int(month) <= 12 else month
    day = values[2] if len(values) > 2 else ""
    opening = arguments.get("alt") or " ".join(filter(None, ["As of", day, month, *values[:1]]))
    return opening[:1].lower() + opening[1:] if arguments.get("lc", "")[:1] == "y" else opening


_NUMBER = re.compile(r"[-−–+]?[\d.,/+ ⁄]+(?:e[-−]?\d+)?")
_RANGES = {
    "-": "–",
    "–": "–",
    "to": " to ",
    "to(-)": " to ",
    "and": " and ",
    "and(-)": " and ",
    "or": " or ",
    "by": " by ",
}
_RANGES |= {"x": " × ", "×": " × ", "xx": " × ", "*": " × ", "+/-": " ± ", "±": " ± ", "to about": " to about "}
_UNITS = {"sqmi": "sq mi", "sqkm": "km²", "km2": "km²", "m2": "m²", "cm2": "cm²", "mi2": "sq mi", "sqm": "m²"}
_UNITS |= {
    "sqft": "sq ft",
    "ft2": "sq ft",
    "cuft": "cu ft",
    "m3": "m³",
    "km3": "km³",
    "cm3": "cm³",
    "c": "°C",
    "f": "°F",
}
_UNITS |= {"kph": "km/h", "impgal": "gallons", "usgal": "gallons", "foot": "feet", "acre": "acres", "deg": "°"}


def _convert(arguments: Arguments) -> str:
    """{{convert|5|-|7|km|mi}} becomes "5–7 km": the quantity as the writer gave it, without the conversion."""
    words, number = "", ""
    for value in _positional(arguments):
        if _NUMBER.fullmatch(value) and not number:
            number = value
        elif value in _RANGES and number:
            words += number + _RANGES[value]
            number = ""
        elif number:
            words += f"{number} {_unit(value)} "
            number = ""
        else:
            break
    return words.rstrip()  # a number without a unit behind it is the precision


def _unit(code: str) -> str:
    scale = _SCALE.match(code)
    if scale:
        return f"{_SCALES[scale[1]]} {_unit(code[scale.end() :])}"
    return _UNITS.get(code.lower(), code)


_SCALE = re.compile(r"e([369])(?=\D)")
_SCALES = {"3": "thousand", "6": "million", "9": "billion"}


Rule = str | Callable[[Arguments], str]


def _table(rules: dict[str, Rule]) -> dict[str, Rule]:
    return {name: rule for names, rule in rules.items() for name in names.split(", ")}


# What a template leaves behind, by its names in lower case.
_TEMPLATES: dict[str, Rule] = _table(
    {
        "lang, langx, rtl-lang, native name, script, sort": _second,
        "color, colour, font color, fontcolor, audio, rquote": _second,
        "resize, font, background color, bg, transl, transliteration, tlit, translit, text color": _last,
        "nowrap, nobr, nobreak, no wrap, small, smaller, big": _first,
        "larger, large, abbr, abbrlink, tooltip, hover, hint": _first,
        "code, tt, mono, em, strong, smallcaps, sc": _first,
        "small caps, aut, visible anchor, vanchor, term, defn, sup, sub": _first,
        "ill, illm, interlanguage link, interlanguage link multi, link-interwiki": _first,
        "w, math, mvar, var, angbr": _first,
        "iast, unicode, polytonic, vr, angle bracket, hebrew, ce": _first,
        "chem2, pie, cuneiform, flag, flagcountry, flagu, sic, avoid wrap": _first,
        "by, nfly, mlby, nhly, nbay, keypress": _first,
        "crossreference, midsize, u, underline, strikethrough, nihongo2": _first,
        "wikt-lang, quote inline, bold, italic, italics": _last,
        "not a typo, typo, notatypo, proper name, as written": _last,
        "linktext, chem, gaps, okina text, uc, lc, lcfirst, ucfirst": _joined,
        "bibleverse, bibleref, bibleref2, bibleverse-nb, sortname": _spaced,
        "date, date-, unité, nombre, unidad, fmtn": _spaced,
        "nihongo, nihongo krt, korean name": _first_given,
        "nihongo3": _third,
        "quote, quotation, blockquote, bq, cquote": _quotation,
        "quote frame, poemquote, poem quote, quoteblock, zitat, citation bloc": _quotation,
        "frac, fraction, sfrac": _fraction,
        "convert, cvt": _convert,
        "val": _value,
        "as of": _as_of,
        "circa, c., ca., c, ca": _circa,
        "ship": _ship,
        "uss": _ship_of("USS"),
        "hms": _ship_of("HMS"),
        "hmas": _ship_of("HMAS"),
        "hmcs": _ship_of("HMCS"),
        "ss": _ship_of("SS"),
        "rms": _ship_of("RMS"),
        "sms": _ship_of("SMS"),
        "us$, usd": _money_in("US$"),
        "gbp, £": _money_in("£"),
        "euro, eur, €": _money_in("€"),
        "inr, indian rupee": _money_in("₹"),
        "e": lambda arguments: f"×10^{_first(arguments)}",
        "mv": _ship_of("MV"),
        "ndash, en dash, –": "–",
        "mdash, mdashb, em dash, —": "—",
        "snd, snds, spnd, spaced ndash, spaced en dash, dash": " – ",
        "nbsp, space, spaces, thinsp, thin space, ·, dot, bullet, •": " ",
        "'": "'",
        "' \"": "' \"",
        "\" '": "\" '",
        "'s": "'s",
        "=": "=",
        '-"': '"',
        "eqm": "⇌",
        "okina": "ʻ",
        "hamza": "ʼ",
        "pi": "π",
    }
)


# ---- links -----------------------------------------------------------------------------------------------------------

# Split at a link with its label captured and joined again: a substitution without a call per link.
_LINK = re.compile(r"\[\[(?:([^\[\]|\n:]*)|[^\[\]|\n:]*\|([^\[\]\n]*))\]\]")
_PREFIXED_LINK = re.compile(
    r"\[\[[ \t]*([^\[\]|\n:]*?)[ \t]*:([^\[\]\n]*(?:(?:\[(?!\[)|\](?!\])|\n(?!\n))[^\[\]\n]*)*)\]\]"
)
_OPEN_PREFIXED_LINK = re.compile(r"\[\[[ \t]*([^\[\]|\n:]*?)[ \t]*:[^\n]*")
_BRACKETED_LINK = re.compile(r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]\n]*(?:(?:\[(?!\[)|\](?!\]))[^\[\]\n]*)*)\]\]")
_EXTERNAL_LINK = re.compile(r"\[(?:(?:https?:|ftps?:|irc:|news:|gopher:)?//|mailto:)[^\s\[\]]*[ \t]*([^\[\]\n]*)\]")
_SISTER_PROJECTS = {
    *("w", "wikipedia", "wikt", "wiktionary", "s", "wikisource", "q", "wikiquote", "b", "wikibooks", "n", "wikinews"),
    *("v", "wikiversity", "voy", "wikivoyage", "c", "commons", "d", "wikidata", "species", "m", "meta", "mw"),
}
_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*|simple")
_NOT_A_LANGUAGE = {"doi", "rfc", "hdl", "wmf"} | _SISTER_PROJECTS


@lru_cache(maxsize=16)
def _media_prefixes(media_names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.lower() for name in (*_MEDIA_NAMES, *media_names))


def _label_links(text: str) -> str:
    return "".join(filter(None, _LINK.split(text)))


def _resolve_links(text: str, media_prefixes: frozenset[str]) -> str:
    def expand(match: re.Match[str]) -> str:
        prefix, rest = match[1].lower(), match[2]
        if prefix in media_prefixes:
            return ""
        target, bar, label = rest.partition("|")
        if bar:
            return label
        if _LANGUAGE_CODE.fullmatch(prefix) and prefix not in _NOT_A_LANGUAGE:
            return ""
        return target if not prefix or prefix in _SISTER_PROJECTS else f"{match[1]}:{target}"

    for _ in range(_MAX_DEPTH):
        before = len(text)
        if "[[" in text:
            text = _PREFIXED_LINK.sub(expand, _label_links(text))
        if len(text) == before:
            break
    if "[[" in text:
        text = _OPEN_PREFIXED_LINK.sub(lambda m: "" if m[1].lower() in media_prefixes else m[0], text)
        text = _BRACKETED_LINK.sub(r"\1", text)
        text = text.replace("[[", "")
    text = text.replace("]]", "")
    return "".join(_EXTERNAL_LINK.split(text))


# ---- lines -----------------------------------------------------------------------------------------------------------

_MAGIC_WORD = re.compile(r"__[^\Wa-z_]+(?:_[^\Wa-z_]+)*__")
_QUOTES = re.compile("'''''|'''|''")
_ITALIC_POSSESSIVE = re.compile(r"(?<!')''([^'\n]+)'''s\b")
_HEADING = re.compile(r"\n=[^\n]*=[ \t]*(?=\n)|\n----+")
_TABLE_ROW = re.compile(r"\n[ \t]*[|!][^\n]*")
_LIST_ITEM = re.compile(r"\n[*#:;]+[ \t]*([^\n]*)")
_SENTENCE_ENDS = tuple(end + close for end in ".!?…。！？।؟።" for close in ("", *"\"'”’»)]"))
_CITATION = re.compile(r"\bISBN\b|\bpp\. ?\d|\(\d{4}[a-z]?\)[.,:]|University Press")
_EXTERNAL_LINK_ITEM = re.compile(r"\n[*#:;]+[ \t'\"]*\[(?:https?:)?//[^\n]*")
_WORD = re.compile(r"[^\W\d_]+")


def _resolve_quotes(text: str) -> str:
    if "'''s" in text:
        text = _ITALIC_POSSESSIVE.sub(r"\1's", text)
    return _QUOTES.sub("", text)


def _keep_sentence(match: re.Match[str]) -> str:
    item = match[1].rstrip()
    if not item.endswith(_SENTENCE_ENDS) or item.startswith(("–", "—", "-", ",", ";", ":")) or _CITATION.search(item):
        return "\n"
    words = _WORD.findall(item)
    num_cased = sum(word != word.lower() for word in words)
    long_enough = len(words) >= 5 or (len(item) >= 10 and not item.isascii() and "。" in item)
    return f"\n\n{item}\n\n" if long_enough and 2 * num_cased <= len(words) else "\n"
