import pytest

import bertdata
from bertdata.blocks import Sample
from bertdata.errors import ConfigError, ShardError
from bertdata.inspection import describe_sample, iter_descriptions
from bertdata.wordpiece import new_bert_tokenizer

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "tree"]
SAMPLE = Sample(
    tokens=[2, 5, 6, 3, 7, 3],
    segment_ids=[0, 0, 0, 0, 1, 1],
    next_sentence_label=0,
    document_keys=(1, 1),
    mask_sets=[([2], [4]), ([4], [8])],
)


@pytest.fixture
def tokenizer():
    return new_bert_tokenizer({token: n for n, token in enumerate(VOCAB)}, lowercase=True, strip_accents=True)


def test_description_marks_one_mask_set(tokenizer):
    text = describe_sample(SAMPLE, tokenizer=tokenizer, next_sentence="balanced", mask_set=0)
    assert text.splitlines() == [
        "  A  [CLS] the «[MASK]|cat» [SEP]",
        "  B  sat [SEP]",
        "  label      0 IsNext",
        "  documents  0000000000000001 0000000000000001",
        "  mask set   0 of 2: 2: cat",
    ]
    assert "«tree|sat»" in describe_sample(SAMPLE, tokenizer=tokenizer, next_sentence="balanced", mask_set=1)


def test_descriptions_of_a_data_set(small_data_set):
    data_set = bertdata.open_data_set(small_data_set)
    texts = list(iter_descriptions(data_set, split="train", num_samples=130, mask_set=1))
    assert len(texts) == 130
    assert texts[0].startswith("train-00000-of-00003.tar, block 0, sample 0: ")
    assert texts[100].startswith("train-00000-of-00003.tar, block 1, sample 0: ")
    assert all("«" in text and "mask set   1 of 2" in text for text in texts)


def test_unknown_mask_set_is_an_error(small_data_set):
    data_set = bertdata.open_data_set(small_data_set)
    with pytest.raises(ConfigError, match="--mask-set is 2; this data set has the sets 0 to 1"):
        list(iter_descriptions(data_set, split="train", num_samples=1, mask_set=2))


def test_no_samples_is_an_error(small_data_set):
    data_set = bertdata.open_data_set(small_data_set)
    with pytest.raises(ShardError, match="has no other samples"):
        list(iter_descriptions(data_set, split="other", num_samples=1, mask_set=0))
