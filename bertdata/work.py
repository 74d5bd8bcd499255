"""The work folder: what a build has done so far, so that the same command goes on where it stopped.

    shards/.work/
    ├── lock                    held by the launcher
    ├── build.json              fingerprints, options, inputs, portions
    ├── words/00003.json        words of portion 3, where a vocabulary is trained
    ├── tokenizer.json
    ├── runs/00003-0000.run     tokenized documents of portion 3
    ├── splits/00003.json       counts of portion 3; it is done
    ├── plan.json               the shards that there will be
    ├── shards/128/train-00000-of-00002.tar.npz         statistics of a shard
    ├── shards/128/train-00000-of-00002.tar.json        blocks and counts of a shard; it is done, for the documents
    │                                                   that build.json excludes
    ├── running/4711            what a worker process is at, and how far
    ├── tmp                     temporary files of the processes, while they run
    ├── beam.log                what Beam printed
    └── error.json              what ended the build, for the launcher to say

Every file appears whole or not at all, under a name that depends only on what it is, so work done twice does no harm.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import platform
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata import errors
from bertdata.config import BuildOptions
from bertdata.errors import BertDataError, DownloadError, OutputError
from bertdata.files import write_atomically
from bertdata.hooks import hash_of_hook
from bertdata.index import INDEX
from bertdata.inputs import InputFile
from bertdata.manifest import MANIFEST
from bertdata.meter import Meter, metering
from bertdata.planning import ShardTask
from bertdata.portions import Portion, portions_from_json, portions_to_json
from bertdata.rejects import REJECTS
from bertdata.remote import is_uri
from bertdata.statistics import STATISTICS, Statistics
from bertdata.storage import Folder, child_place, open_folder
from bertdata.wordpiece import tokenizer_files

__all__ = [
    "Work",
    "clear_work",
    "data_set_places",
    "fingerprint_of",
    "library_versions",
    "remove_build",
    "shard_record",
    "shard_statistics",
]

_LOG = logging.getLogger(__name__)

WORK = ".work"
BUILD = "build.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_SHARDS = ("train-*.tar", "eval-*.tar")
_WRITTEN = (MANIFEST, INDEX, STATISTICS, *TOKENIZER_FILES, REJECTS, *_SHARDS)  # by a build


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
    del values["read"]["max_rejects"]  # decides whether a build ends, not what it writes
    facts: dict[str, Any] = {"options": values, "versions": library_versions(), "inputs": inputs}
    hooks = [("--format", options.read.format), ("--filter", options.read.filter)]
    facts["hooks"] = [hash_of_hook(name, option=option) for option, name in hooks if name is not None and ":" in name]
    if options.tokenizer.path is not None:
        files = tokenizer_files(options.tokenizer.path)
        facts["tokenizer"] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def data_set_places(out: str | Path, *, options: BuildOptions) -> list[str]:
    """Returns the place of each length: the output folder itself, or one in it each where there are several."""
    lengths = options.max_seq_lengths
    return [str(out)] if len(lengths) == 1 else [child_place(str(out), str(length)) for length in lengths]


def shard_record(task: ShardTask) -> str:
    """Returns the name of a shard's record within the work folder."""
    return f"shards/{task.max_seq_length}/{task.name}.json"


def shard_statistics(task: ShardTask) -> str:
    """Returns the name of a shard's statistics within the work folder."""
    return f"shards/{task.max_seq_length}/{task.name}.npz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A build in its output folder.

    Attributes:
        out: Place of the output folder, see `bertdata.storage`.
        fingerprint: From `fingerprint_of`.
        base_fingerprint: The same, of this build with no document excluded.
        options: What to build.
        inputs: The input as it was found.
        portions: The input, cut up.
        lock: Descriptor of the lock on the output folder, for processes that work in it; None where there is none.
    """

    out: str
    fingerprint: str
    base_fingerprint: str
    options: BuildOptions
    inputs: tuple[InputFile, ...]
    portions: tuple[Portion, ...]
    lock: int | None = None

    @property
    def out_folder(self) -> Folder:
        """The output folder."""
        return open_folder(self.out)

    @property
    def folder(self) -> Folder:
        """The work folder."""
        return open_folder(self.out).child(WORK)

    def data_set_folder(self, max_seq_length: int) -> Folder:
        """Returns where the shards of one length go."""
        return self.data_set_folders()[self.options.max_seq_lengths.index(max_seq_length)]

    def data_set_folders(self) -> list[Folder]:
        """Returns the folders of all lengths."""
        return [open_folder(place) for place in data_set_places(self.out, options=self.options)]

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Writes a record under `name` within the work folder."""
        self.folder.write(name, json.dumps(values, ensure_ascii=False).encode())

    def read(self, name: str) -> dict[str, Any]:
        """Reads the record `name`.

        Raises:
            OutputError: It is damaged.
        """
        data = self.folder.read(name)
        with self._reading(name):
            values: dict[str, Any] = json.loads(data)
            return values

    def has(self, name: str) -> bool:
        """Returns whether the record `name` is there."""
        return self.folder.has(name)

    def write_array(self, name: str, array: npt.NDArray[Any]) -> None:
        """Writes an array under `name` within the work folder."""
        sink = io.BytesIO()
        np.save(sink, array, allow_pickle=False)
        self.folder.write(name, sink.getvalue())

    def read_array(self, name: str) -> npt.NDArray[Any]:
        """Reads the array `name`.

        Raises:
            OutputError: It is damaged.
        """
        data = self.folder.read(name)
        with self._reading(name):
            array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
            return array

    def read_statistics(self, task: ShardTask) -> Statistics:
        """Reads the statistics of a shard.

        Raises:
            OutputError: They are damaged.
        """
        data = self.folder.read(shard_statistics(task))
        with self._reading(shard_statistics(task)):
            return Statistics.from_npz(data)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Says what to do about a file of the work folder that is not what was written."""
        try:
            yield
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise OutputError(
                f"the intermediate file {self.folder.location}/{name} is damaged ({error}); run the same command with "
                "--overwrite"
            ) from error

    def save(self) -> None:
        """Writes `build.json`."""
        values = {
            "fingerprint": self.fingerprint,
            "base_fingerprint": self.base_fingerprint,
            "options": self.options.to_json(),
            **portions_to_json(self.inputs, self.portions),
        }
        self.write(BUILD, values)

    @classmethod
    def load(cls, out: str | Path) -> Work:
        """Reads the build whose work folder is in `out`."""
        values = json.loads(open_folder(out).child(WORK).read(BUILD))
        inputs, portions = portions_from_json(values)
        return cls(
            out=str(out),
            fingerprint=values["fingerprint"],
            base_fingerprint=values["base_fingerprint"],
            options=BuildOptions.from_json(values["options"]),
            inputs=inputs,
            portions=portions,
        )

    def record_error(self, error: BertDataError) -> None:
        """Keeps an error for the launcher, because a runner passes on only its text, wrapped in tracebacks.

        Where the folder is elsewhere it is kept on this machine, too: the error may be that the folder is out of reach.
        """
        values = {"kind": type(error).__name__, "message": str(error)}
        local = self.folder.local
        is_supervised = is_uri(self.out) and local.exists()
        if is_supervised:
            write_atomically(local / "error.json", json.dumps(values).encode())
        try:
            self.write("error.json", values)
        except DownloadError as problem:
            if not is_supervised:
                raise
            _LOG.info("the error cannot be kept in %s: %s", self.folder.location, problem)

    def recorded_error(self) -> BertDataError | None:
        """Returns the error that a stage kept, if any."""
        path = self.folder.local / "error.json"
        if path.exists():
            values = json.loads(path.read_bytes())
        elif self.has("error.json"):
            values = self.read("error.json")
        else:
            return None
        kind: type[BertDataError] = getattr(errors, values["kind"])
        return kind(values["message"])

    @contextmanager
    def running(self, what: str) -> Iterator[Meter]:
        """Leaves word, under this process's id, of what it is doing and how far, for the launcher to show."""
        folder = self.folder.local / "running"
        is_supervised = folder.exists()
        with metering(what, path=folder / str(os.getpid()) if is_supervised else None) as meter:
            yield meter

    def is_finished(self) -> bool:
        """Returns whether all data sets have been committed."""
        return all(folder.has(MANIFEST) for folder in self.data_set_folders())

    def sweep(self) -> None:
        """Removes temporary files that a killed build left, and its error."""
        for folder in (self.out_folder, *self.data_set_folders()):
            folder.sweep()
        self.folder.sweep(recursive=True)
        self.folder.remove(["error.json"])


def remove_build(out: str | Path, *, options: BuildOptions) -> None:
    """Removes a build, finished or not, and nothing else, from the folders that `options` write to; manifests first."""
    inner = [open_folder(place) for place in data_set_places(out, options=options) if place != str(out)]
    for folder in (open_folder(out), *inner):
        names = folder.names()
        for pattern in _WRITTEN:
            folder.remove(fnmatch.filter(names, pattern))
        folder.sweep()
    for folder in inner:
        folder.remove_if_empty()
    clear_work(out)


def clear_work(out: str | Path) -> None:
    """Empties the work folder in `out` but for the lock; `build.json` first, without which the rest is nobody's."""
    folder = open_folder(out).child(WORK)
    folder.remove([BUILD])
    folder.clear(keep=["lock"])
