import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata.errors import ConfigError
from bertdata.sentences import has_letter, resolve_language, split_sentences

pytest.importorskip("sentencex")


@pytest.mark.parametrize(
    ("language", "text", "sentences"),
    [
        ("en", "Dr. Smith came. How are you?", ["Dr. Smith came.", "How are you?"]),
        ("en", "One paragraph\nand another\n\n three", ["One paragraph", "and another", "three"]),
        ("en", '"Stop!" he said. Then he left.', ['"Stop!" he said.', "Then he left."]),
        ("en", "1. Do this now. 2. Do that then.", ["1. Do this now.", "2. Do that then."]),
        ("en", "In 1990 it fell. 2000 people died.", ["In 1990 it fell.", "2000 people died."]),
        ("bg", "През 1990 г. той дойде. Тя остана.", ["През 1990 г. той дойде.", "Тя остана."]),
        (
            "bg",
            "Това е 5 в. пр. Хр. Около 1872 г. През 1873 г. дойде К. Цанков.",
            ["Това е 5 в. пр. Хр.", "Около 1872 г.", "През 1873 г. дойде К. Цанков."],
        ),
        (
            "ru",
            "Приехал Е. И. Чекальский, ум. 29-го мая 1676 г. В 1634 г. он жил.",
            ["Приехал Е. И. Чекальский, ум. 29-го мая 1676 г.", "В 1634 г. он жил."],
        ),
        ("ru", "Из Самарской обл., в 137 км. Да. Он ушёл.", ["Из Самарской обл., в 137 км.", "Да.", "Он ушёл."]),
        (
            "en",
            "See vol. 43 and pp. 162. It is no. 7. No. Not 8.",
            ["See vol. 43 and pp. 162.", "It is no. 7.", "No.", "Not 8."],
        ),
        (
            "en",
            '"You did it. Go on!" He left. _We won!_ So it was.',
            ['"You did it.', 'Go on!"', "He left.", "_We won!_", "So it was."],
        ),
        (
            "en",
            "'Why, yes. It's a dog's life,' said he. 'Is it?'",
            ["'Why, yes.", "It's a dog's life,' said he.", "'Is it?'"],
        ),
        ("zh", "面积５６．１万平方米。增长９９．９％。", ["面积５６．１万平方米。", "增长９９．９％。"]),
        ("zh", "他说。2020年。2021年！是吗？是。", ["他说。", "2020年。", "2021年！", "是吗？", "是。"]),
        ("zh", "他说：“你好。”她走了。", ["他说：“你好。”", "她走了。"]),
        ("ja", "彼は言った。「寝た。」", ["彼は言った。", "「寝た。」"]),
        ("hi", "वह आया। वह गया।", ["वह आया।", "वह गया।"]),
        ("xx-unknown", "One here. Two here.", ["One here.", "Two here."]),
        ("en", "", []),
        ("en", " \n \n", []),
        ("en", "Cafe\u0301.", ["Café."]),
    ],
)
def test_split_sentences_gives(language: str, text: str, sentences: list[str]) -> None:
    assert split_sentences(text, language=language) == sentences


@settings(deadline=None)
@given(st.text(alphabet="abC. 1。？！”)\n…é", max_size=60), st.sampled_from(["en", "zh", "de", "ar"]))
def test_split_sentences_loses_no_character(text: str, language: str) -> None:
    sentences = split_sentences(text, language=language)
    assert "".join("".join(sentences).split()) == "".join(unicodedata.normalize("NFC", text).split())
    assert all(sentence and sentence == sentence.strip() and "\n" not in sentence for sentence in sentences)


def test_split_sentences_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(ConfigError, match=r"pip install \"bertdata\[build\]\""):
        split_sentences("One.", language="en")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Plain text", "en"),
        ("Café au lait", "en"),
        ("Привет, мир", "ru"),
        ("你好，世界", "zh"),
        ("世界のこんにちは", "ja"),
        ("안녕하세요 世界", "ko"),
        ("مرحبا", "ar"),
        ("नमस्ते", "hi"),
        ("สวัสดี", "th"),
        ("Γειά σου", "el"),
        ("שלום", "he"),
        ("", "en"),
        ("“… 123”", "en"),
    ],
)
def test_resolve_language_goes_by_script(text: str, language: str) -> None:
    assert resolve_language(None, text, option="auto") == language


def test_resolve_language_prefers_option_then_document() -> None:
    assert resolve_language("fr", "Привет", option="de") == "de"
    assert resolve_language("fr", "Привет", option="auto") == "fr"


@pytest.mark.parametrize("text", ["1984", "— 3.5 %", "...", "½²", "٣", "_", "\u0301", ""])
def test_has_letter_finds_none_in(text):
    assert not has_letter(text)


@pytest.mark.parametrize("text", ["a", "1984 a", "7é", "三", "(한)", "ʻ", "9 ش"])
def test_has_letter_finds_those_of_any_script(text):
    assert has_letter(text)


@given(paragraphs=st.lists(st.text(alphabet="aB. \"'“’e\u0301\u0344\U0001f600", max_size=12), max_size=4))
def test_paragraphs_are_split_alone_as_together(paragraphs):
    alone = [sentence for text in paragraphs for sentence in split_sentences(text, language="en")]
    assert split_sentences("\n".join(paragraphs), language="en") == alone
