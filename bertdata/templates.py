"""Templates that carry words of the sentence they stand in: which leaves what behind.

A template that is not in the table `_TEMPLATES`, at the end, leaves nothing. Its names are those of the English
Wikipedia, and of some other large ones.
"""

from __future__ import annotations

import re
from functools import lru_cache

from bertdata import template_numbers as numbers
from bertdata import template_rules as rules
from bertdata.links import hide_bars, label_links
from bertdata.template_rules import Arguments, Rule

__all__ = ["expand_template"]


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
    raw_name, _, rest = content.partition("|")
    rule = _find_rule(raw_name) if len(raw_name) <= _MAX_NAME_CHARS else None
    if rule is None:
        return _call_function(raw_name, rest) if ":" in raw_name else ""
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


_RULES_BY_PREFIX: dict[str, Rule] = {
    "lang-": rules.first,
    "link-": rules.third_or_first,  # Chinese
    "zitat-": rules.quotation,  # German
    "به ": rules.first,  # Persian: in a language
    "script/": rules.last,
    "font/": rules.last,
}
_PREFIXES = tuple(_RULES_BY_PREFIX)
_GERMAN_LANGUAGE = re.compile("[a-z]{2,3}[SF]")  # {{enS|...}}


_MAX_NAME_CHARS = 100  # what is longer is no name, and would fill the memory of those seen


@lru_cache(maxsize=4096)
def _find_rule(raw_name: str) -> Rule | None:
    raw_name = raw_name.strip()
    name = raw_name.replace("_", " ").lower()
    if name in _TEMPLATES:
        return _TEMPLATES[name]
    if name.startswith(_PREFIXES):
        return next(rule for prefix, rule in _RULES_BY_PREFIX.items() if name.startswith(prefix))
    return rules.first if len(name) <= 4 and _GERMAN_LANGUAGE.fullmatch(raw_name) else None


def _call_function(raw_name: str, rest: str) -> str:
    """Calls a parser function that carries words: {{formatnum:3003}}."""
    name, _, argument = raw_name.partition(":")
    function, argument = name.strip().lower(), argument.strip()
    if function == "plural":
        return numbers.plural(argument, rest.split("|"))
    return argument if function in ("formatnum", "lc", "uc", "lcfirst", "ucfirst", "nowrap") else ""


def _table(rules_by_names: dict[str, Rule]) -> dict[str, Rule]:
    pairs = [(name, rule) for names, rule in rules_by_names.items() for name in names.split(", ")]
    assert len(dict(pairs)) == len(pairs), "a template has two rules"
    return dict(pairs)


# What a template leaves behind, by its names in lower case.
_TEMPLATES: dict[str, Rule] = _table(
    {
        "lang, langx, rtl-lang, native name, script, sort, langue, llang": rules.second,
        "color, colour, font color, fontcolor, rquote": rules.second,
        "audio": rules.sound_label,
        "resize, font, background color, bg, transl, transliteration, tlit, translit, text color, tsl": rules.last,
        # text in another size or type
        "nowrap, nobr, nobreak, no wrap, small, smaller, big, nobold, noitalic, normal, center, nq": rules.first,
        "larger, large, abbr, abbrlink, tooltip, hover, hint, gloss, block indent, nobr romains": rules.first,
        "code, tt, mono, em, strong, smallcaps, sc, pc, versalita, maiuscoletto, romain, rom, rom-maj": rules.first,
        "small caps, aut, au, visible anchor, vanchor, term, defn, sup, sub, exp, ind, terme": rules.first,
        "w": rules.second_or_first,
        "keypress, key press, kbd": rules.keys,
        "math, mvar, var, angbr, avoid wrap, ce, terme défini, grossissement, comment, число": rules.first,
        "iast, unicode, polytonic, polytonisch, vr, angle bracket, hebrew, ruby, юникод, format price": rules.first,
        "chem2, pie, cuneiform, flag, flagcountry, flagu, sic, zahl, railgauge, track gauge, esd": rules.first,
        "by, nfly, mlby, nhly, nbay, overline, num, ruby-ja, ふりがな, капитель, флагификация, 한자, ルビ": rules.first,
        "読み仮名, 読み仮名 ruby不使用, 僻字": rules.first,
        "crossreference, midsize, u, underline, strikethrough, nihongo2, japonais, 補助漢字フォント": rules.first,
        "abréviation, abréviation discrète, abrd, jis2004フォント, cp932フォント, 拡張漢字": rules.first,
        "wikt-lang, quote inline, bold, italic, italics": rules.last,
        "not a typo, typo, notatypo, proper name, as written": rules.last,
        "linktext, chem, gaps, okina text, uc, lc, lcfirst, ucfirst, fchim, formule chimique": rules.joined,
        "bibleverse, bibleref, bibleref2, bibleverse-nb, sortname": rules.spaced,
        "date, date-, unité, nombre, unidad, fmtn, date de naissance, date de décès": rules.spaced,
        "date de naissance-, date de décès-": rules.spaced,
        "nihongo, nihongo krt, korean name": rules.first_given,
        "nihongo3": rules.third,
        "nuclide, nuclide2, simplenuclide, simplenuclide2": rules.hyphened,
        # what a reader doubts is said all the same
        "citation needed span, fact span, cnspan, clarify span, refnec, référence nécessaire": rules.first_or_text,
        "référence souhaitée, refsou, passage évasif, pas clair, à sourcer, cita requerida": rules.first_or_text,
        "citazione necessaria, carece de fontes2, 要出典範囲, 要検証範囲": rules.first_or_text,
        "要説明範囲, 独自研究範囲": rules.first_or_text,
        # links to other languages
        "ill, illm, interlanguage link, interlanguage link multi, link-interwiki, lien": rules.link_label,
        "仮リンク, 임시 링크, liên kết ngôn ngữ": rules.link_label,
        "нп, нп1, нп2, нп3, нп4, нп5, не переведено, не переведено 2, не переведено 3, iw": rules.second_or_first,
        "не переведено 4, не переведено 5, не перекладено": rules.second_or_first,
        "le": rules.third_or_first,
        # quotations
        "quote, quotation, blockquote, bq, cquote, quote frame, poemquote, poem quote, quoteblock": rules.quotation,
        "zitat, citation bloc, citation longue, cita, citazione, citação, citaat, цитата, 인용문": rules.quotation,
        "citat, cytat, sitat, citát, idézet, lainaus, alıntı, اقتباس, نقل قول": rules.quotation,
        "citation, guil, citation étrangère": rules.quoted_between("« ", " »"),
        "따옴표": rules.quoted_between("“", "”"),
        '"': rules.quoted_between('"', '"'),
        "incise": rules.quoted_between("– ", " –"),
        # numbers
        "frac, fraction, sfrac, bruch": numbers.fraction,
        "convert, cvt, đổi, convertir": numbers.convert,
        "val, m": numbers.value,
        "currency": rules.spaced,
        "e": numbers.power_of_ten,
        "pop density": numbers.density,
        "höhe": numbers.metres,
        "10^": rules.prefixed("10^"),
        "x10^": rules.prefixed("×10^"),
        "sqrt, radic": rules.prefixed("√"),
        "numéro": rules.prefixed("n° "),
        "p.": rules.prefixed("p. "),
        "séc": rules.prefixed("século "),
        "us patent": rules.prefixed("U.S. Patent "),
        "본명": rules.prefixed("본명: "),
        "us$, usd": numbers.money_in("US$"),
        "gbp, £": numbers.money_in("£"),
        "euro, eur, €": numbers.money_in("€"),
        "inr, indian rupee": numbers.money_in("₹"),
        "inrconvert": numbers.rupees,
        "yen, jpy, ¥": numbers.money_in("¥"),
        "a$, au$, aud": numbers.money_in("A$"),
        "c$, ca$, cad": numbers.money_in("C$"),
        "nz$, nzd": numbers.money_in("NZ$"),
        "krw, ₩": numbers.money_in("₩"),
        "php, ₱": numbers.money_in("₱"),
        # dates
        "as of": rules.as_of,
        "circa, c., ca., c, ca": rules.circa,
        "birth date, birth date and age, bda, birth-date, birth-date and age, death date, dts": rules.date,
        "death date and age, death-date, start date, start-date, end date, end-date": rules.date,
        "floruit, fl., fl": rules.prefixed("fl. "),
        "reign, r.": rules.reign,
        "bd": rules.chinese_life,
        "oldstyledate, old style date": rules.old_style_date,
        "s, s-, ss-": rules.century("siècle"),
        "-s, -s-, sav, sav-": rules.century("siècle av. J.-C."),
        "s2, s2-": rules.two_centuries,
        "siglo": rules.spanish_century,
        # names
        "ship, warship": rules.ship,
        **{
            prefix.lower(): rules.ship_of(prefix)
            for prefix in ("USS", "HMS", "HMAS", "HMCS", "HMNZS", "INS", "SS", "RMS", "SMS", "MS", "MV", "USCGC")
        },
        "sclass, sclass-, sclass2, sclass2-": rules.ship_class,
        "harvtxt, harvnb, harvcoltxt": rules.author_and_year,
        "ipa": rules.phoneme,
        "ipaslink": rules.quoted_between("/", "/"),
        "ipablink": rules.quoted_between("&#91;", "&#93;"),
        "ipalink, ipa link": rules.first,
        "music": rules.accidental,
        # characters
        "ndash, en dash, –": "–",
        "mdash, mdashb, em dash, —": "—",
        "snd, snds, spnd, spaced ndash, spaced en dash, dash": " – ",
        "nbsp, space, spaces, thinsp, thin space, ·, dot, bullet, •, 0, br, break": " ",
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
        "pm": "±",
        "times": "×",
        "minus": "−",
        **{name.lower(): name for name in ("1er", "Ier", "Ire", "1re", "2e", "er", "re", "M.", "Mme", "Mlle", "n°")},
        "av jc, av. j.-c.": "av. J.-C.",
        "apr jc, apr. j.-c.": "apr. J.-C.",
        "c-à-d, càd": "c'est-à-dire",
        "a. c.": "a. C.",
        "d. c.": "d. C.",
        "a.c.": "a.C.",
        "d.c.": "d.C.",
    }
)
