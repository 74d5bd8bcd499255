import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from bertdata.encoder import Encoder
from bertdata.errors import ConfigError, TokenizerError
from bertdata.wordpiece import (
    Vocabulary,
    is_lowercase,
    load_tokenizer,
    new_bert_tokenizer,
    tokenizer_config,
)

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "hello",
    "Hello",
    "world",
    "##s",
    "việt",
    "Việt",
    "viet",
    "nam",
    "Nam",
    "한",
    "##국",
    "北",
    "京",
    ".",
    "a",
    "##b",
]
TEXTS = ["Hello worlds.", "Việt Nam", "한국", "北京", "a [SEP] [MASK] ab", "ab\u0085ab \u200d x\u0301", ""]


@pytest.fixture
def vocab_txt(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(SPECIALS + WORDS) + "\n", encoding="utf-8")
    return path


def encode(tokenizer, sentences):
    ids, lengths = Encoder(tokenizer, Vocabulary.of(tokenizer)).encode(sentences)
    stops = lengths.cumsum()
    return [ids[stop - length : stop].tolist() for stop, length in zip(stops, lengths, strict=True)]


@pytest.mark.parametrize("lowercase", [True, False])
def test_encoder_gives_the_ids_of_encode(vocab_txt, lowercase):
    tokenizer = load_tokenizer(vocab_txt, lowercase=lowercase)
    assert encode(tokenizer, TEXTS) == [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


def test_special_tokens_in_text_stay_text(vocab_txt):
    tokenizer = load_tokenizer(vocab_txt)
    (ids,) = encode(tokenizer, ["a [SEP] [MASK]"])
    assert not {tokenizer.token_to_id("[SEP]"), tokenizer.token_to_id("[MASK]")} & set(ids)


def test_vocab_txt_is_cased_when_an_entry_has_capitals(vocab_txt, tmp_path):
    assert is_lowercase(load_tokenizer(vocab_txt)) is False
    path = tmp_path / "lower.txt"
    path.write_text("\n".join([*SPECIALS, "[unused0]", "hello"]))
    assert is_lowercase(load_tokenizer(path)) is True


def test_configuration_beside_vocab_txt_decides_the_case(vocab_txt):
    (vocab_txt.parent / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "strip_accents": False}))
    tokenizer = load_tokenizer(vocab_txt.parent)
    assert is_lowercase(tokenizer) is True
    assert tokenizer.normalizer.normalize_str("Việt") == "việt"


def test_options_override_the_case(vocab_txt, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(load_tokenizer(vocab_txt).to_str())
    assert is_lowercase(load_tokenizer(path)) is False
    assert is_lowercase(load_tokenizer(path, lowercase=True)) is True
    with pytest.raises(ConfigError, match="its own normalizer"):
        load_tokenizer(_byte_pair_file(tmp_path), lowercase=True)


def _byte_pair_file(folder):
    names = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "a", "b", "Ġa", "Ġ", "ab"]
    tokenizer = Tokenizer(
        models.BPE({name: number for number, name in enumerate(names)}, [("a", "b")], unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(names[:5])
    path = folder / "bpe.json"
    path.write_text(tokenizer.to_str())
    return path


def test_other_tokenizers_are_taken_by_role(tmp_path):
    tokenizer = load_tokenizer(_byte_pair_file(tmp_path))
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.roles == {"pad": 2, "unk": 3, "cls": 0, "sep": 1, "mask": 4}
    assert vocabulary.starts_word.tolist() == [False] * 7 + [True, True, False]
    assert vocabulary.ordinary.tolist() == [5, 6, 7, 8, 9]
    assert is_lowercase(tokenizer) is None
    assert encode(tokenizer, ["ab a"]) == [[9, 8, 5]]


def test_truncation_and_padding_of_a_given_file_are_off(vocab_txt, tmp_path):
    tokenizer = load_tokenizer(vocab_txt)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=10)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str())
    assert [len(ids) for ids in encode(load_tokenizer(path), ["a a a a a", "a"])] == [5, 1]


def test_vocabulary_tables(vocab_txt):
    vocabulary = Vocabulary.of(load_tokenizer(vocab_txt))
    tokens = SPECIALS + WORDS
    assert [token for token, starts in zip(tokens, vocabulary.starts_word, strict=True) if not starts] == [
        "##s",
        "##국",
        "##b",
    ]
    assert [token for token, mark in zip(tokens, vocabulary.is_punctuation, strict=True) if mark] == ["."]
    assert [tokens[number] for number in vocabulary.ordinary] == WORDS


@pytest.mark.parametrize("lowercase", [True, False])
def test_auto_tokenizer_gives_the_same_ids(vocab_txt, tmp_path, lowercase):
    tokenizer = load_tokenizer(vocab_txt, lowercase=lowercase)
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(tokenizer)))
    auto = AutoTokenizer.from_pretrained(folder)
    texts = [text for text in TEXTS if "[" not in text]
    assert [auto(text, add_special_tokens=False)["input_ids"] for text in texts] == encode(tokenizer, texts)
    pair = auto("Hello", "world")
    assert auto.convert_ids_to_tokens(pair["input_ids"])[0] == "[CLS]"
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]
    assert (auto.cls_token_id, auto.mask_token_id, auto.pad_token_id) == (2, 4, 0)


def test_missing_special_token_is_named(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]))
    with pytest.raises(TokenizerError, match=r"no mask token.*\[MASK\], <mask>"):
        load_tokenizer(path)


def test_vocab_txt_entries_end_at_newlines_only(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*SPECIALS, "a", "\u2028", "\u0085", "b"]).encode())
    tokenizer = load_tokenizer(path)
    assert [tokenizer.token_to_id(token) for token in ("a", "\u2028", "\u0085", "b")] == [5, 6, 7, 8]


def test_unusable_files_are_named(tmp_path):
    with pytest.raises(TokenizerError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(TokenizerError, match="no tokenizer at"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="cannot be read as a tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIALS, "a", "a"]))
    with pytest.raises(TokenizerError, match="names an entry twice"):
        load_tokenizer(tmp_path / "vocab.txt")
    with pytest.raises(TokenizerError, match="no entries but special"):
        Vocabulary.of(
            new_bert_tokenizer({name: n for n, name in enumerate(SPECIALS)}, lowercase=True, strip_accents=True)
        )


def test_published_vocabulary(shared_data):
    tokenizer = load_tokenizer(shared_data / "bert-base-uncased-vocab.txt")
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.size == 30522
    assert is_lowercase(tokenizer) is True
    assert vocabulary.roles == {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
    assert len(vocabulary.ordinary) == 30522 - 5 - 994
    assert tokenizer.encode("Hello, Wörld!", add_special_tokens=False).tokens == ["hello", ",", "world", "!"]
