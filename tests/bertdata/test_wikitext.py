import time
import unicodedata

import pytest
from hypothesis import given
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


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "{{",
            "}}",
            "[[",
            "]]",
            "<",
            "<ref>",
            "<ref",
            "<!--",
            "{|",
            "\n{|\n",
            "[",
            "{",
            "''",
            "'''",
            "&",
            "\n*",
            "\n|",
            "(",
        ),
        *(
            "[[a:",
            "[[a|",
            "{{a|",
            "{{lang|fr|",
            "<math>",
            "<gallery><ref>",
            "{{{",
            "-{",
            "<nowiki>",
            "[http://a ",
            "\\",
            " \n",
        ),
        *(
            "{{lang|fr|a}}",
            "{{quote|",
            "((",
            ", ",
            "__",
            "<table>",
            "<code>",
            "[[File:",
            "== ",
            " ",
            "\n\n",
            "<math>\\a",
        ),
    ],
)
def test_clean_wikitext_is_linear_in_a_megabyte_of(piece: str) -> None:
    started = time.process_time()
    clean_wikitext(piece * (1_000_000 // len(piece)))
    clean_wikitext(piece * (100_000 // len(piece)) + "-->}}]]</ref></math>|}")
    assert time.process_time() - started < 15  # about a second on a machine that is not busy; minutes if quadratic


@given(st.text(alphabet="{}[]<>|'=*#:;!- \nabcDE.ref/&();,_", max_size=200))
def test_clean_wikitext_takes_any_text(text: str) -> None:
    cleaned = clean_wikitext(text)
    assert not any(markup in cleaned for markup in ("{{", "}}", "  ", "\n\n"))
    assert cleaned == cleaned.strip()


@given(st.text(max_size=50))
def test_clean_characters_gives_nfc_and_is_idempotent(text: str) -> None:
    cleaned = clean_characters(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert "\r" not in cleaned
    assert clean_characters(cleaned) == cleaned
