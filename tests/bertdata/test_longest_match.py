import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from bertdata.longest_match import LongestMatch, code_points
from bertdata.spans import offsets_of

LETTERS = "abc가\U0001d400"
words_of_letters = st.text(LETTERS, min_size=1, max_size=6)


def match(tokenizer, words):
    bounds = offsets_of(np.array([len(word) for word in words], dtype=np.int64))
    ids, lengths = LongestMatch(tokenizer).encode(code_points("".join(words)), bounds[:-1], bounds[1:])
    stops = np.cumsum(lengths)
    return [ids[stop - length : stop].tolist() for stop, length in zip(stops, lengths, strict=True)]


@given(
    first=st.sets(words_of_letters),
    following=st.sets(words_of_letters),
    words=st.lists(st.text(LETTERS, max_size=12), max_size=20),
    prefix=st.sampled_from(["##", "#", ""]),
    max_chars=st.integers(1, 12),
)
@example(first={"a", "ab"}, following={"c", "bc"}, words=["abc", "abcc", "abb", "", "b"], prefix="##", max_chars=100)
def test_ids_equal_those_of_the_library(first, following, words, prefix, max_chars):
    entries = sorted({"[UNK]", *first, *(prefix + text for text in following)})
    vocab = {entry: number for number, entry in enumerate(entries)}
    model = models.WordPiece(
        vocab, unk_token="[UNK]", continuing_subword_prefix=prefix, max_input_chars_per_word=max_chars
    )
    tokenizer = Tokenizer(model)
    expected = [[token.id for token in model.tokenize(word)] if word else [] for word in words]
    assert match(tokenizer, words) == expected


def test_words_of_many_lengths_at_once():
    letters = [chr(0x4E00 + number) for number in range(50)]
    vocab = {text: n for n, text in enumerate(["[UNK]", *letters, *(f"##{letter}" for letter in letters[:-1])])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    words = [
        "".join(letters[(start + place) % 50] for place in range(length))
        for start in range(40)
        for length in range(1, 110)
    ]
    assert match(tokenizer, words) == [[token.id for token in tokenizer.model.tokenize(word)] for word in words]
