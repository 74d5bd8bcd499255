import itertools
import sys
import threading
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from bertdata.config import ReadOptions
from bertdata.encoder import Encoder, is_word_by_word
from bertdata.readers import iter_documents
from bertdata.splits import plan_splits
from bertdata.wordpiece import Vocabulary, load_tokenizer, new_bert_tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Two Unicode versions meet in the tokenizer and in Python; these characters have tricky rules in one or the other.
TRICKY = (
    "\x00\x0b\x0c\x1c\x85\xa0\xad\u200b\u200d\u2028\u2029\ufeff\ufffd\u037e\u1fef\u0344\u0130\u03a3\u03c2\u0301\u0338"
    "\u302e\u1100\u1161\u11a8\uac01\u4e00\u3400\uf900\U00020000\u3000\u3002\uff0c\u201c\u2019\u2026\U0001d15e\U0001d165"
    "\U0001f600\U0001f3fd\ue000\uffff .,$[]\t\n\r"
)
characters = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(TRICKY),
    st.sampled_from("abAB .,"),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x4E08),
    st.characters(min_codepoint=0x300, max_codepoint=0x36F),
)
pieces = st.one_of(st.text(characters), st.sampled_from(["[SEP]", "[MASK]", " [UNK] ", "##a"]))
sentences = st.lists(st.builds("".join, st.lists(pieces, max_size=4)), max_size=4)
normalizer_options = st.fixed_dictionaries(
    {name: st.booleans() for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")}
)


def tokenizer_for(texts, **options):
    """A tokenizer of BERT's kind that knows every character of the texts, so that no difference hides in an [UNK]."""
    normalizer = normalizers.BertNormalizer(**options)
    alphabet = sorted(set("".join(normalizer.normalize_str(text) for text in texts)))
    entries = dict.fromkeys([*SPECIALS, "ab", *alphabet, *(f"##{character}" for character in alphabet)])
    tokenizer = new_bert_tokenizer(
        {entry: number for number, entry in enumerate(entries)}, lowercase=False, strip_accents=False
    )
    tokenizer.normalizer = normalizer
    tokenizer.encode_special_tokens = True
    return tokenizer


def encoder_of(tokenizer, **options):
    return Encoder(tokenizer, Vocabulary.of(tokenizer), **options)


def assert_equals_encode(encoder, tokenizer, texts):
    ids, lengths = encoder.encode(texts)
    expected = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert lengths.tolist() == [len(row) for row in expected]
    # Compared as arrays: a list of differences of millions of ids is never printed.
    assert np.array_equal(ids, np.array([token for row in expected for token in row], dtype=ids.dtype))


@settings(max_examples=400, deadline=None)
@given(texts=sentences, options=normalizer_options)
@example(
    texts=["a\u0301.\u0301 \u0301b", "\u4e00\u0301x\u3002\u3002"],
    options={"clean_text": True, "handle_chinese_chars": True, "strip_accents": False, "lowercase": False},
)
def test_ids_equal_encode_for_every_text(texts, options):
    tokenizer = tokenizer_for(texts, **options)
    assert is_word_by_word(tokenizer)
    assert_equals_encode(encoder_of(tokenizer), tokenizer, texts)


@pytest.mark.slow
@pytest.mark.parametrize("cased", [True, False])
def test_ids_equal_encode_for_every_assigned_character(cased):
    codes = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]
    texts = [f"a{character}b. {character}\u0301" for character in map(chr, codes)]
    texts = ["".join(texts[start : start + 100]) for start in range(0, len(texts), 100)]
    tokenizer = tokenizer_for(
        texts, clean_text=True, handle_chinese_chars=True, strip_accents=not cased, lowercase=not cased
    )
    assert_equals_encode(encoder_of(tokenizer), tokenizer, texts)


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("name", ["books-en.jsonl.zst", "enwiki-106-articles.xml.bz2", "enwiki-tables.xml.bz2"])
def test_ids_equal_encode_over_all_real_text(shared_data, lowercase, name):
    tokenizer = load_tokenizer(shared_data / "bert-base-uncased-vocab.txt", lowercase=lowercase)
    encoder = encoder_of(tokenizer)
    for texts in batches_of_paragraphs(shared_data / name, num_documents=64):
        assert_equals_encode(encoder, tokenizer, texts)


def batches_of_paragraphs(path, *, num_documents):
    options = ReadOptions()
    for split in plan_splits([str(path)], options=options):
        documents = iter_documents(split, options=options, counts=Counter(), rejects=[])
        while batch := list(itertools.islice(documents, num_documents)):
            yield [paragraph for document in batch for paragraph in document.text.split("\n")]


def byte_level_bpe():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=60, special_tokens=SPECIALS, unk_token="[UNK]", show_progress=False
    )


@pytest.mark.parametrize("kind", [byte_level_bpe, unigram])
def test_a_tokenizer_of_another_kind_goes_the_plain_way(kind):
    texts = ["New York is a city.", "a [SEP] b", "한국 北京 \U0001f600", ""]
    tokenizer, trainer = kind()
    tokenizer.train_from_iterator(texts * 20, trainer)
    tokenizer.encode_special_tokens = True
    assert not is_word_by_word(tokenizer)
    assert_equals_encode(encoder_of(tokenizer), tokenizer, texts)


@pytest.mark.parametrize("content", ["New York", "york"])
def test_an_added_entry_goes_the_plain_way(content):
    texts = ["in New York, a New  York york", "NewYork"]
    tokenizer = tokenizer_for(texts, clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    tokenizer.add_tokens([AddedToken(content)])
    assert not is_word_by_word(tokenizer)
    assert_equals_encode(encoder_of(tokenizer), tokenizer, texts)


def test_the_cache_is_bounded_and_forgetting_changes_nothing():
    texts = [f"a{first} b{second} {first}{second}" for first in "xyz" for second in "uvw"]
    tokenizer = tokenizer_for(texts, clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    encoder = encoder_of(tokenizer, cache_words=4)
    sizes = []
    for text in texts * 3:
        assert_equals_encode(encoder, tokenizer, [text])
        sizes.append(encoder.num_cached_words)
    assert max(sizes) <= 4 + 3
    assert min(sizes[3:]) <= 3, "never forgotten"


def test_threads_share_an_encoder(tokenizer_file):
    """A word's ids are found by its number, so two threads that learn words at once must not number them alike."""
    texts = [[f"{thread} {number} a{thread}b{number}." for number in range(400)] for thread in range(4)]
    tokenizer = load_tokenizer(tokenizer_file)
    wanted = [encoder_of(tokenizer).encode(part)[0].tolist() for part in texts]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            encoder = encoder_of(tokenizer, cache_words=1000)
            ready = threading.Barrier(len(texts))

            def encode(part, encoder=encoder, ready=ready):
                ready.wait()
                return [encoder.encode(part[start : start + 20])[0].tolist() for start in range(0, len(part), 20)]

            with ThreadPoolExecutor(len(texts)) as pool:
                found = list(pool.map(encode, texts))
            assert [[token for ids in batches for token in ids] for batches in found] == wanted
    finally:
        sys.setswitchinterval(interval)
