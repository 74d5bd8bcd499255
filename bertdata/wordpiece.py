"""Tokenizers: loading and writing them, and what is known about each of their ids.

A tokenizer is a `tokenizers.Tokenizer`, loaded from a `tokenizer.json`, a `vocab.txt` or a folder that holds one. Ids
are those of its own `encode` without special tokens; text that spells "[SEP]" stays text.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bertdata.errors import ConfigError, TokenizerError
from bertdata.files import write_atomically
from bertdata.shards import token_dtype

__all__ = [
    "MAX_TOKENIZER_BYTES",
    "MAX_VOCAB_SIZE",
    "ROLES",
    "Vocabulary",
    "encode_tokenizer",
    "is_lowercase",
    "load_tokenizer",
    "new_bert_tokenizer",
    "parse_tokenizer",
    "tokenizer_config",
    "tokenizer_files",
    "write_tokenizer",
]

ROLES: dict[str, tuple[str, ...]] = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}
"""Names under which special tokens are looked for, by role; BERT's own come first."""

MAX_VOCAB_SIZE = 1 << 22
"""Ids of a vocabulary at most; what is made per id stays small."""

MAX_TOKENIZER_BYTES = 1 << 28
"""Bytes of each file of a data set's tokenizer at most."""

_WORD_START_MARKS = ("\u0120", "\u2581")  # byte-level BPE's space, sentencepiece's space


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """What the pair and mask stages need to know about each of V ids.

    Attributes:
        size: V, one more than the highest id.
        roles: Ids of the special tokens, by role: pad, unk, cls, sep, mask.
        dtype: dtype of the ids in runs and shards.
        starts_word: bool [V]; the piece begins a word. None where the tokenizer does not tell.
        marks_all_words: Every word begins with such a piece, also the first of a sentence.
        is_punctuation: bool [V]; the piece is one mark of punctuation that closes something: no opening bracket, no
            straight quote.
        ordinary: int64 [R]; ids that may replace a token at random: neither special nor reserved ("[unused7]").
    """

    size: int
    roles: dict[str, int]
    dtype: np.dtype[Any]
    starts_word: npt.NDArray[np.bool_] | None
    marks_all_words: bool
    is_punctuation: npt.NDArray[np.bool_]
    ordinary: npt.NDArray[np.int64]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Reads the vocabulary of a tokenizer.

        Raises:
            TokenizerError: A special token is missing, or an id is too high.
        """
        ids = tokenizer.get_vocab(with_added_tokens=True)
        size = max(ids.values()) + 1
        if size > MAX_VOCAB_SIZE:
            raise TokenizerError(f"the tokenizer has ids up to {size - 1}; they must be below {MAX_VOCAB_SIZE}")
        roles = _find_roles(ids)
        texts = [""] * size
        for text, number in ids.items():
            texts[number] = text
        special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        special |= set(roles.values())
        reserved = {number for number, text in enumerate(texts) if not text or text.startswith("[unused")}
        ordinary = [number for number in range(size) if number not in special and number not in reserved]
        if not ordinary:
            raise TokenizerError("the tokenizer has no entries but special tokens; give one that was trained on text")
        starts_word = _starts_word(tokenizer, texts)
        bare = [text.removeprefix("##").lstrip("".join(_WORD_START_MARKS)) for text in texts]
        return cls(
            size=size,
            roles=roles,
            dtype=token_dtype(size),
            starts_word=starts_word,
            marks_all_words=starts_word is not None and _begins_with_word(tokenizer, starts_word),
            is_punctuation=np.array([_is_closing_mark(text) for text in bare]),
            ordinary=np.array(ordinary, dtype=np.int64),
        )


def _find_roles(ids: dict[str, int]) -> dict[str, int]:
    roles = {}
    for role, names in ROLES.items():
        found = [name for name in names if name in ids]
        if not found:
            raise TokenizerError(
                f"the tokenizer has no {role} token: none of {', '.join(names)} is in its vocabulary. "
                "Add it to the vocabulary, or leave out --tokenizer to have one trained."
            )
        roles[role] = ids[found[0]]
    return roles


def _begins_with_word(tokenizer: Tokenizer, starts_word: npt.NDArray[np.bool_]) -> bool:
    ids = tokenizer.encode("a", add_special_tokens=False).ids
    return bool(ids) and bool(starts_word[ids[0]])


def _is_closing_mark(text: str) -> bool:
    return len(text) == 1 and unicodedata.category(text) in ("Pd", "Pe", "Pf", "Po") and text not in "\"'"


def _starts_word(tokenizer: Tokenizer, texts: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    model = json.loads(tokenizer.to_str())["model"]
    if model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        return np.array([not text.startswith(prefix) for text in texts])
    marked = np.array([text.startswith(_WORD_START_MARKS) for text in texts])
    return marked if marked.any() else None


def new_bert_tokenizer(vocab: dict[str, int], *, lowercase: bool, strip_accents: bool) -> Tokenizer:
    """Returns a tokenizer of BERT's kind: its normalizer, pre-tokenizer, WordPiece and template of special tokens.

    Args:
        vocab: Ids by token; holds [PAD], [UNK], [CLS], [SEP] and [MASK].
        lowercase: Lower-case all text.
        strip_accents: Remove accents.

    Source: the published BERT tokenizer, as `tokenizers` implements it.
    """
    roles = _find_roles(vocab)
    names = {role: next(name for name in ROLES[role] if name in vocab) for role in ROLES}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=names["unk"], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names['cls']} $A {names['sep']}",
        pair=f"{names['cls']} $A {names['sep']} $B:1 {names['sep']}:1",
        special_tokens=[(names["cls"], roles["cls"]), (names["sep"], roles["sep"])],
    )
    tokenizer.add_special_tokens(sorted(names.values(), key=vocab.__getitem__))
    return tokenizer


def _is_cased(vocab: dict[str, int]) -> bool:
    specials = {name for names in ROLES.values() for name in names}
    return any(text not in specials and not text.startswith("[") and text != text.lower() for text in vocab)


def _load_vocab_txt(
    path: Path, *, config: dict[str, Any], lowercase: bool | None, strip_accents: bool | None
) -> Tokenizer:
    # Not splitlines, which also splits at characters that published vocabularies have as entries, such as U+2028.
    entries = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    entries = [entry.removesuffix("\r") for entry in entries]
    vocab = {text: number for number, text in enumerate(entries)}
    if len(vocab) != len(entries):
        raise TokenizerError(f"{path} names an entry twice; each line must be another token")
    if lowercase is None:
        lowercase = config.get("do_lower_case", not _is_cased(vocab))
    if strip_accents is None:
        strip_accents = config.get("strip_accents")
    return new_bert_tokenizer(
        vocab, lowercase=lowercase, strip_accents=lowercase if strip_accents is None else strip_accents
    )


def _override_case(tokenizer: Tokenizer, *, path: Path, lowercase: bool | None, strip_accents: bool | None) -> None:
    if lowercase is None and strip_accents is None:
        return
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        raise ConfigError(
            f"{path} has its own normalizer, so its case cannot be chosen; leave out --lowercase, --cased, "
            "--strip-accents and --keep-accents"
        )
    if lowercase is not None:
        normalizer.lowercase = lowercase
    if strip_accents is not None:
        normalizer.strip_accents = strip_accents
    tokenizer.normalizer = normalizer


def tokenizer_files(path: str | Path) -> list[Path]:
    """Returns the files of a tokenizer: its `tokenizer.json` or `vocab.txt`, then its configuration if there is one.

    Raises:
        TokenizerError: There is none.
    """
    path = Path(path)
    candidates = [path / "tokenizer.json", path / "vocab.txt"] if path.is_dir() else [path]
    found = [candidate for candidate in candidates if candidate.is_file()]
    if not found:
        raise TokenizerError(
            f"no tokenizer at {path}; give a tokenizer.json, a vocab.txt, or a folder that holds one of them"
        )
    config = found[0].with_name("tokenizer_config.json")
    return [found[0], config] if config.exists() else found[:1]


def load_tokenizer(path: str | Path, *, lowercase: bool | None = None, strip_accents: bool | None = None) -> Tokenizer:
    """Loads a tokenizer and makes it give the plain ids of a text: no specials, truncation or padding.

    Args:
        path: `tokenizer.json`, `vocab.txt` (one token per line), or a folder that holds one of them.
        lowercase: Forces the case rule; None for the file's own, or by its entries for a bare `vocab.txt`.
        strip_accents: Forces the accent rule; None for the file's own, which for BERT follows the case.

    Raises:
        TokenizerError: There is no such file, or it cannot be used.
        ConfigError: A case rule is forced on a tokenizer that has its own normalizer.
    """
    path, *configs = tokenizer_files(path)
    try:
        config = json.loads(configs[0].read_bytes()) if configs else {}
        if path.suffix == ".json":
            tokenizer = Tokenizer.from_file(str(path))
            _override_case(tokenizer, path=path, lowercase=lowercase, strip_accents=strip_accents)
        else:
            tokenizer = _load_vocab_txt(path, config=config, lowercase=lowercase, strip_accents=strip_accents)
    except (ConfigError, TokenizerError):
        raise
    except Exception as error:  # `tokenizers` raises bare Exception for a file it cannot parse
        raise TokenizerError(f"{path} cannot be read as a tokenizer ({error})") from error
    return _made_plain(tokenizer)


def parse_tokenizer(data: bytes, *, where: str) -> Tokenizer:
    """Returns the tokenizer of the bytes of a `tokenizer.json` that `encode_tokenizer` gave, like `load_tokenizer`.

    Raises:
        TokenizerError: They are none; `where` it is said to lie.
    """
    try:
        return _made_plain(Tokenizer.from_buffer(data))
    except Exception as error:  # as above
        raise TokenizerError(f"{where} cannot be read as a tokenizer ({error})") from error


def _made_plain(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def is_lowercase(tokenizer: Tokenizer) -> bool | None:
    """Returns whether a tokenizer lower-cases its text, None where it is not of BERT's kind."""
    normalizer = tokenizer.normalizer
    return bool(normalizer.lowercase) if isinstance(normalizer, normalizers.BertNormalizer) else None


def tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns what `tokenizer_config.json` says, so that `transformers.AutoTokenizer` gives the same ids."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    names = {role: next(name for name in ROLES[role] if name in vocab) for role in ROLES}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
    config |= {f"{role}_token": name for role, name in names.items()}
    lowercase = is_lowercase(tokenizer)
    if lowercase is not None:
        config["do_lower_case"] = lowercase
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return config


def encode_tokenizer(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Returns the files of a tokenizer by name: `tokenizer_config.json`, then `tokenizer.json`."""
    config = json.dumps(tokenizer_config(tokenizer), indent=2)
    return {
        "tokenizer_config.json": (config + "\n").encode(),
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
    }


def write_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Writes a tokenizer to `path`, and `tokenizer_config.json` beside it first."""
    config, data = encode_tokenizer(tokenizer).values()
    write_atomically(path.with_name("tokenizer_config.json"), config)
    write_atomically(path, data)
