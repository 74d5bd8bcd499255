import numpy as np

from bertdata.spill import Documents, document_key, parse_key


def test_document_key_is_of_the_sentences():
    assert document_key(["a b", "c"]) == document_key(["a b", "c"])
    assert len({document_key(["a b", "c"]), document_key(["a", "b c"]), document_key(["a b c"])}) == 3
    assert document_key(["A cat."]).hex() == "9465fe4c9a5e9206a0e464c11ee7d81e"


def test_take_gives_rows_in_the_order_asked():
    documents = Documents(
        keys=np.array([[1, 0], [2, 0], [3, 0]], dtype=np.uint64),
        sentence_offsets=np.array([0, 2, 3, 4]),
        token_offsets=np.array([0, 1, 3, 4, 6]),
        tokens=np.array([10, 11, 12, 20, 30, 31], dtype=np.uint16),
    )
    taken = documents.take(np.array([2, 0, 2]))
    assert taken.keys[:, 0].tolist() == [3, 1, 3]
    assert taken.sentence_offsets.tolist() == [0, 1, 3, 4]
    assert taken.token_offsets.tolist() == [0, 2, 3, 5, 7]
    assert taken.tokens.tolist() == [30, 31, 10, 11, 12, 30, 31]
    assert len(documents.take(np.array([], dtype=int))) == 0


def test_parse_key_takes_16_or_32_digits_of_either_case():
    assert parse_key("7A01000000000000") == "7a01000000000000"
    assert parse_key("7a01" * 8) == "7a01" * 4
    for text in ("", "7a01", "g" * 16, "7a01" * 5, "7a01" * 4 + "\n"):
        assert parse_key(text) is None
