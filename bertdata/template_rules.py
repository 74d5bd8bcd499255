"""What templates leave behind: a rule takes the arguments of one and returns its words.

Which template has which rule is told in `bertdata.templates`; the rules for numbers are in `bertdata.template_numbers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Arguments = dict[str, str]  # "1", "2", ... and names
Rule = str | Callable[[Arguments], str]


# ---- one or more of the arguments as they are ------------------------------------------------------------------------


def positional(arguments: Arguments) -> list[str]:
    """Returns the arguments without names, in order."""
    values: list[str] = []
    while (value := arguments.get(str(len(values) + 1))) is not None:
        values.append(value)
    return values


def first(arguments: Arguments) -> str:
    """{{nowrap|words}}."""
    return arguments.get("1", "")


def first_or_text(arguments: Arguments) -> str:
    """{{citation needed span|words}}, or text=words."""
    return arguments.get("1") or arguments.get("text", "")


def second(arguments: Arguments) -> str:
    """{{lang|fr|words}}."""
    return arguments.get("2") or arguments.get("text") or arguments.get("texte", "")


def second_or_first(arguments: Arguments) -> str:
    """Russian {{нп5|page|words|en|Page}}; without words, the page's name."""
    return arguments.get("2") or arguments.get("1", "")


def third(arguments: Arguments) -> str:
    """{{nihongo3|meaning|kanji|words}}."""
    return arguments.get("3") or arguments.get("2", "")


def third_or_first(arguments: Arguments) -> str:
    """Chinese {{le|page|Page|words}}; without words, the page's name."""
    return arguments.get("3") or arguments.get("1", "")


def last(arguments: Arguments) -> str:
    """{{font|size=120%|words}}."""
    return (positional(arguments) or [""])[-1]


def joined(arguments: Arguments) -> str:
    """{{chem|H|2|O}} becomes "H2O"."""
    return "".join(positional(arguments))


def spaced(arguments: Arguments) -> str:
    """{{unité|5|km}} becomes "5 km"."""
    return " ".join(filter(None, positional(arguments)))


def hyphened(arguments: Arguments) -> str:
    """{{nuclide2|calcium|48}} becomes "calcium-48"."""
    return "-".join(filter(None, positional(arguments)))


def keys(arguments: Arguments) -> str:
    """{{key press|Ctrl|C}} becomes "Ctrl+C"."""
    return "+".join(filter(None, positional(arguments)))


def first_given(arguments: Arguments) -> str:
    """{{nihongo||words}}: the first that is not empty."""
    return next(filter(None, positional(arguments)), "")


def link_label(arguments: Arguments) -> str:
    """A link to a page in another language: its label, or else the page's name in this one."""
    labels = (arguments.get(name) for name in ("lt", "label", "texte", "1", "fr", "trad"))
    return next(filter(None, labels), "")


_LISTEN = {"listen", "help", "pronunciation", "anhören", "écouter", "escuchar", "ascolta", "слушать"}


def sound_label(arguments: Arguments) -> str:
    """{{audio|file|label}}: the word that was recorded, but not the word that asks to listen."""
    label = arguments.get("2", "")
    return "" if label.lower() in _LISTEN else label


# ---- quotations ------------------------------------------------------------------------------------------------------


def quotation(arguments: Arguments) -> str:
    """{{quote|words|author}}: a paragraph of its own."""
    names = ("text", "quote", "content", "texto", "testo", "1")
    return f"\n\n{next(filter(None, map(arguments.get, names)), '')}\n\n"


def quoted_between(opening: str, closing: str) -> Rule:
    """Returns the rule of a quotation in a sentence; nothing is quoted of {{citation|title=...}}."""

    def rule(arguments: Arguments) -> str:
        quoted = first_or_text(arguments)
        return f"{opening}{quoted}{closing}" if quoted else ""

    return rule


# ---- dates -----------------------------------------------------------------------------------------------------------

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_MONTH_NUMBER = re.compile(r"0?[1-9]|1[0-2]")


def _month(number: str) -> str:
    return _MONTHS[int(number) - 1] if _MONTH_NUMBER.fullmatch(number) else number


def circa(arguments: Arguments) -> str:
    """{{circa|1950|1960}} becomes "c. 1950 – c. 1960"."""
    return " – ".join(f"c. {year}".strip() for year in positional(arguments)[:2] or [""])


def reign(arguments: Arguments) -> str:
    """{{reign|1950|1960}} becomes "r. 1950–1960"."""
    return f"r. {'–'.join(positional(arguments)[:2])}"


def as_of(arguments: Arguments) -> str:
    """{{as of|2010|5|lc=y}} becomes "as of May 2010"."""
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


def chinese_life(arguments: Arguments) -> str:
    """{{bd|1749年|8月28日|1832年|3月22日}}: the days of birth and death."""
    dates = positional(arguments)[:4]
    return "—".join(filter(None, ("".join(dates[:2]), "".join(dates[2:]))))


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
    """Returns the rule of {{HMS|name|number}}."""
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
    """{{music|flat}}."""
    return _ACCIDENTALS.get(first(arguments), "")


def prefixed(prefix: str) -> Rule:
    """Returns the rule of a template that says a word before its argument."""
    return lambda arguments: prefix + first(arguments)
