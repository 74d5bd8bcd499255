"""Documents for the tests of pairs, and the pairs of them."""

from random import Random

import numpy as np

from bertdata.config import PairOptions
from bertdata.pairs import Pairs, build_pairs
from bertdata.prepare import cut_long_sentences, drop_single_sentences
from bertdata.seeds import hash64
from bertdata.spans import offsets_of
from bertdata.spill import Documents
from bertdata.wordpiece import Vocabulary

MODES = ("balanced", "google", "sop", "none")
PAIR_MODES = MODES[:3]


def documents_of(lengths, *, tokens=None) -> Documents:
    """Documents with sentences of the given lengths. By default each token is its own place in the corpus."""
    flat = np.array([length for document in lengths for length in document], dtype=np.int64)
    rows = np.arange(len(lengths))
    return Documents(
        keys=np.stack([hash64(1, rows), hash64(2, rows)], axis=1),
        sentence_offsets=offsets_of(np.array([len(document) for document in lengths], dtype=np.int64)),
        token_offsets=offsets_of(flat),
        tokens=np.arange(flat.sum(), dtype=np.uint32) if tokens is None else np.array(tokens, dtype=np.uint32),
    )


def vocabulary_of(size, *, punctuation=(), starts_word=None) -> Vocabulary:
    return Vocabulary(
        size=size,
        roles={"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4},
        dtype=np.dtype("<u4"),
        starts_word=None if starts_word is None else np.array(starts_word),
        marks_all_words=starts_word is not None,
        is_punctuation=np.isin(np.arange(size), list(punctuation)),
        ordinary=np.arange(5, size),
    )


def prepared(documents: Documents, *, max_seq_length: int) -> Documents:
    """What a build makes of documents before "balanced" and "sop"."""
    vocabulary = vocabulary_of(len(documents.tokens) + 5)
    cut = cut_long_sentences(documents, limit=max_seq_length // 2, vocabulary=vocabulary)
    return drop_single_sentences(cut)


def pairs_of(documents, mode, *, seed=0, max_seq_length=32, short_seq_prob=0.1, dupe_factor=1) -> Pairs:
    options = PairOptions(
        next_sentence=mode, max_seq_length=max_seq_length, short_seq_prob=short_seq_prob, dupe_factor=dupe_factor
    )
    return build_pairs(documents, options=options, seed=seed)


def token_tuples(documents: Documents, pairs: Pairs) -> list[tuple]:
    tokens = documents.tokens.tolist()
    spans = np.stack([pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop], axis=1).tolist()
    labels = pairs.next_sentence_label.tolist()
    return [(label, *tokens[a:b], None, *tokens[c:d]) for label, (a, b, c, d) in zip(labels, spans, strict=True)]


def varied_lengths(num_documents, *, most_sentences, most_tokens, seed, long_share=0.0, long=(0, 0), least=1):
    rng = Random(seed)

    def length():
        return rng.randint(*long) if rng.random() < long_share else rng.randint(1, most_tokens)

    return [[length() for _ in range(rng.randint(least, most_sentences))] for _ in range(num_documents)]


def mixed_documents(mean_sentences, *, num_documents=4000, seed=7) -> Documents:
    rng = np.random.default_rng(seed)
    counts = 1 + rng.geometric(1 / (mean_sentences - 1), num_documents)
    return documents_of([rng.integers(5, 45, count).tolist() for count in counts])
