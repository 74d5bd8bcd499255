"""The fingerprint of a build: a hash of what decides what it writes, by which the same command goes on with it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from typing import Any

from bertdata.config import BuildOptions
from bertdata.hooks import hash_of_hook
from bertdata.inputs import InputFile
from bertdata.wordpiece import tokenizer_files

__all__ = ["fingerprint_of", "library_versions"]


def library_versions() -> dict[str, str]:
    """Returns the versions that decide a build's bytes: this package, Python's (its Unicode tables), the libraries'."""
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("bertdata", "sentencex", "tokenizers"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def fingerprint_of(options: BuildOptions, *, inputs: Sequence[InputFile]) -> str:
    """Returns a hash of what decides what a build writes: options, the user's functions, tokenizer, versions, inputs.

    Raises:
        ConfigError: A function that an option names is not there.
    """
    values = options.to_json()
    for name in ("max_rejects", "skip_bad_splits"):  # they decide whether a build ends, not what it writes
        del values["read"][name]
    facts: dict[str, Any] = {"options": values, "versions": library_versions(), "inputs": inputs}
    facts["hooks"] = [hash_of_hook(name, option=option) for option, name in options.read.hooks.items()]
    if options.tokenizer.path is not None:
        files = tokenizer_files(options.tokenizer.path)
        facts["tokenizer"] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
