"""What templates for numbers, quantities and amounts of money leave behind."""

from __future__ import annotations

import re

from bertdata.template_rules import Arguments, Rule, first, positional


def fraction(arguments: Arguments) -> str:
    """{{frac|5|1|2}} becomes "5 1/2"."""
    values = positional(arguments)
    if len(values) < 2:
        return f"1/{first(arguments)}"
    return " ".join([*values[:-2], "/".join(values[-2:])])


def value(arguments: Arguments) -> str:
    """{{val|1.5|e=3|u=km}} becomes "1.5×10^3 km"."""
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
    """German {{Höhe|1234|DE-NN}}."""
    return f"{first(arguments)} m"


_PLURAL_NUMBER = re.compile(r"-?1(?:[.,]0*)?")


def plural(number: str, forms: list[str]) -> str:
    """Returns the form of {{plural:number|form|form}} that goes with the number."""
    return (forms or [""])[0 if _PLURAL_NUMBER.fullmatch(number.strip()) else -1].strip()


def money_in(sign: str) -> Rule:
    """Returns the rule of {{US$|5}}: the sign before the amount."""
    return lambda arguments: sign + first(arguments)


_INDIAN_SCALES = {"l": " lakh", "c": " crore", "k": " thousand", "m": " million", "b": " billion", "lc": " lakh crore"}


def rupees(arguments: Arguments) -> str:
    """{{INRConvert|5|c}} becomes "₹5 crore"."""
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
