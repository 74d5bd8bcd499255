"""Whether weights from elsewhere know the same tokens, under the same ids, as the data that they are trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bertdata.data_set import DataSet
from bertdata.errors import TokenizerError, TrainingError
from bertdata.wordpiece import load_tokenizer

__all__ = ["check_vocabulary"]


def check_vocabulary(
    place: Path,
    *,
    option: str,
    num_rows: int,
    tokenizer: Path | None,
    tokenizer_sha256: str | None,
    data_set: DataSet,
) -> str | None:
    """Checks that every id stands for the same token in the weights and in the data set, as far as that is known.

    Args:
        place: Where the weights are, for messages.
        option: What named the place, for messages.
        num_rows: Rows of the word embeddings there; more than there are tokens only where all tokens are the same.
        tokenizer: The tokenizer.json or vocab.txt there; None where there is none.
        tokenizer_sha256: Hash of the tokenizer.json that the weights were trained with; None where it is not known.
        data_set: The data set.

    Returns:
        What else should be said; None for nothing.

    Raises:
        TrainingError: The vocabulary is another one.
    """
    said = data_set.manifest.tokenizer
    is_same = tokenizer_sha256 == said.sha256
    said_of_rules = None
    if not is_same and tokenizer is not None:
        said_of_rules = _compare(tokenizer, data_set, option=option)
        is_same = True
    hint = "build the data set with --tokenizer and the folder of those weights"
    if num_rows < said.vocab_size or (num_rows > said.vocab_size and not is_same):
        raise TrainingError(
            f"the vocabulary of {option} {place} has {num_rows} entries, that of {data_set.location} "
            f"{said.vocab_size}; {hint}"
        )
    if not is_same and tokenizer_sha256 is not None:
        raise TrainingError(f"{option} {place} was trained with another tokenizer than {data_set.location} has; {hint}")
    if not is_same:
        return (
            f"{option} {place} has no tokenizer.json and no vocab.txt: whether its ids mean the tokens of "
            f"{data_set.location} cannot be checked"
        )
    return said_of_rules


def _compare(path: Path, data_set: DataSet, *, option: str) -> str | None:
    """Returns in which rules for text two tokenizers of the same vocabulary differ."""
    own_path = data_set.folder / "tokenizer.json"
    try:
        # A bare vocab.txt is loaded with the case rule that lies beside it.
        there, here = (load_tokenizer(one.parent if one == path else one) for one in (path, own_path))
    except TokenizerError as error:
        raise TrainingError(f"the vocabulary of {option} cannot be checked: {error}") from error
    tokens_there, tokens_here = (
        {number: token for token, number in one.get_vocab(with_added_tokens=True).items()} for one in (there, here)
    )
    if tokens_there != tokens_here:
        number = min(
            one for one in tokens_there.keys() | tokens_here.keys() if tokens_there.get(one) != tokens_here.get(one)
        )
        raise TrainingError(
            f"{path} has another vocabulary than {data_set.location}: {len(tokens_there)} entries and "
            f"{len(tokens_here)}, id {number} is {tokens_there.get(number)!r} and {tokens_here.get(number)!r}; build "
            "the data set with --tokenizer and the folder of those weights"
        )
    rules_there, rules_here = _text_rules(there), _text_rules(here)
    if rules_there == rules_here:
        return None
    return (
        f"the tokenizer of {path} reads text by other rules than that of {data_set.location}: {rules_there}, not "
        f"{rules_here}"
    )


def _text_rules(tokenizer: Tokenizer) -> dict[str, Any]:
    rules: dict[str, Any] = json.loads(tokenizer.to_str())["normalizer"] or {}
    if rules.get("strip_accents", True) is None:  # follows the case
        rules["strip_accents"] = rules.get("lowercase")
    return rules
