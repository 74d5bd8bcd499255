"""Constructs of wikitext that other Wikipedias use, or that only some pages do: what a reader sees of them."""

import pytest

from bertdata.wikitext import clean_wikitext

CONSTRUCTS = [
    # German
    (
        "Eine Stadt ({{enS|town}}, {{grcS|πόλις}}) in der Nähe von {{lang|fr|Paris}}.",
        "Eine Stadt (town, πόλις) in der Nähe von Paris.",
    ),
    (
        "{{Zitat|Text=Es war einmal ein König, der hatte drei Töchter.|Autor=Grimm}}",
        "Es war einmal ein König, der hatte drei Töchter.",
    ),
    (
        'Er sagte {{"|Ich bin ein Berliner|lang=de}} und ging {{Bruch|1|2}} Stunde weit.',
        'Er sagte "Ich bin ein Berliner" und ging 1/2 Stunde weit.',
    ),
    ("[[Datei:Berg.jpg|mini|hochkant|Der [[Berg]] im {{lang|de|Winter}}]]Der Berg ist hoch.", "Der Berg ist hoch."),
    ("Der Ort liegt {{Höhe|1234|DE-NN|link=1}} hoch am Fluss.", "Der Ort liegt 1234 m hoch am Fluss."),
    # French
    (
        "Le château date du {{s|XIX}} et non du {{s-|XVIII|e}} ou du {{-s|V|e}}, mais des {{s2|XVI|e|XVII|e}}.",
        "Le château date du XIXe siècle et non du XVIIIe siècle ou du Ve siècle av. J.-C., mais des XVIe et XVIIe siècles.",
    ),
    (
        "Une route de {{unité|5|km}} relie {{lien|lang=en|trad=Foo Town|fr=Fooville|texte=la ville}} à {{lien|Barville|en|Bar}}.",
        "Une route de 5 km relie la ville à Barville.",
    ),
    (
        "Le {{1er}} janvier, {{Mme}} Durand dit {{citation|bonjour}} au {{nobr romains|Louis XIV}}.",
        "Le 1er janvier, Mme Durand dit « bonjour » au Louis XIV.",
    ),
    (
        "La ville a {{référence nécessaire|été détruite deux fois|date=mai 2010}} pendant la guerre, le {{date|1|mai|1945}}.",
        "La ville a été détruite deux fois pendant la guerre, le 1 mai 1945.",
    ),
    (
        "[[Fichier:A.jpg|vignette|droite|Une ''légende'' avec [[lien]].]]Le texte commence ici même.",
        "Le texte commence ici même.",
    ),
    # Russian, Spanish
    (
        "Москва ({{lang-en|Moscow}}) — город, {{нп5|Город на холме||en|City on a hill}}, {{нп3|Город|города|en|City}} и {{s|100 км}} дорог.",
        "Москва (Moscow) — город, Город на холме, города и 100 км дорог.",
    ),
    ("{{цитата|Мороз и солнце, день чудесный.|автор=Пушкин}}", "Мороз и солнце, день чудесный."),
    (
        "La obra es del {{siglo|XIX||s|1}} y mide {{unidad|5|km}}; {{cita requerida|fue destruida}} en el año 50 {{a. C.}}",
        "La obra es del siglo XIX y mide 5 km; fue destruida en el año 50 a. C.",
    ),
    # Chinese, Japanese, Korean, Vietnamese
    (
        "东京（{{lang|ja|東京}}）是{{link-en|日本首都|Capital of Japan}}，也是{{tsl|en|Big City|大城市}}和{{le|城市|City|都市}}。",
        "东京（東京）是日本首都，也是大城市和都市。",
    ),
    (
        "他是-{zh-cn:计算机; zh-tw:電腦}-专家，-{}-在-{R|北京}-工作，-{H|zh-cn:x;zh-tw:y}-住在-{zh:香港}-。",
        "他是计算机专家，在北京工作，住在香港。",
    ),
    (
        "彼は{{仮リンク|国際会議|en|Foo}}に出席し、{{ルビ|漢字|かんじ}}を書いた。{{要出典範囲|これは本当である|date=2010年}}。",
        "彼は国際会議に出席し、漢字を書いた。これは本当である。",
    ),
    (
        "{{読み仮名|山田太郎|やまだ たろう}}は、日本の作家である。{{仮リンク|フー|label=バー|en|Foo}}を書いた。",
        "山田太郎は、日本の作家である。バーを書いた。",
    ),
    (
        "아이유({{본명|이지은}}, {{llang|en|IU}})는 대한민국의 가수이다.",
        "아이유(본명: 이지은, IU)는 대한민국의 가수이다.",
    ),
    ("[[파일:A.jpg|섬네일|설명]]그는 {{한자|大韓}}의 사람이다.", "그는 大韓의 사람이다."),
    (
        "Con sông dài {{đổi|5|km|mi}} chảy qua {{ill|Thành phố|en|City}} và {{lang|vi|làng}}.",
        "Con sông dài 5 km chảy qua Thành phố và làng.",
    ),
    ("[[Tập tin:A.jpg|nhỏ|Chú thích]]Đây là câu văn xuôi.", "Đây là câu văn xuôi."),
    # English, and all wikis
    (
        "There {{plural:2|is|are}} {{formatnum:5}} {{lc:WORDS}} in {{plural:1|line|lines}}.",
        "There are 5 WORDS in line.",
    ),
    (
        "A fact.{{#tag:ref|A note [[here]].|group=n}} And {{nowrap begin}}AA-{{nowrap end}} it is{{efn|A note.}} so.",
        "A fact. And AA- it is so.",
    ),
    (
        'A fact.<ref name="x"></ref> And <ref name=y group="n" />more.<ref>{{cite|a|<b>c</b>}}</ref > End.<REF>z</ref>',
        "A fact. And more. End.",
    ),
    (
        "Rand ({{lang-ru|Али́са}}; {{OldStyleDate|February 2|1905|January 20}}&nbsp;– March 6, 1982) was a writer.",
        "Rand (Али́са; February 2 [O.S. January 20] 1905 – March 6, 1982) was a writer.",
    ),
    (
        "He was born on {{birth date and age|1947|04|01|df=y}} and died on {{death date|1990|5|12}}.",
        "He was born on 1 April 1947 and died on May 12, 1990.",
    ),
    (
        "It denotes a vowel, such as {{IPA|/[[Open front vowel|a]]/}} or {{IPAslink|ä}}; it is spoken {{IPA|/ˈlɒŋwɜːd/}}.",
        "It denotes a vowel, such as /a/ or /ä/; it is spoken.",
    ),
    (
        "The area had a population density of {{Pop density|3645257|640081.87|km2|sqmi|prec=1}} in 2011.",
        "The area had a population density of 5.7/km² in 2011.",
    ),
    (
        "It pumped {{convert|50|koilbbl/d}} and weighed {{convert|37000|LT|t}} or {{convert|11|st|lb}}.",
        "It pumped 50 thousand barrels per day and weighed 37000 long tons or 11 st.",
    ),
    (
        "See {{harvtxt|Linden|Smith|1996}} for the {{sclass|Essex|aircraft carrier}} in {{music|flat}} key.",
        "See Linden & Smith (1996) for the Essex-class aircraft carrier in ♭ key.",
    ),
    ('"It is . . . important to see" and "so is this . . ."', '"It is ... important to see" and "so is this ..."'),
    (
        "Afghanistan (Pashto/Dari: {{foo|x}}, ''Afghanistan'') is a country. The ratio is: {{bar}}, as it was.",
        "Afghanistan (Pashto/Dari: Afghanistan) is a country. The ratio is: as it was.",
    ),
    (
        "The word ({{lang|la|urbs}}{{efn|Or not.}}) was {{citation needed span|text=used often|date=May 2010}} there.",
        "The word (urbs) was used often there.",
    ),
    (
        "About {{INRConvert|5|c}} or {{yen|500}} or {{A$|7}} was paid for {{nuclide2|calcium|48}} by {{US patent|123}}.",
        "About ₹5 crore or ¥500 or A$7 was paid for calcium-48 by U.S. Patent 123.",
    ),
    (
        "[[Category:X|{{PAGENAME}}]][[:Category:Y|The Y]] and [[:File:Z.jpg]] are here to see.",
        "The Y and File:Z.jpg are here to see.",
    ),
    (
        "__TOC__ __NOEDITSECTION__ {{DEFAULTSORT:Foo, Bar}} {{PAGENAME}} {{CURRENTYEAR}} Prose is here, after it.",
        "Prose is here, after it.",
    ),
    (
        "{{main|Foo}}{{see also|Bar}}\n{{Infobox\n|a={{{b|c}}}\n|d=<ref>x</ref>\n}}\nProse is here, after it.",
        "Prose is here, after it.",
    ),
    (
        "<poem>\nRoses are red and violets are blue\nSugar is sweet and so are you\n</poem>",
        "Roses are red and violets are blue Sugar is sweet and so are you",
    ),
    (
        "<!-- comment -->\n\n\n<br clear=all />\n<references />\n<ref name=a>x</ref>Prose is here, after it.",
        "Prose is here, after it.",
    ),
    (
        '{| class="wikitable"\n|+ Caption of it\n|-\n| rowspan=2 | [[File:A.jpg|x|b]] || {{convert|5|km}}\n|}\nProse is here, after it.',
        "Prose is here, after it.",
    ),
    (
        "阿拉（{{lang-ar|الله}}，{{IPA|x}}）和真主（{{foo}}，{{bar}}）是同一个词（；拼音）。",
        "阿拉（الله）和真主是同一个词（拼音）。",
    ),
    (
        "Ali ({{audio|a.ogg|listen}}; {{reign|1950|1960}}; {{floruit|1940}}) pressed {{key press|Ctrl|C}} {{circa|1950|1960}}.",
        "Ali (r. 1950–1960; fl. 1940) pressed Ctrl+C c. 1950 – c. 1960.",
    ),
    (
        "{{citat|Det var en gång en kung som hade tre döttrar.|Grimm}}\nDet sade {{audio|a.ogg|kungen}} på {{به انگلیسی|London}}.",
        "Det var en gång en kung som hade tre döttrar.\nDet sade kungen på London.",
    ),
    ("그는 {{따옴표|안녕하세요}}라고 말했다. {{ふりがな|漢字|かんじ}}.", "그는 “안녕하세요”라고 말했다. 漢字."),
    (
        "'''歌德'''（{{lang-de|Goethe}}，{{bd|1749年|8月28日|1832年|3月22日|catIdx=G}}），出生于法兰克福。",
        "歌德（Goethe，1749年8月28日—1832年3月22日），出生于法兰克福。",
    ),
    (
        "'''Albedo''' ({{IPAc-en|a}} or {{IPAc-en|b}}) and '''Og''' (pronounced {{IPA|[ˈɒgɒg]}}) are words (or so).",
        "Albedo and Og are words (or so).",
    ),
    ("'''الله''' ({{IPA|x}}، {{foo}}) كلمة، و'''رب''' ({{bar}}؛ أو إله) أيضا.", "الله كلمة، ورب (أو إله) أيضا."),
    (
        "'''X''', né le {{date de naissance|28|août|1749}} à [[Francfort]], est mort le {{date de décès-|22 mars 1832}}.",
        "X, né le 28 août 1749 à Francfort, est mort le 22 mars 1832.",
    ),
    (
        "'''Goethe''' (* [[28. August]] [[1749]] in [[Frankfurt am Main|Frankfurt]]; † [[22. März]] 1832) war Dichter.",
        "Goethe (* 28. August 1749 in Frankfurt; † 22. März 1832) war Dichter.",
    ),
    ('He "made it . . . well". "The end. . . . Then" it is.', 'He "made it ... well". "The end.... Then" it is.'),
]


@pytest.mark.parametrize(("wikitext", "prose"), CONSTRUCTS, ids=[wikitext[:30] for wikitext, _ in CONSTRUCTS])
def test_clean_wikitext_turns_construct_into_prose(wikitext: str, prose: str) -> None:
    assert clean_wikitext(wikitext) == prose
