"""The vocabulary: a WordPiece vocabulary trained on a deterministic sample of the input (`bertdata.vocabulary_sample`).

`tokenizers`' WordPieceTrainer numbers its alphabet in the order of a hash map, another one in every process. Here the
alphabet is fixed beforehand (characters by count until 0.9995 of all words are made of them, ties by code point, with
their continuing forms) and given to the trainer as special tokens, which it keeps in order; merges are deterministic
then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from bertdata.config import TokenizerOptions
from bertdata.errors import InputError
from bertdata.vocabulary_sample import VocabularySample
from bertdata.wordpiece import ROLES, new_bert_tokenizer

__all__ = ["train_wordpiece"]

COVERAGE = 0.9995  # of words
MIN_FREQUENCY = 2
# Characters that the normalizer sets apart and changes in no way.
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
SPECIALS = tuple(names[0] for names in ROLES.values())


def _count_words(chunks: Counter[str], *, normalizer: normalizers.Normalizer) -> Counter[str]:
    """Returns how often each word occurs, as normalizer and pre-tokenizer make words of chunks. Empties `chunks`."""
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    while chunks:
        chunk, count = chunks.popitem()
        parts = [chunk]
        if _CHINESE.search(chunk) is not None:
            # Each of these is a word. In Chinese a chunk is a paragraph, and the pre-tokenizer's time grows faster
            # than what it is given.
            parts = _CHINESE.split(chunk)
            for character in _CHINESE.findall(chunk):
                words[character] += count
        for part in parts:
            for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(part)) if part else ():
                words[word] += count
    return words


def _alphabet(words: Counter[str]) -> list[str]:
    """Returns the most frequent characters, sorted, of which 0.9995 of the words are made, then their continuing forms.

    One unknown character makes a whole word unknown, so the words are counted: 0.9995 of the characters left up to
    0.17 % of the tokens unknown. A character that only ever stands alone, as Chinese characters and punctuation do,
    needs no continuing form.
    """
    characters: Counter[str] = Counter()
    within: set[str] = set()
    for word, count in words.items():
        for character in word:
            characters[character] += count
        if len(word) > 1:
            within.update(word)
    by_frequency = sorted(characters, key=lambda character: (-characters[character], character))
    rank = {character: number for number, character in enumerate(by_frequency)}
    known_from: Counter[int] = Counter()  # words that are known once the character of that rank is
    for word, count in words.items():
        known_from[max(rank[character] for character in word)] += count
    left = words.total() - COVERAGE * words.total()
    num_kept = len(by_frequency)
    while num_kept and known_from[num_kept - 1] <= left:
        num_kept -= 1
        left -= known_from[num_kept]
    kept = sorted(by_frequency[:num_kept])
    return kept + [f"##{character}" for character in kept if character in within]


def _iter_repeated(words: Counter[str], *, batch: int = 1000) -> Iterator[str]:
    """Yields each word as often as it occurs, some at a time. Empties `words`, before the trainer needs the memory."""
    left = sorted(words, reverse=True)
    while left:
        word = left.pop()
        full, rest = divmod(words.pop(word), batch)
        for _ in range(full):
            yield " ".join([word] * batch)
        if rest:
            yield " ".join([word] * rest)


def _learn(words: Counter[str], *, alphabet: list[str], vocab_size: int) -> dict[str, int]:
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*SPECIALS, *alphabet],
        limit_alphabet=0,
        initial_alphabet=[],
        show_progress=False,
    )
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(_iter_repeated(words), trainer)
    return {text: number for text, number in tokenizer.get_vocab().items() if number < vocab_size}


def train_wordpiece(sample: VocabularySample, *, options: TokenizerOptions) -> Tokenizer:
    """Trains a WordPiece vocabulary and returns its tokenizer.

    English is lower-cased and its accents stripped, as in the published BERT; every other language keeps its case,
    because lower-casing with stripping merges words. `--lowercase` for another language keeps accents.

    Args:
        sample: What to train on; it is emptied, because the trainer needs the memory.
        options: Size of the vocabulary, and the case rule where it is forced.

    Raises:
        InputError: There is no text to train on.
    """
    english = sample.language.split("-")[0] == "en"
    lowercase = english if options.lowercase is None else options.lowercase
    strip_accents = (lowercase and english) if options.strip_accents is None else options.strip_accents
    normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    words = _count_words(sample.chunks, normalizer=normalizer)
    if not words:
        raise InputError(
            "no text to train a vocabulary on: no document came out of the input; check --input and --format"
        )
    room = options.vocab_size - len(SPECIALS)
    alphabet = _alphabet(words)[:room]
    vocab = _learn(words, alphabet=alphabet, vocab_size=options.vocab_size)
    return new_bert_tokenizer(vocab, lowercase=lowercase, strip_accents=strip_accents)
