"""The build on Apache Beam: a linear chain that carries only numbers of portions and plans of shards.

Every step is a stage of `bertdata.build` over the work folder, so this file only wires. Grouping is a barrier: it
waits for all portions (all shards), and what it groups is nothing but their numbers. There are no side inputs, no
tagged outputs and no built-in sinks, because runners differ on them. A step may run twice, also at the same time:
what it writes has a name and bytes that depend only on its element.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from bertdata import build
from bertdata.errors import BertDataError, ConfigError, OutputError
from bertdata.planning import ShardTask
from bertdata.work import Work

__all__ = ["COUNTERS", "build_on_beam", "build_pipeline", "check_beam_options", "pipeline_options"]

COUNTERS = ("portions", "read_bytes", "documents", "sentences", "tokens", "pairs", "shards", "shard_bytes")
"""Names of Beam's counters in the namespace `bertdata`; they count what was done, not what was found done."""


class _Stage(beam.DoFn):  # type: ignore[misc]  # Beam has no types
    """Applies a stage to an element, counts it, and keeps its error for the launcher."""

    def __init__(self, stage: Callable[[Work, Any], Iterable[Any]], out: str) -> None:
        self._stage = stage
        self._out = out
        # Words are counted in a reading of their own; its documents are not counted twice.
        names = () if stage is _count_words else COUNTERS
        self._counters = {name: Metrics.counter("bertdata", name) for name in names}

    def setup(self) -> None:
        self._work = Work.load(self._out)

    def process(self, element: Any) -> Iterator[Any]:
        with self._work.running(f"{self._stage.__name__.strip('_')} {element}") as meter:
            try:
                yield from self._stage(self._work, element)
            except BertDataError as error:
                self._work.record_error(error)
                raise
            except OSError as error:
                self._work.record_error(OutputError(f"{error.filename or self._out}: {error.strerror or error}"))
                raise
        for name, counter in self._counters.items():
            counter.inc(meter.counts[name])


def _count_words(work: Work, number: int) -> Iterator[tuple[None, int]]:
    yield None, build.count_words(work, number)


def _train_tokenizer(work: Work, group: tuple[None, Iterable[int]]) -> Iterator[int]:
    build.train_tokenizer(work)
    yield from sorted(group[1])


def _tokenize_split(work: Work, number: int) -> Iterator[tuple[None, int]]:
    yield None, build.tokenize_split(work, number)


def _plan_shards(work: Work, _: tuple[None, Iterable[int]]) -> Iterator[ShardTask]:
    yield from build.plan_shards(work)


def _build_shard(work: Work, task: ShardTask) -> Iterator[tuple[None, str]]:
    yield None, build.build_shard(work, task)


def _write_data_sets(work: Work, _: tuple[None, Iterable[str]]) -> Iterator[None]:
    build.write_data_sets(work)
    yield None


def build_pipeline(pipeline: beam.Pipeline, work: Work) -> Any:
    """Adds the whole build to a pipeline; the elements are small records."""

    def stage(function: Callable[[Work, Any], Iterable[Any]]) -> beam.ParDo:
        return beam.ParDo(_Stage(function, work.out))

    return (
        pipeline
        | "Splits" >> beam.Create(range(len(work.portions)), reshuffle=False)
        | "SpreadSplits" >> beam.Reshuffle()  # number of a portion
        | "CountWords" >> stage(_count_words)  # (None, number of a portion)
        | "AllWords" >> beam.GroupByKey()
        | "TrainTokenizer" >> stage(_train_tokenizer)  # number of a portion
        | "SpreadSplitsAgain" >> beam.Reshuffle()
        | "TokenizeSplit" >> stage(_tokenize_split)  # (None, number of a portion)
        | "AllSplits" >> beam.GroupByKey()
        | "PlanShards" >> stage(_plan_shards)  # ShardTask
        | "SpreadShards" >> beam.Reshuffle()
        | "BuildShard" >> stage(_build_shard)  # (None, name of a shard)
        | "AllShards" >> beam.GroupByKey()
        | "WriteDataSets" >> stage(_write_data_sets)
    )


def _known_flags() -> list[str]:
    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    return [flag for action in parser._actions for flag in action.option_strings]


def check_beam_options(flags: Sequence[str]) -> None:
    """Raises ConfigError, with the nearest name, for an option that Beam does not know."""
    known = _known_flags()
    for flag in (flag.split("=")[0] for flag in flags if flag.startswith("--")):
        if flag not in known:
            nearest = difflib.get_close_matches(flag, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ConfigError(f"Apache Beam has no option {flag}{hint}")


def pipeline_options(*, runner: str, num_workers: int, flags: Sequence[str] = ()) -> PipelineOptions:
    """Returns Beam's options.

    Args:
        runner: Name of the runner; FnApiRunner works on this machine.
        num_workers: Worker processes of FnApiRunner.
        flags: The user's own options for Beam.

    Raises:
        ConfigError: Beam does not know an option.
    """
    check_beam_options(flags)
    local = [f"--direct_num_workers={num_workers}"]
    local.append(f"--direct_running_mode={'in_memory' if num_workers == 1 else 'multi_processing'}")
    quiet = ["--default_sdk_harness_log_level=WARNING"]
    options = PipelineOptions([f"--runner={runner}", *(local if runner == "FnApiRunner" else []), *quiet, *flags])
    options.view_as(SetupOptions).save_main_session = False
    return options


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
        pipeline = beam.Pipeline(options=options)
        build_pipeline(pipeline, work)
        pipeline.run().wait_until_finish()
    except Exception as error:
        if (recorded := work.recorded_error()) is not None:
            raise recorded from error
        raise
