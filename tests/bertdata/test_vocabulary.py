import itertools
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer

from bertdata.config import ReadOptions, TokenizerOptions
from bertdata.documents import Document
from bertdata.errors import InputError
from bertdata.splits import plan_splits
from bertdata.vocabulary import SPECIALS, _alphabet, _count_words, train_wordpiece
from bertdata.vocabulary_sample import WordCounts, count_words_of_portion, read_vocabulary_sample
from bertdata.wordpiece import Vocabulary, is_lowercase
from tests.bertdata.memory_folder import MemoryFolder
from tests.corpus import iter_texts

CHINESE = "北京是中国的首都。北京有很多人。他们说汉语。"
KOREAN = "서울은 대한민국의 수도이다. 서울에는 사람이 많다."
VIETNAMESE = "Hà Nội là thủ đô của Việt Nam. Người dân nói tiếng Việt."


def sample_of(texts, *, language=None):
    counts = WordCounts(sample_bytes=1 << 30)
    for text in texts:
        counts.add(Document(id="", text=text, language=language), language_option="auto")
    folder = MemoryFolder()
    counts.write(folder, 0)
    return read_vocabulary_sample(folder, num_portions=1, sample_bytes=1 << 30)


def train(texts, **options):
    return train_wordpiece(sample_of(texts), options=TokenizerOptions(**options))


SCRIPT = """
import sys, hashlib
from tests.bertdata.test_vocabulary import sample_of
from bertdata.config import TokenizerOptions
from bertdata.vocabulary import train_wordpiece
texts = sys.stdin.read().split("|")
tokenizer = train_wordpiece(sample_of(texts), options=TokenizerOptions(vocab_size=400))
print(hashlib.sha256(tokenizer.to_str().encode()).hexdigest())
"""


def test_vocabulary_is_the_same_in_every_process_and_order():
    texts = [*iter_texts(40), CHINESE, KOREAN, VIETNAMESE]
    digests = set()
    for seed, order in (("1", texts), ("2", texts[::-1]), ("3", texts)):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input="|".join(order),
            env=environment,
            text=True,
            capture_output=True,
            check=True,
        )
        digests.add(run.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize("text", [CHINESE, KOREAN, VIETNAMESE, *itertools.islice(iter_texts(3), 2)])
def test_trained_vocabulary_knows_its_text(text):
    tokenizer = train([text] * 3)
    tokens = tokenizer.encode(text, add_special_tokens=False).tokens
    assert "[UNK]" not in tokens
    assert len(tokens) < len(text) or text == CHINESE


@pytest.mark.parametrize("first", [ord("a"), 0xAC00, 0x4E00, 0x430], ids=["latin", "korean", "chinese", "cyrillic"])
def test_unknown_tokens_are_rare_in_the_text_that_was_trained_on(first):
    # One word of 700 has a character of its own: one of 2,800 characters, so a share of characters would drop them all.
    words = ["".join(chr(first + (7 * number + place) % 26) for place in range(4)) for number in range(26)]
    rare = [f"{words[0][:3]}{chr(0x10D0 + number % 40)}" for number in range(60)]
    text = " ".join(word for number in range(60) for word in [*(words * 27)[:699], rare[number]])
    tokens = train([text]).encode(text, add_special_tokens=False).tokens
    assert tokens.count("[UNK]") <= 0.0005 * len(tokens)


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), st.integers(1, 5000), min_size=1))
def test_alphabet_is_the_smallest_that_makes_nearly_all_words(counts):
    counts = Counter(counts)
    kept = {character for character in _alphabet(counts) if not character.startswith("##")}
    known = sum(count for word, count in counts.items() if set(word) <= kept)
    assert known >= 0.9995 * counts.total()
    frequencies = Counter(character for word, count in counts.items() for character in word * count)
    last = min(kept, key=lambda character: (frequencies[character], -ord(character)))
    without = sum(count for word, count in counts.items() if set(word) <= kept - {last})
    assert without < 0.9995 * counts.total()


def test_special_tokens_come_first_and_alphabet_is_sorted():
    tokenizer = train(["b a c ab ba. 中"] * 5)
    vocab = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    assert tuple(vocab[:5]) == SPECIALS
    assert vocab[5:12] == [".", "a", "b", "c", "中", "##a", "##b"]
    assert "##中" not in vocab
    assert Vocabulary.of(tokenizer).roles == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}


def test_vocab_size_is_the_most():
    for size in (20, 60, 200):
        assert train(iter_texts(50), vocab_size=size).get_vocab_size() <= size
    assert train(iter_texts(50), vocab_size=60).get_vocab_size() == 60


def test_case_follows_the_language():
    english, vietnamese = train(iter_texts(5)), train([VIETNAMESE], lowercase=None)
    assert is_lowercase(english) is True
    assert english.normalizer.normalize_str("Éa") == "ea"
    assert is_lowercase(train_wordpiece(sample_of([VIETNAMESE], language="vi"), options=TokenizerOptions())) is False
    lowered = train_wordpiece(sample_of([VIETNAMESE], language="vi"), options=TokenizerOptions(lowercase=True))
    assert lowered.normalizer.normalize_str("Việt") == "việt"
    assert vietnamese is not None


def test_options_force_the_case():
    assert is_lowercase(train(iter_texts(5), lowercase=False)) is False
    kept = train(iter_texts(5), lowercase=True, strip_accents=False)
    assert kept.normalizer.normalize_str("Éa") == "éa"


def test_count_portion_reads_a_dump(wiki_file):
    (split,) = plan_splits([str(wiki_file)], options=ReadOptions())
    folder = MemoryFolder()
    count_words_of_portion(folder, 0, (split,), options=ReadOptions(), sample_bytes=1 << 30)
    sample = read_vocabulary_sample(folder, num_portions=1, sample_bytes=1 << 30)
    assert sample.language == "en"
    assert sample.chunks["the"] > 100


@given(st.text(st.sampled_from("ab中文㐀豈\u0301é.，か서 \u3000\u200d"), max_size=30), st.booleans())
def test_words_are_those_of_the_tokenizer(text, lowercase):
    normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=lowercase)
    wanted = Counter(word for word, _ in BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(text)))
    assert _count_words(Counter(text.split()), normalizer=normalizer) == wanted


def test_no_text_is_an_error():
    with pytest.raises(InputError, match="no document came out"):
        train([])
