import unicodedata
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertdata.characters import clean_characters
from bertdata.wikitext import clean_wikitext

CONSTRUCTS = [
    # quotes, entities, characters
    ("'''Bold''' and ''italic'' and '''''both''''' words here.", "Bold and italic and both words here."),
    ("The ''Titanic'''s last voyage was in April.", "The Titanic's last voyage was in April."),
    ("''Titanic''<nowiki/>'s last voyage was in April.", "Titanic's last voyage was in April."),
    ("Ten&nbsp;metres &ndash; or more &amp;nbsp;than that.", "Ten metres – or more than that."),
    ("Fish &amp; chips &lt;b&gt; cost &#163;5 or &#x20AC;6.", "Fish & chips <b> cost £5 or €6."),
    ("AT&T and Q&A; stay as they are.", "AT&T and Q&A; stay as they are."),
    (
        "A soft\u00adhyphen, a zero\u200bwidth\ufeff space and\u00a0a hard one.",
        "A softhyphen, a zerowidth space and a hard one.",
    ),
    ("Cafe\u0301 in NFC is what comes out.", "Café in NFC is what comes out."),
    ("Caf<b>e</b>\u0301 and a()\u0301 and e &#769; are in NFC too.", "Café and á and e \u0301 are in NFC too."),
    (
        "One line\nof the same paragraph.\n\nAnother paragraph follows.",
        "One line of the same paragraph.\nAnother paragraph follows.",
    ),
    # links
    ("A [[link]] to [[target page|label]]s and more.", "A link to labels and more."),
    ("A [[page#section|sectioned]] [[link]] is here.", "A sectioned link is here."),
    ("See [[:Category:Physics]] and [[:de:Physik|Physik]] here.", "See Category:Physics and Physik here."),
    ("The word [[wikt:terrace|terrace]] and [[wiktionary:step]] too.", "The word terrace and step too."),
    ("He watched [[Star Trek: Voyager]] all day long.", "He watched Star Trek: Voyager all day long."),
    ("Text comes first here.\n[[Category:Physics|*]]\n[[de:Physik]]\n[[zh-min-nan:X]]", "Text comes first here."),
    ("Text comes first here. [[Kategorie:Physik]][[Catégorie:X]]", "Text comes first here."),
    ("[[File:A.jpg|thumb|A [[nice]] ''caption'' [here].]]\nText comes next here.", "Text comes next here."),
    ("[[Datei:A.jpg|mini|Ein [[Bild|B]] mit [[Link]].]]Text comes next here.", "Text comes next here."),
    ("[[image: A.jpg |100px]]Text [[Image:B.png]]comes next here.", "Text comes next here."),
    ("[[File:A.jpg|thumb|Caption {{convert|5|km}} with <ref>x</ref> it.]] Prose is here.", "Prose is here."),
    ("A [http://x.org label of it] and [http://y.org] [//z.org/a Z] end.", "A label of it and Z end."),
    ("{{quote|Piled by the [[wikt:bondman|bond-man's]] years of toil.}}", "Piled by the bond-man's years of toil."),
    ("[[File:A.jpg|thumb|<center>A stamp</center><p>issued in York</p>]]\nProse is here.", "Prose is here."),
    ("Write [mailto:a@b.c to him] today, please.", "Write to him today, please."),
    ("A [[foo|[bracketed] label]] is kept whole.", "A [bracketed] label is kept whole."),
    ("He said [sic] that it [was] so.", "He said [sic] that it [was] so."),
    # elements
    ("Fact.<ref>Book, p. 5.</ref> More.<ref name=a/> End.<ref name='b'>{{cite|x}}</ref>", "Fact. More. End."),
    ('Fact<ref>one\ntwo</ref> and<REF name=x>y</REF> more<ref name="http://a/b" /> here.', "Fact and more here."),
    ("Before <!-- a -- > comment\n\nwith lines --> and after it.", "Before and after it."),
    ("A<br/>line break<br>and <br /> another one.", "A line break and another one."),
    (
        "H<sub>2</sub>O, 5 m<sup>2</sup>, the 19<sup>th</sup>, 10<sup>6</sup> of them.",
        "H2O, 5 m2, the 19th, 10^6 of them.",
    ),
    ("<gallery>\nFile:A.jpg|Caption one.\n</gallery>Prose is here, after it.", "Prose is here, after it."),
    ("The number <math>x</math> is not <math>\\alpha \\times 2</math> here.", "The number x is not α × 2 here."),
    (
        "Let <math>\\lambda + \\Lambda</math> be <math>\\varsigma \\sigma \\Sigma</math> or <math>\\varphi</math>.",
        "Let λ + Λ be ς σ Σ or φ.",
    ),
    ("Let <math>\\final + x</math> and <math>\\kai</math> be gone here.", "Let and be gone here."),
    ('We have\n<math display="block">X_k = [0,1]</math>\nfor all of them.', "We have X_k = [0,1] for all of them."),
    ("As <math>\\frac{a}{b} \\begin{x} y \\end{x}</math> shows it clearly.", "As shows it clearly."),
    ("The <code>printf</code> function prints.", "The printf function prints."),
    ("<syntaxhighlight lang=c>int main();</syntaxhighlight>Prose is here, after it.", "Prose is here, after it."),
    (
        "<pre>code [[x]]</pre><source>y</source><timeline>z</timeline>Prose is here, after it.",
        "Prose is here, after it.",
    ),
    ("Write <nowiki>[[x]] ''y'' {{z}}</nowiki> to see it.", "Write [[x]] ''y'' {{z}} to see it."),
    ("A <span style='x'>styled</span> <small>small</small> <u>word</u> is here.", "A styled small word is here."),
    ("First part is here.<p>Second part is here.</p>", "First part is here.\nSecond part is here."),
    ("<blockquote>Quoted words are kept here.</blockquote>", "Quoted words are kept here."),
    (
        "<table><tr><td>a<table><tr><td>b</td></tr></table></td></tr></table>Prose is here, after it.",
        "Prose is here, after it.",
    ),
    (
        "<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>字を書く人がいました。そして、寝ました。",
        "漢字を書く人がいました。そして、寝ました。",
    ),
    ("__NOTOC__ Prose is here, after it. __FORCETOC__", "Prose is here, after it."),
    ("The method __init__ stays in the text.", "The method __init__ stays in the text."),
    # templates that go
    ("{{Infobox person\n| name = {{small|X}}\n| born = {{birth date|1990|1|1}}\n}}\nX is a person.", "X is a person."),
    ("X is tall.{{citation needed|date=May 2010}} Y is not{{sfn|A|1990}} tall.", "X is tall. Y is not tall."),
    ("'''X''' ({{IPAc-en|x}}; born 1990) is a person.", "X (born 1990) is a person."),
    ("'''X''' ({{IPA|x}}, {{foo}}) is a person ( , ; ) here.", "X is a person here."),
    ("'''X''' (born, {{IPA|x}}) is a person {{foo}} .", "X (born) is a person."),
    ("{{#if: a | b | {{{1|c}}} }}Prose is here, after it. {{{2}}}", "Prose is here, after it."),
    ("{{foo|{x}|a { b}} Prose is here, after it.", "Prose is here, after it."),
    # templates that stay
    (
        "The {{lang|fr|bon [[mot|mots]]}} and {{lang-de|gut}} and {{langx|la|bonum}} were said.",
        "The bon mots and gut and bonum were said.",
    ),
    ("It is {{convert|5|km|mi|1|abbr=on}} long and {{convert|3|-|4|ft|m|0}} deep.", "It is 5 km long and 3–4 ft deep."),
    ("It rains {{convert|3100|mm|1}} on {{convert|44|e6acre}} a year.", "It rains 3100 mm on 44 million acres a year."),
    ("He is {{convert|5|ft|10|in|cm}} tall, at {{cvt|20|C|F}} or less.", "He is 5 ft 10 in tall, at 20 °C or less."),
    (
        "In {{nihongo|Tokyo|東京|Tōkyō}} he ate {{transl|ja|sushi}} with {{nowrap|his friends}}.",
        "In Tokyo he ate sushi with his friends.",
    ),
    (
        "The {{abbr|UN|United Nations}} met {{circa|1950}} {{as of|2010|5|lc=y}} for {{frac|1|2}} a day.",
        "The UN met c. 1950 as of May 2010 for 1/2 a day.",
    ),
    (
        "The {{HMS|Victory|1765|6}} met the {{ship|French ship|Bucentaure}} at sea.",
        "The HMS Victory (1765) met the French ship Bucentaure at sea.",
    ),
    ("He paid {{US$|5}} for {{formatnum:3003}} of {{val|1.5|u=km}} rope.", "He paid US$5 for 3003 of 1.5 km rope."),
    ("About {{formatnum:1E6}} or {{Formatnum: 2.5E-3 |R}} of them.", "About 1E6 or 2.5E-3 of them."),
    ("Now {{nowrap|a {{=}} b}} and {{=}} and {{nowrap|{{math|1=x = 1}}}} hold.", "Now a = b and = and x = 1 hold."),
    ("It was ({{nowrap|{{as of|1990|4}}}}) of this size.", "It was (As of April 1990) of this size."),  # as long
    (
        "It is {{convert|1|e3e3x}} or {{convert|1|e6USgal}} in size.",
        "It is 1 thousand e3x or 1 million gallons in size.",
    ),
    (
        "He said:\n{{quote|To be or not to be, that is it.|Hamlet}}\nThen he went away.",
        "He said:\nTo be or not to be, that is it.\nThen he went away.",
    ),
    ("He said: {{quote|text=To be or not to be.|sign=H}}", "He said:\nTo be or not to be."),
    (
        "Long{{snd}}or short{{ndash}}it is {{ill|Foo|de}} {{nobr|one {{lang|fr|deux}}}}.",
        "Long – or short–it is Foo one deux.",
    ),
    # tables, lists, headings
    (
        "{| class=x\n|-\n! a !! b\n| c || d {{x}}\n{|\n| inner\n|}\n|}\nProse is here, after it.",
        "Prose is here, after it.",
    ),
    (":{|\n| a\n|}\nProse is here, after it.", "Prose is here, after it."),
    ("== Heading ==\nProse is here.\n===Sub===\nMore prose is here.\n----", "Prose is here.\nMore prose is here."),
    ("* One item that is a whole sentence.\n* apples\n* Pears and plums", "One item that is a whole sentence."),
    (
        "# First do this with great care.\n#: Then do that with more care.",
        "First do this with great care.\nThen do that with more care.",
    ),
    ("; Term\n: The term is explained here in words.", "The term is explained here in words."),
    (
        "* Smith, John (1990). ''A Big Book''. London: Penguin Books.\n* [http://x.org A site], with all of the pictures.",
        "",
    ),
    ("* Ein Satz mit dem Haus und einem großen Garten.", "Ein Satz mit dem Haus und einem großen Garten."),
    ("* 这是一个完整的句子，应当保留下来。\n* 苹果", "这是一个完整的句子，应当保留下来。"),
    (
        "* [[Achilles]] appears in Rick Riordan's ''[[The Last Olympian]]'' (2009). He warns the others of it.\n"
        "* In 1992, Agassi was named the BBC Overseas Sports Personality of the Year.\n"
        '* [[Knuth]]: "We want good algorithms in some sense. One criterion is the time" (1973)\n'
        "* Corinth: a temple was built in the 6th century. There was a double row of columns",
        "Achilles appears in Rick Riordan's The Last Olympian (2009). He warns the others of it.\n"
        "In 1992, Agassi was named the BBC Overseas Sports Personality of the Year.\n"
        'Knuth: "We want good algorithms in some sense. One criterion is the time" (1973)\n'
        "Corinth: a temple was built in the 6th century. There was a double row of columns",
    ),
    (
        "* Bolotin, David (1998). An approach to the physics of Aristotle: with attention to the role of his writing.\n"
        "* Black, Jeremy. ''War for America: The Fight for Independence''. 2001. Analysis of a noted historian.\n"
        "* Ward, C. ''The War of the Revolution in the South'', 1952, on the Battles.\n"
        "* George, H. ''The great generals and their exploits''. ISBN 0-306-81329-7. The study of all key generals.\n"
        "* Oxford Companion to ''the military history of the state''. Oxford University Press, 1999.",
        "",
    ),
    # language variants
    ("他用-{zh-hans:软件;zh-hant:軟體;}-工作了很长的时间，一直到晚上。", "他用软件工作了很长的时间，一直到晚上。"),
    (
        "-{T|zh-hans:x;zh-hant:y}-他-{工作}-了很长的时间，一直到晚上都没有停。",
        "他工作了很长的时间，一直到晚上都没有停。",
    ),
    # unbalanced markup takes its line at most
    ("Start {{foo|bar\nis here.\n\nNext paragraph stays here.", "Start is here.\nNext paragraph stays here."),
    ("Start is here. {{foo|{{bar}}\n\nNext paragraph stays here.", "Start is here.\nNext paragraph stays here."),
    ("A [[link and no end.\n\nNext paragraph stays here.", "A link and no end.\nNext paragraph stays here."),
    ("Start is here. [[File:A.jpg|thumb|x\n\nNext paragraph stays here.", "Start is here.\nNext paragraph stays here."),
    ("Start is here.<ref>open\n\nNext paragraph<ref>x</ref> stays here.", "Start is here.\nNext paragraph stays here."),
    ("{|\n| a\n\nNext paragraph stays here.", "Next paragraph stays here."),
    ("Start is here. <!-- open\n\nNext paragraph stays here.", "Start is here.\nNext paragraph stays here."),
    ("End }} and ]] and </ref> and |} stay apart.", "End and and and |} stay apart."),
    ("<gallery>\nText after an open tag stays here.", "Text after an open tag stays here."),
]


@pytest.mark.parametrize(("wikitext", "prose"), CONSTRUCTS, ids=[wikitext[:30] for wikitext, _ in CONSTRUCTS])
def test_clean_wikitext_turns_construct_into_prose(wikitext: str, prose: str) -> None:
    assert clean_wikitext(wikitext) == prose


def test_clean_wikitext_takes_names_of_the_wiki_itself() -> None:
    wikitext = "[[Bielde:A.jpg|thumb|Caption.]]Prose is here, after it."
    assert clean_wikitext(wikitext, media_names=["Bielde"]) == "Prose is here, after it."
    assert "Caption" in clean_wikitext(wikitext)


def test_clean_wikitext_drops_short_line_that_is_no_sentence() -> None:
    assert clean_wikitext("Novels\n\nIt was written.\n\n)") == "It was written."


@given(st.text(alphabet="{}[]<>|'=*#:;!- \nabcDE.ref/&();,_", max_size=200))
def test_clean_wikitext_takes_any_text(text: str) -> None:
    cleaned = clean_wikitext(text)
    assert not any(markup in cleaned for markup in ("{{", "}}", "  ", "\n\n"))
    assert cleaned == cleaned.strip()


HOSTILE_PAGES = [
    "{{convert|1|" + "e3" * 2000 + "x}}",
    "{{as of|2000|" + "1" * 5000 + "}}",
    "{{as of|2000|²|5}} {{as of|2000|٣}} {{as of|2000|0}} {{as of|2000|-1}}",
    "{{val|" + "9" * 5000 + "|e=" + "9" * 5000 + "|u=" + "e3" * 2000 + "}}",
    "{{nowrap|" * 3000 + "}}" * 3000,
    "{{" + "c|" * 50_000 + "}}",
    "<math>\\" + "a" * 5000 + "</math> <math>\\var</math> <math>\\VARsigma \\vaR</math>",
    "&#9999999; &#xFFFFFF; &#xD800; &#0; &#x1F; &#٣; &#" + "9" * 5000 + ";",
    "&amp;#xD800; &amp;amp;#61; <nowiki>\ufdd0&#</nowiki>\ufdd0",
]


@pytest.mark.parametrize("wikitext", HOSTILE_PAGES, ids=[wikitext[:20] for wikitext in HOSTILE_PAGES])
def test_clean_wikitext_raises_for_no_hostile_page(wikitext: str) -> None:
    clean_wikitext(wikitext).encode()


NAMES = [
    *("lang", "bg", "nowrap", "w", "bold", "uc", "date", "nihongo", "nihongo3", "quote", "frac", "convert", "val"),
    *("as of", "circa", "ship", "HMS", "US$", "e", "snd", "nbsp", "=", "lang-de", "script/a", "font/", "formatnum:"),
    *("FORMATNUM: 1E6", "infobox", "", "#if:", "!", "pop density", "birth date", "OldStyleDate", "s", "s2", "siglo"),
    *(
        "plural:5",
        "plural:",
        "harvtxt",
        "IPA",
        "music",
        "INRConvert",
        "lien",
        "enS",
        '"',
        "sclass",
        "tsl",
        "le",
        "Höhe",
    ),
]
ARGUMENTS = [
    *("", " ", "=", "1=", "e=", "u=", "lc=y", "text=", "{{=}}", "a {{=}} b", "[[a|b]]", "[[", "<b>", "a()\u0301", "{"),
    *("0", "-1", "5", "12", "13", "²", "٣", "1/2", "9" * 5000, "1e9", "1e" + "9" * 5000, "-", "to", "x", "by", "}"),
    *("km", "e3", "e6acre", "e3" * 2000 + "m", "e" * 3000, "\u0301", "\u212b", "\0", "\U0010ffff", "|" * 2000),
]


@pytest.mark.parametrize("name", NAMES)
def test_clean_wikitext_raises_for_no_two_arguments_of(name: str) -> None:
    for first, second in product(ARGUMENTS, repeat=2):
        clean_wikitext(f"{{{{{name}|{first}|{second}}}}}")


@st.composite
def templates(draw: st.DrawFn) -> str:
    arguments = draw(st.lists(st.sampled_from(ARGUMENTS) | st.text(max_size=5), max_size=6))
    return "{{" + "|".join([draw(st.sampled_from(NAMES)), *arguments]) + "}}"


FRAGMENTS = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{{{",
            "}}}",
            "[[",
            "]]",
            "[",
            "]",
            "{|",
            "|}",
            "|-",
            "|",
            "=",
            "==",
            "\n",
            "\n\n",
            "*",
            ":",
            ";",
            "#",
        ),
        *(
            "<",
            ">",
            "<!--",
            "-->",
            "<ref>",
            "</ref>",
            "<ref/>",
            "<math>",
            "</math>",
            "<nowiki>",
            "</nowiki>",
            "<table>",
        ),
        *(
            "</table>",
            "<code>",
            "</code>",
            "<sup>",
            "</sup>",
            "<p>",
            "<br>",
            "</",
            "''",
            "'''",
            "__",
            "__TOC__",
            "-{",
            "}-",
        ),
        *(
            "&",
            "&amp;",
            "&#",
            "&#x",
            "&lt;",
            "&#769;",
            ";",
            "\\",
            "\\alpha",
            "\\lambda",
            "\\var",
            "\\ ",
            "[[File:",
            "[[de:",
        ),
        *(
            "[//a ",
            "http://a",
            "()",
            "e()\u0301",
            "( ,",
            ",",
            ".",
            " ",
            "a",
            "e",
            "Word",
            "7",
            "\u0301",
            "\u0327",
            "\ufdd0",
            "\u2028",
            "\x85",
        ),
    ]
)
PAGES = st.lists(FRAGMENTS | templates() | st.text(max_size=3), max_size=25).map("".join)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(PAGES)
def test_clean_wikitext_gives_nfc_of_any_markup(wikitext: str) -> None:
    cleaned = clean_wikitext(f"This line is long enough to stay {wikitext} and it ends here.")
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(markup in cleaned for markup in ("  ", "\n\n", "\r"))
    assert cleaned == cleaned.strip()
    cleaned.encode()


@given(st.text(max_size=50))
def test_clean_characters_gives_nfc_and_is_idempotent(text: str) -> None:
    cleaned = clean_characters(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert "\r" not in cleaned
    assert clean_characters(cleaned) == cleaned
