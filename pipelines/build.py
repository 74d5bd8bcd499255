"""The build on Apache Beam: a linear chain that carries only numbers of portions and plans of shards.

Every step is a stage of `bertdata.build` over the work folder, so this file only wires. Grouping is a barrier: it
waits for all portions (all shards), and what it groups is nothing but their numbers. There are no side inputs, no
tagged outputs and no built-in sinks, because runners differ on them. A step may run twice, also at the same time:
what it writes has a name and bytes that depend only on its element.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from bertdata import build
from bertdata.errors import BertDataError, ConfigError, OutputError
from bertdata.fingerprint import library_versions
from bertdata.planning import ShardTask
from bertdata.work import Work
from pipelines.beam_options import pipeline_options
from pipelines.output import report_error
from pipelines.processes import GO_ON, RUNNER_VARIABLE, end_group_with
from pipelines.sharing import SharedTasks, portions_by_size

__all__ = ["COUNTERS", "build_on_beam", "build_pipeline"]

COUNTERS = ("portions", "read_bytes", "documents", "sentences", "tokens", "pairs", "shards", "shard_bytes")
"""Names of Beam's counters in the namespace `bertdata`; they count what was done, not what was found done."""


def _differing_versions(found: dict[str, str], *, wanted: dict[str, str]) -> ConfigError:
    """Returns what to say where a worker has other libraries than the launcher."""
    names = [name for name in wanted if found.get(name) != wanted[name]]
    told = ", ".join(f"{name} {found.get(name)} (not {wanted[name]})" for name in names)
    return ConfigError(f"workers have {told}; what decides a build's bytes must be the same as where the command runs")


class _Stage(beam.DoFn):  # type: ignore[misc]  # Beam has no types
    """Applies a stage to an element, counts it, and keeps its error for the launcher."""

    def __init__(self, stage: Callable[[Work, Any], Iterable[Any]], out: str) -> None:
        self._stage = stage
        self._out = out
        # Words are counted in a reading of their own; its documents are not counted twice.
        names = () if stage is _count_words else COUNTERS
        self._counters = {name: Metrics.counter("bertdata", name) for name in names}
        self._versions = library_versions()

    def setup(self) -> None:
        if (runner := os.environ.get(RUNNER_VARIABLE)) is not None:
            _end_once_with(int(runner))
        try:
            self._work = Work.load(self._out)
        except FileNotFoundError as error:
            raise OutputError(
                f"a worker finds no build in {self._out}: it runs on another machine, without a file system that all "
                "workers share. Put the output at s3:// or gs://, or mount it everywhere under the same path."
            ) from error
        if (found := library_versions()) != self._versions:
            wrong = _differing_versions(found, wanted=self._versions)
            report_error(self._work, wrong)
            raise wrong

    def process(self, element: Any) -> Iterator[Any]:
        what = f"{self._stage.__name__.strip('_')} {_name_of(element, self._work)}".strip()
        try:
            with self._work.running(what) as meter:
                yield from self._stage(self._work, element)
        except BertDataError as error:
            report_error(self._work, error)
            raise
        except OSError as error:
            where = error.filename or self._out
            report_error(self._work, OutputError(f"{where}: {error.strerror or error} (at {what}). {GO_ON}"))
            raise
        except MemoryError:
            advice = "with less memory, use fewer --num-workers"
            report_error(self._work, BertDataError(f"a worker ran out of memory (at {what}); {advice}. {GO_ON}"))
            raise
        for name, counter in self._counters.items():
            counter.inc(meter.counts[name])


_end_once_with = functools.cache(end_group_with)  # a process has several stages, and each sets up


def _name_of(element: Any, work: Work) -> str:
    """Returns what an element of the pipeline is called in messages."""
    if isinstance(element, int):
        first, *others = work.portions[element]
        return f"{element} ({first.name}{f' and {len(others)} more' if others else ''})"
    return element.name if isinstance(element, ShardTask) else ""


class _SharedStage(_Stage):
    """A stage whose tasks the workers of this machine share as they go; an element is a permit to take part."""

    def __init__(
        self, stage: Callable[[Work, Any], Iterable[Any]], out: str, find_tasks: Callable[[Work], Sequence[Any]]
    ) -> None:
        super().__init__(stage, out)
        self._find_tasks = find_tasks

    def setup(self) -> None:
        super().setup()
        folder = self._work.folder.local / "claims" / self._stage.__name__.strip("_")
        self._tasks = SharedTasks(folder, lambda: self._find_tasks(self._work))

    def process(self, element: Any) -> Iterator[Any]:
        with contextlib.closing(self._tasks.take(element)) as tasks:
            for task in tasks:
                list(super().process(task))
        yield None, element


def _count_words(work: Work, number: int) -> Iterator[tuple[None, int]]:
    yield None, build.count_words(work, number)


def _train_tokenizer(work: Work, group: tuple[None, Iterable[int]]) -> Iterator[int]:
    build.train_tokenizer(work)
    yield from sorted(group[1])


def _tokenize_portion(work: Work, number: int) -> Iterator[tuple[None, int]]:
    yield None, build.tokenize_portion(work, number)


def _plan_shards(work: Work, _: tuple[None, Iterable[int]]) -> Iterator[ShardTask]:
    yield from build.plan_shards(work)


def _build_shard(work: Work, task: ShardTask) -> Iterator[tuple[None, str]]:
    yield None, build.build_shard(work, task)


def _write_data_sets(work: Work, _: tuple[None, Iterable[str]]) -> Iterator[None]:
    build.write_data_sets(work)
    yield None


def build_pipeline(pipeline: beam.Pipeline, work: Work, *, share: bool = False) -> Any:
    """Adds the whole build to a pipeline; the elements are small records.

    Args:
        pipeline: Where to.
        work: A prepared build; a given tokenizer has been written, and only one to be trained has steps of its own.
        share: Whether all workers are on this machine, and share the tasks of a stage as they go.
    """

    def stage(function: Callable[[Work, Any], Iterable[Any]]) -> beam.ParDo:
        return beam.ParDo(_Stage(function, work.out))

    def spread(
        function: Callable[[Work, Any], Iterable[Any]], find_tasks: Callable[[Work], Sequence[Any]]
    ) -> beam.ParDo:
        return beam.ParDo(_SharedStage(function, work.out, find_tasks)) if share else stage(function)

    portions = (
        pipeline
        | "Portions" >> beam.Create(range(len(work.portions)), reshuffle=False)
        | "SpreadPortions" >> beam.Reshuffle()  # number of a portion
    )
    if work.options.tokenizer.path is None:
        portions = (
            portions
            | "CountWords" >> spread(_count_words, portions_by_size)  # (None, number of a portion)
            | "AllWords" >> beam.GroupByKey()
            | "TrainTokenizer" >> stage(_train_tokenizer)  # number of a portion
            | "SpreadPortionsAgain" >> beam.Reshuffle()
        )
    return (
        portions
        | "TokenizePortion" >> spread(_tokenize_portion, portions_by_size)  # (None, number of a portion)
        | "AllPortions" >> beam.GroupByKey()
        | "PlanShards" >> stage(_plan_shards)  # ShardTask
        | "SpreadShards" >> beam.Reshuffle()
        | "BuildShard" >> spread(_build_shard, Work.planned_shards)  # (None, name of a shard)
        | "AllShards" >> beam.GroupByKey()
        | "WriteDataSets" >> stage(_write_data_sets)
    )


def build_on_beam(work: Work, *, runner: str = "FnApiRunner", num_workers: int = 1, flags: Sequence[str] = ()) -> None:
    """Runs the build on a Beam runner and waits for it.

    Args:
        work: A prepared build.
        runner: Name of the runner.
        num_workers: Worker processes of FnApiRunner.
        flags: The user's own options for Beam.

    Raises:
        BertDataError: What a stage raised, or that the runner failed.
    """
    options = pipeline_options(runner=runner, num_workers=num_workers, flags=flags)
    try:
        if work.options.tokenizer.path is not None:
            build.train_tokenizer(work)  # its file lies on this machine, and workers may be elsewhere
        pipeline = beam.Pipeline(options=options)
        build_pipeline(pipeline, work, share=runner == "FnApiRunner")
        result = pipeline.run()
        try:
            result.wait_until_finish()
        except KeyboardInterrupt:
            result.cancel()  # else a job on other machines would run on
            raise
    except Exception as error:
        if (recorded := work.recorded_error()) is not None:
            raise recorded from error
        raise
