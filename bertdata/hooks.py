"""Functions of the user's own, named as MODULE:FUNCTION: a reader for other formats, and a filter of documents.

    def read_poems(path: str) -> Iterator[str]:                  # --format my_corpus:read_poems
        yield from Path(path).read_text().split("* * *")

    def keep_prose(document: Document) -> Document | str:        # --filter my_corpus:keep_prose
        return document if document.text.count("|") < 10 else "tables"

The module is found as by `python -m`: installed, or in the folder in which the command runs. Workers import it too, so
on a cluster it has to be installed there. What a function prints in a worker is not shown.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from bertdata.documents import Document
from bertdata.errors import ConfigError

__all__ = ["Filter", "Reader", "describe_failure", "hash_of_hook", "load_hook"]

Record = str | Sequence[str] | Mapping[str, Any]


class Reader(Protocol):
    """Reads a file of the user's own format; named by `--format MODULE:FUNCTION`, and used for every input then.

    A file is read by one worker from its beginning to its end, maybe twice (for the vocabulary too), so each call must
    give the same records. What is yielded is treated like a record of JSONL: cleaned, checked and counted.
    """

    def __call__(self, path: str, /) -> Iterable[Record]:
        """Yields the documents of a file.

        Args:
            path: Absolute path of the file.

        Yields:
            For each document its text; or a list of its sentences; or a dictionary like a record of JSONL, with the
            text or sentences in the field that `--text-field` names, and a "language" if known.
        """


class Filter(Protocol):
    """Changes or drops documents; named by `--filter MODULE:FUNCTION`.

    It must depend on nothing but the document, so that every build gives the same.
    """

    def __call__(self, document: Document, /) -> Document | str:
        """Decides about a document.

        Args:
            document: The document. Where it has `sentences`, these are what is used, not its `text`.

        Returns:
            The document, or a changed copy of it (`dataclasses.replace`); or, to drop it, the reason: a few letters,
            digits, "_" or "-". Documents dropped for a reason are counted in the manifest as "filtered_<reason>".
        """


@lru_cache(maxsize=8)
def load_hook(name: str, *, option: str) -> Callable[..., Any]:
    """Returns the function that MODULE:FUNCTION names.

    Args:
        name: MODULE:FUNCTION.
        option: The option that named it, for messages.

    Raises:
        ConfigError: There is no such module or function, or the module fails on import.
    """
    module_name, _, function_name = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        hint = f"write {name.replace('.py:', ':')}" if ".py:" in name else ""
        hint = hint or f"install it, or run the command in the folder that {module_name}.py lies in"
        raise ConfigError(f"{option} {name}: {error}; {hint}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{option} {name}: {describe_failure(error, 'its import', hook=name)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = f"is {type(function).__name__}" if hasattr(module, function_name) else "is not there"
        raise ConfigError(f"{option} {name}: {function_name} {found}; it must be a function in {module_name}")
    return function  # type: ignore[no-any-return]


def hash_of_hook(name: str, *, option: str) -> str:
    """Returns the SHA-256 of the source file of a function, which decides what a build writes.

    Raises:
        ConfigError: There is no such module or function.
    """
    function = load_hook(name, option=option)
    source = inspect.getsourcefile(inspect.unwrap(function)) if inspect.isroutine(function) else None
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else name


def describe_failure(error: BaseException, what: str, *, hook: str) -> str:
    """Returns what went wrong in the user's own code, and at which line of it.

    Args:
        error: What was raised.
        what: What was being done.
        hook: MODULE:FUNCTION.
    """
    file = f"{hook.partition(':')[0].replace('.', '/')}.py"
    if isinstance(error, SyntaxError):
        places = [(error.filename or "", error.lineno)]
    else:
        frames = traceback.extract_tb(error.__traceback__)
        places = [(frame.filename, frame.lineno) for frame in frames if frame.filename.endswith(file)]
    where = f" ({places[-1][0]}, line {places[-1][1]})" if places else ""
    return f"{what} raised {type(error).__name__}: {error}{where}"
