"""Everything that can go wrong and that a user can mend.

    BertDataError
    ├── ConfigError       an option, or a combination of options, that is not allowed
    ├── InputError        no input, an unreadable or damaged input file, too many bad records
    │   └── ChangedInputError    an input file that is not there any more, or not what it was
    ├── TokenizerError    a tokenizer file that cannot be used, or lacks a special token
    ├── DownloadError     a dump that is not there, or that a server gives broken or not at all
    ├── OutputError       an output folder that holds another build, is in use, or is full
    ├── ShardError        a shard, index or manifest that is damaged, missing or of another version
    └── TrainingError     a training run that cannot start or go on

Each message says what was found, what is allowed and what to do. The command lines print it to stderr and exit
with 1 (2 for usage errors, which click reports itself).
"""

from __future__ import annotations

__all__ = [
    "BertDataError",
    "ChangedInputError",
    "ConfigError",
    "DownloadError",
    "InputError",
    "OutputError",
    "ShardError",
    "TokenizerError",
    "TrainingError",
]


class BertDataError(Exception):
    """Base of all errors that this project raises on purpose."""


class ConfigError(BertDataError):
    """An option, or a combination of options, is not allowed."""


class InputError(BertDataError):
    """An input is missing, unreadable or damaged."""


class ChangedInputError(InputError):
    """An input went or changed while it was read."""

    @classmethod
    def missing(cls, path: str) -> ChangedInputError:
        """Returns the error of a file that was there and is not any more."""
        return cls(f"{path} is not there any more; put it back, or leave it out of the input")

    @classmethod
    def between(cls, path: str, *, before: int, now: int) -> ChangedInputError:
        """Returns the error of a file that was changed, by its bytes before and now."""
        what = f"{before:,} bytes then, {now:,} now" if before != now else f"{now:,} bytes as then, but changed later"
        return cls(f"{path} was changed while it was read: {what}; run the same command again when it is complete")


class TokenizerError(BertDataError):
    """A tokenizer cannot be used for building shards."""


class DownloadError(BertDataError):
    """A dump cannot be fetched."""


class OutputError(BertDataError):
    """An output folder cannot be written to by this build."""


class ShardError(BertDataError):
    """A shard, index or manifest is damaged, missing or of another version."""


class TrainingError(BertDataError):
    """A training run cannot start or go on."""
