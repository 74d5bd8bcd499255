"""The work folder: what a build has done so far, so that the same command goes on where it stopped.

    shards/.work/
    ├── lock                    held by the launcher
    ├── build.json              fingerprints, options, inputs, portions
    ├── words/00003.json        how much text of portion 3 may be in the vocabulary's sample
    ├── word_counts/00003.jsonl      its words, where a vocabulary is trained
    ├── tokenizer.json, tokenizer_config.json
    ├── runs/00003-0000.run     tokenized documents of portion 3
    ├── runs/00003-0000.npz     how many of them have which keys
    ├── splits/00003.json       counts of portion 3; it is done
    ├── ranges/128.places       where each shard begins in each run
    ├── plan.json               the shards that there will be, and the counts of all portions
    ├── shards/128/train-00000-of-00002.tar.npz         statistics of a shard
    ├── shards/128/train-00000-of-00002.tar.json        blocks and counts of a shard; it is done, for the documents
    │                                                   that build.json excludes
    ├── claims                  locks by which the workers of one machine share tasks
    ├── running/4711            what a worker process is at, and how far
    ├── tmp                     temporary files of the processes, while they run
    ├── beam.log                what Beam printed
    └── error.json              what ended the build, for the launcher to say

Of an output in an object store, `claims`, `running`, `tmp` and `beam.log` lie on the machine of the launcher, and the
lock is a lease. Every file appears whole or not at all, under a name that depends only on what it is, so work done
twice does no harm.
"""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertdata import errors
from bertdata.config import BuildOptions
from bertdata.errors import BertDataError, DownloadError, OutputError
from bertdata.files import write_atomically
from bertdata.inputs import InputFile
from bertdata.manifest import MANIFEST
from bertdata.meter import Meter, metering
from bertdata.planning import ShardTask
from bertdata.portions import Portion, portions_from_json, portions_to_json
from bertdata.statistics import Statistics
from bertdata.storage import Folder, child_place, open_folder
from bertdata.uris import is_uri

__all__ = [
    "BUILD",
    "ERROR",
    "PLAN",
    "WORK",
    "Work",
    "data_set_places",
    "portion_record",
    "shard_record",
    "shard_statistics",
]

_LOG = logging.getLogger(__name__)

WORK = ".work"
BUILD = "build.json"
PLAN = "plan.json"
ERROR = "error.json"


def data_set_places(out: str | Path, *, options: BuildOptions) -> list[str]:
    """Returns the place of each length: the output folder itself, or one in it each where there are several."""
    lengths = options.max_seq_lengths
    return [str(out)] if len(lengths) == 1 else [child_place(str(out), str(length)) for length in lengths]


def portion_record(number: int) -> str:
    """Returns the name of the record of portion `number` within the work folder."""
    return f"splits/{number:05d}.json"


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
        fingerprint: From `bertdata.fingerprint`.
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

    @property
    def runs_folder(self) -> Folder:
        """The folder of the runs."""
        return self.folder.child("runs")

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

    def planned_shards(self) -> list[ShardTask]:
        """Returns the shards that are planned; the small ones for evaluation come last.

        Raises:
            OutputError: The plan is damaged.
        """
        return [ShardTask(**task) for task in self.read(PLAN)["tasks"]]

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
            write_atomically(local / ERROR, json.dumps(values).encode())
        try:
            self.write(ERROR, values)
        except DownloadError as problem:
            if not is_supervised:
                raise
            _LOG.info("the error cannot be kept in %s: %s", self.folder.location, problem)

    def recorded_error(self) -> BertDataError | None:
        """Returns the error that a stage kept, if any."""
        path = self.folder.local / ERROR
        if path.exists():
            values = json.loads(path.read_bytes())
        elif self.has(ERROR):
            values = self.read(ERROR)
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
        self.folder.remove([ERROR])
