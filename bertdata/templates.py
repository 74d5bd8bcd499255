"""Templates that carry words of the sentence they stand in: what each leaves behind.

A template that is not in the table `_TEMPLATES`, at the end, leaves nothing. Most of its names are those of the English
Wikipedia.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from bertdata.links import hide_bars, label_links

__all__ = ["expand_template"]

Arguments = dict[str, str]  # "1", "2", ... and names
Rule = str | Callable[[Arguments], str]


def expand_template(content: str) -> str:
    """Returns the words that a template carries.

    Args:
        content: What stands between its braces, with no template inside.

    Returns:
        Wikitext; empty for a template without words of its own, such as an infobox. An equals sign in it comes as an
        entity, so that a template around this one does not take what is before it for the name of an argument.
    """
    return _expand(content).replace("=", "&#61;")


def _expand(content: str) -> str:
    name, _, rest = content.partition("|")
    name = name.strip().replace("_", " ").lower()
    rule = _TEMPLATES.get(name)
    if rule is None:
        if name.startswith("lang-"):
            rule = _first
        elif name.startswith(("script/", "font/")):
            rule = _last
        elif name.startswith("formatnum:"):
            return content.partition("|")[0].partition(":")[2].strip()
        else:
            return ""
    if isinstance(rule, str):
        return rule
    if "[[" in rest:
        rest = label_links(rest)
        if "[[" in rest:
            rest = hide_bars(rest)
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

_MONTH_NUMBER = re.compile(r"0?[1-9]|1[0-2]")


def _as_of(arguments: Arguments) -> str:
    values = _positional(arguments)
    month = values[1] if len(values) > 1 else ""
    if _MONTH_NUMBER.fullmatch(month):
        month = _MONTHS[int(month) - 1]
    day = values[2] if len(values) > 2 else ""
    opening = arguments.get("alt") or " ".join(filter(None, ["As of", day, month, *values[:1]]))
    return opening[:1].lower() + opening[1:] if arguments.get("lc", "")[:1] == "y" else opening


_NUMBER = re.compile(r"[-−–+]?[\d.,/+ ⁄]+(?:e[-−]?\d+)?")
_RANGES = {"-": "–", "–": "–", "to": " to ", "to(-)": " to ", "and": " and ", "and(-)": " and ", "or": " or "}
_RANGES |= {"by": " by ", "x": " × ", "×": " × ", "xx": " × ", "*": " × ", "+/-": " ± ", "±": " ± "}
_RANGES |= {"to about": " to about "}
_UNITS = {"sqmi": "sq mi", "sqkm": "km²", "km2": "km²", "m2": "m²", "cm2": "cm²", "mi2": "sq mi", "sqm": "m²"}
_UNITS |= {"sqft": "sq ft", "ft2": "sq ft", "cuft": "cu ft", "m3": "m³", "km3": "km³", "cm3": "cm³"}
_UNITS |= {"c": "°C", "f": "°F"}
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
        code = code[scale.end() :]
    unit = _UNITS.get(code.lower(), code)
    return f"{_SCALES[scale[1]]} {unit}" if scale else unit


_SCALE = re.compile(r"e([369])(?=\D)")
_SCALES = {"3": "thousand", "6": "million", "9": "billion"}


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
