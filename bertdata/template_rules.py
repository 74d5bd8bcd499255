"""What templates leave behind: a rule takes the arguments of one and returns its words.

Which template has which rule is told in `bertdata.templates`. Rules that make others (`ship_of("HMS")`) come last in
each section.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["Arguments", "Rule"]

Arguments = dict[str, str]  # "1", "2", ... and names
Rule = str | Callable[[Arguments], str]


# ---- one or more of the arguments as they are ------------------------------------------------------------------------


def positional(arguments: Arguments) -> list[str]:
    values: list[str] = []
    while (value := arguments.get(str(len(values) + 1))) is not None:
        values.append(value)
    return values


def first(arguments: Arguments) -> str:
    return arguments.get("1", "")


def first_or_text(arguments: Arguments) -> str:
    return arguments.get("1") or arguments.get("text", "")


def second(arguments: Arguments) -> str:
    return arguments.get("2") or arguments.get("text") or arguments.get("texte", "")


def second_or_first(arguments: Arguments) -> str:
    return arguments.get("2") or arguments.get("1", "")


def third(arguments: Arguments) -> str:
    return arguments.get("3") or arguments.get("2", "")


def third_or_first(arguments: Arguments) -> str:
    return arguments.get("3") or arguments.get("1", "")


def last(arguments: Arguments) -> str:
    return (positional(arguments) or [""])[-1]


def joined(arguments: Arguments) -> str:
    return "".join(positional(arguments))


def spaced(arguments: Arguments) -> str:
    return " ".join(filter(None, positional(arguments)))


def hyphened(arguments: Arguments) -> str:
    return "-".join(filter(None, positional(arguments)))


def first_given(arguments: Arguments) -> str:
    return next(filter(None, positional(arguments)), "")


def link_label(arguments: Arguments) -> str:
    """A link to a page in another language: its label, or else the page's name in this one."""
    labels = (arguments.get(name) for name in ("lt", "label", "texte", "1", "fr", "trad"))
    return next(filter(None, labels), "")


# ---- quotations ------------------------------------------------------------------------------------------------------


def quotation(arguments: Arguments) -> str:
    names = ("text", "quote", "content", "texto", "testo", "1")
    return f"\n\n{next(filter(None, map(arguments.get, names)), '')}\n\n"


def quoted_between(opening: str, closing: str) -> Rule:
    def rule(arguments: Arguments) -> str:
        quoted = first_or_text(arguments)
        return f"{opening}{quoted}{closing}" if quoted else ""

    return rule


# ---- numbers and units -----------------------------------------------------------------------------------------------


def fraction(arguments: Arguments) -> str:
    values = positional(arguments)
    if len(values) < 2:
        return f"1/{first(arguments)}"
    return " ".join([*values[:-2], "/".join(values[-2:])])


def value(arguments: Arguments) -> str:
    number = first(arguments) + (f"×10^{arguments['e']}" if "e" in arguments else "")
    unit = arguments.get("u") or arguments.get("ul") or ""
    return f"{number} {unit}".strip()


def power_of_ten(arguments: Arguments) -> str:
    """{{e|6}}; without an argument it is the French ordinal, 19{{e}}."""
    return f"×10^{first(arguments)}" if "1" in arguments else "e"


_PLAIN_NUMBER = re.compile(r"[\d,]{1,15}(?:\.\d{1,9})?")


def density(arguments: Arguments) -> str:
    """{{pop density|3645257|640081.87|km2}} becomes "5.7/km²"."""
    people, area, unit = (arguments.get(name, "") for name in ("1", "2", "3"))
    if not _PLAIN_NUMBER.fullmatch(people) or not _PLAIN_NUMBER.fullmatch(area):
        return ""
    num_people, size = float(people.replace(",", "") or 0), float(area.replace(",", "") or 0)
    return f"{num_people / size:.1f}/{_unit(unit)}" if size else ""


def metres(arguments: Arguments) -> str:
    return f"{first(arguments)} m"


_PLURAL_NUMBER = re.compile(r"-?[01](?:[.,]0*)?")


def plural(number: str, forms: list[str]) -> str:
    """Returns the form of {{plural:number|form|form}} that goes with the number."""
    return (forms or [""])[0 if _PLURAL_NUMBER.fullmatch(number.strip()) else -1].strip()


def money_in(sign: str) -> Rule:
    return lambda arguments: sign + first(arguments)


_INDIAN_SCALES = {"l": " lakh", "c": " crore", "k": " thousand", "m": " million", "b": " billion", "lc": " lakh crore"}


def rupees(arguments: Arguments) -> str:
    return f"₹{first(arguments)}{_INDIAN_SCALES.get(arguments.get('2', ''), '')}"


_NUMBER = re.compile(r"[-−–+]?[\d.,/+ ⁄]+(?:e[-−]?\d+)?")
_RANGES = {"-": "–", "–": "–", "to": " to ", "to(-)": " to ", "and": " and ", "and(-)": " and ", "or": " or "}
_RANGES |= {"by": " by ", "x": " × ", "×": " × ", "xx": " × ", "*": " × ", "+/-": " ± ", "±": " ± "}
_RANGES |= {"to about": " to about "}
_UNITS = {"sqmi": "sq mi", "sqkm": "km²", "km2": "km²", "m2": "m²", "cm2": "cm²", "mi2": "sq mi", "sqm": "m²"}
_UNITS |= {"sqft": "sq ft", "ft2": "sq ft", "cuft": "cu ft", "m3": "m³", "km3": "km³", "cm3": "cm³"}
_UNITS |= {"c": "°C", "f": "°F", "LT": "long tons", "ST": "short tons"}
_UNITS |= {"kph": "km/h", "impgal": "gallons", "usgal": "gallons", "foot": "feet", "acre": "acres", "deg": "°"}
_UNITS |= {"oilbbl": "barrels", "oilbbl/d": "barrels per day", "bbl": "barrels", "bbl/d": "barrels per day"}
_SCALE = re.compile(r"e([369])(?=\D)|([kM])(?=oilbbl|bbl)")
_SCALES = {"3": "thousand", "6": "million", "9": "billion", "k": "thousand", "M": "million"}


def convert(arguments: Arguments) -> str:
    """{{convert|5|-|7|km|mi}} becomes "5–7 km": the quantity as the writer gave it, without the conversion."""
    words, number = "", ""
    for value in positional(arguments):
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
    unit = _UNITS.get(code, _UNITS.get(code.lower(), code))
    return f"{_SCALES[scale[1] or scale[2]]} {unit}" if scale else unit


# ---- dates -----------------------------------------------------------------------------------------------------------

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_MONTH_NUMBER = re.compile(r"0?[1-9]|1[0-2]")


def _month(number: str) -> str:
    return _MONTHS[int(number) - 1] if _MONTH_NUMBER.fullmatch(number) else number


def circa(arguments: Arguments) -> str:
    return f"c. {first(arguments)}".strip()


def as_of(arguments: Arguments) -> str:
    year, month, day = (arguments.get(name, "") for name in ("1", "2", "3"))
    opening = arguments.get("alt") or " ".join(filter(None, ["As of", day, _month(month), year]))
    return opening[:1].lower() + opening[1:] if arguments.get("lc", "")[:1] == "y" else opening


def date(arguments: Arguments) -> str:
    """{{birth date|1947|4|1}} becomes "April 1, 1947"; {{birth-date|1 April 1947}} stays as it is."""
    year, month, day = (arguments.get(name, "") for name in ("1", "2", "3"))
    month, day = _month(month), day.removeprefix("0")
    if arguments.get("df", "")[:1] == "y" or not day:
        return " ".join(filter(None, [day, month, year]))
    return f"{month} {day}, {year}"


def old_style_date(arguments: Arguments) -> str:
    """{{OldStyleDate|February 2|1905|January 20}}."""
    old = arguments.get("3")
    return " ".join(filter(None, [first(arguments), f"[O.S. {old}]" if old else "", arguments.get("2", "")]))


_ROMAN_NUMERAL = re.compile("[IVXivx]{1,6}")


def century(ending: str) -> Rule:
    """French {{s|XIX}} and {{s-|XIX|e}} become "XIXe siècle"; where it is no number, {{s|text}} stays text."""

    def rule(arguments: Arguments) -> str:
        numeral = first(arguments)
        if not _ROMAN_NUMERAL.fullmatch(numeral):
            return numeral
        return f"{numeral}{arguments.get('2') or ('er' if numeral == 'I' else 'e')} {ending}"

    return rule


def two_centuries(arguments: Arguments) -> str:
    """French {{s2|XVIII|e|XIX|e}}."""
    values = positional(arguments)
    return " et ".join("".join(values[i : i + 2]) for i in range(0, min(len(values), 4), 2)) + " siècles"


def spanish_century(arguments: Arguments) -> str:
    """Spanish {{siglo|XIX||s}}: the third argument asks for the word."""
    return ("siglo " if arguments.get("3", "")[:1].lower() == "s" else "") + first(arguments)


# ---- names -----------------------------------------------------------------------------------------------------------


def ship(arguments: Arguments) -> str:
    """{{ship|prefix|name|number}}."""
    values = positional(arguments)
    return " ".join(filter(None, values[:2])) + (f" ({values[2]})" if len(values) > 2 and values[2] else "")


def ship_of(prefix: str) -> Rule:
    return lambda arguments: ship({"1": prefix, **{str(i + 2): v for i, v in enumerate(positional(arguments))}})


def ship_class(arguments: Arguments) -> str:
    """{{sclass|Essex|aircraft carrier}}."""
    return f"{first(arguments)}-class {arguments.get('2', '')}".strip()


def author_and_year(arguments: Arguments) -> str:
    """{{harvtxt|Linden|Smith|1996}}."""
    *authors, year = positional(arguments) or [""]
    return f"{' & '.join(authors)} ({year})".strip()


def phoneme(arguments: Arguments) -> str:
    """{{IPA|/a/}}: a sound that is spoken of stays; how a word is pronounced goes."""
    sounds = last(arguments)
    return sounds if len(sounds) <= 5 and sounds.startswith(("/", "[", "⟨")) else ""


_ACCIDENTALS = {"flat": "♭", "sharp": "♯", "natural": "♮"}


def accidental(arguments: Arguments) -> str:
    return _ACCIDENTALS.get(first(arguments), "")


def prefixed(prefix: str) -> Rule:
    return lambda arguments: prefix + first(arguments)
