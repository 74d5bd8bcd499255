import pytest

from trainer.text_words import find_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n", []),
        ('"We\'re in St. Ives!"', ['"', "We're", "in", "St", ".", "Ives", "!", '"']),
        ("a well-known (old) town...", ["a", "well-known", "(", "old", ")", "town", ".", ".", "."]),
        ("?!", ["?", "!"]),
        ("\u6211\u5728Berlin\u3002", ["\u6211", "\u5728", "Berlin", "\u3002"]),
        ("\u00abna\u00efve\u00bb \t 3.5%", ["\u00ab", "na\u00efve", "\u00bb", "3.5", "%"]),
    ],
)
def test_words_and_marks(text: str, words: list[str]) -> None:
    found = find_words(text)
    assert [text[start:stop] for start, stop in found] == words
    assert found == sorted(found)
