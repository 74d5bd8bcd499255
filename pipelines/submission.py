"""What must be right before a build goes to a runner: asked before anything starts, and before anything is written.

Where the workers are decides what they can reach:

    here          this machine: FnApiRunner, and others with LOOPBACK workers, which are threads of the build's process
    machines      processes on other machines (PROCESS, EXTERNAL): a path only where their file system has it too
    containers    DOCKER, and Dataflow: nothing but object stores
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bertdata.config import BuildOptions
from bertdata.errors import ConfigError
from bertdata.uris import is_uri

__all__ = ["Submission", "check_submission"]

Place = Literal["here", "machines", "containers"]

_DATAFLOW = ("google.auth", "google.cloud.dataflow", "google.cloud.storage")
_JOB_SERVERS = {"FlinkRunner": "flink_job_server_jar", "SparkRunner": "spark_job_server_jar"}
_PYTHON_OF_IMAGE = re.compile(r"python-?(\d+\.\d+)")
_BEAM_OF_IMAGE = re.compile(r"beam_python\d+\.\d+_sdk:(\d+\.\d+\.\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A runner with its options, found to be in order.

    Attributes:
        runner: Name of the runner.
        workers: Where its workers are.
        notes: What the user should know before it starts.
        values: Beam's options; None where there are none and Beam has not been imported.
    """

    runner: str
    workers: Place
    notes: tuple[str, ...] = ()
    values: Namespace | None = None

    def packages(self) -> AbstractContextManager[list[str]]:
        """Makes ready what brings this package to the workers, see `packages_for_workers`."""
        if self.workers == "here" or self.values is None:
            return nullcontext([])
        from pipelines.packages import packages_for_workers

        return packages_for_workers(self.values)


def check_submission(
    runner: str, *, flags: Sequence[str], inputs: Sequence[str], out: Path | str, options: BuildOptions
) -> Submission:
    """Checks that a runner can do a build.

    Args:
        runner: Name of the runner.
        flags: The user's own options for Beam.
        inputs: What is read.
        out: Where it goes.
        options: What to build.

    Returns:
        The runner, with where its workers are and what to tell the user.

    Raises:
        ConfigError: Something is missing or cannot be reached from workers.
    """
    if runner == "FnApiRunner" and not flags:
        return Submission(runner=runner, workers="here")  # the usual way; Beam takes seconds to import
    with _quietly():
        from pipelines.beam_options import environment_of, image_of, parse_beam_options

    values = parse_beam_options(flags, runner=runner)
    if runner == "FnApiRunner":
        return Submission(runner=runner, workers="here", values=values)
    if runner == "DataflowRunner":
        _check_dataflow(values)
        workers: Place = "containers"
    else:
        _check_job_server(runner, values)
        environment = environment_of(values, runner=runner)
        _check_environment(environment, values)
        workers = {"LOOPBACK": "here", "DOCKER": "containers"}.get(environment, "machines")  # type: ignore[assignment]
    if workers == "containers":
        _check_image(image_of(values))
        _check_places([*inputs, str(out)], runner=runner)
    if workers != "here":
        _check_hooks(values, options=options)
    notes = tuple(_notes(runner, workers, values, image=image_of(values), places=[*inputs, str(out)]))
    return Submission(runner=runner, workers=workers, notes=notes, values=values)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps warnings of what Beam does not find at its import from the user, who has no use for them."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def _check_dataflow(values: Namespace) -> None:
    missing = [module for module in _DATAFLOW if not _is_there(module)]
    if missing:
        raise ConfigError(f'DataflowRunner needs {", ".join(missing)}: pip install "bertdata[gcp]"')
    if not values.project:
        raise ConfigError("DataflowRunner needs the project that pays: -- --project=NAME")
    if not values.region and not os.environ.get("CLOUDSDK_COMPUTE_REGION"):
        raise ConfigError("DataflowRunner needs a region, best that of the buckets: -- --region=europe-west4")
    place = values.temp_location or values.staging_location
    if not place or not place.startswith("gs://"):
        found = f"--temp_location is {place!r}; it" if place else "DataflowRunner"
        raise ConfigError(f"{found} needs a folder in Google's store for what it uploads: -- --temp_location=gs://...")


def _check_job_server(runner: str, values: Namespace) -> None:
    if runner == "PrismRunner":
        _check_file("prism_location", values)
        return
    if values.job_endpoint:
        return
    if runner == "PortableRunner":
        raise ConfigError(
            "PortableRunner needs the address of a job server: -- --job_endpoint=HOST:PORT "
            "(embed: one within the build's process)"
        )
    _check_file(_JOB_SERVERS[runner], values)
    if runner == "SparkRunner" and values.spark_submit_uber_jar:
        if not values.spark_rest_url:
            raise ConfigError("--spark_submit_uber_jar needs Spark's REST server: -- --spark_rest_url=http://HOST:6066")
        return
    if runner == "FlinkRunner" and values.flink_submit_uber_jar and not values.flink_master.startswith("["):
        return
    if shutil.which(values.job_server_java_launcher) is None:
        raise ConfigError(
            f"{runner} starts a job server in Java, and there is no {values.job_server_java_launcher!r}; install Java, "
            "or name a job server that runs: -- --job_endpoint=HOST:PORT"
        )


def _check_file(name: str, values: Namespace) -> None:
    path = getattr(values, name)
    if path and not is_uri(path) and not Path(path).is_file():
        raise ConfigError(f"--{name} {path} is not there; give the path or address of the file")


def _check_environment(environment: str, values: Namespace) -> None:
    if environment not in ("LOOPBACK", "DOCKER", "PROCESS", "EXTERNAL"):
        raise ConfigError(f"--environment_type is {environment!r}; it must be DOCKER, EXTERNAL, LOOPBACK or PROCESS")
    if environment in ("PROCESS", "EXTERNAL") and not (values.environment_config or values.environment_options):
        what = "the command that starts a worker" if environment == "PROCESS" else "the address of the worker pool"
        raise ConfigError(f"--environment_type={environment} needs {what}: --environment_config=...")


def _check_image(image: str | None) -> None:
    """Raises where the workers' Python or Beam is known not to be the launcher's: they exchange pickled functions."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    beam = importlib.metadata.version("apache-beam")
    if not image:
        classifiers = importlib.metadata.metadata("apache-beam").get_all("Classifier") or []
        known = [name.rpartition(" ")[2] for name in classifiers if re.search(r":: Python :: \d+\.\d+$", name)]
        if python not in known:
            raise ConfigError(
                f"Beam {beam} has no container for Python {python}, only for {', '.join(known)}; run the command with "
                "one of these, or give an image of your own: -- --sdk_container_image=..."
            )
        return
    for what, pattern, wanted in (("Python", _PYTHON_OF_IMAGE, python), ("Beam", _BEAM_OF_IMAGE, beam)):
        found = pattern.search(image)
        if found and found[1] != wanted:
            raise ConfigError(
                f"the workers' image {image} has {what} {found[1]}, this command runs with {wanted}; they must be the "
                "same"
            )


def _check_places(places: Sequence[str], *, runner: str) -> None:
    paths = [place for place in places if not is_uri(place)]
    if paths:
        instead = (
            ""
            if runner == "DataflowRunner"
            else (
                ", or let workers run where there is a shared file system: -- --environment_type=EXTERNAL (or PROCESS)"
            )
        )
        raise ConfigError(
            f"{', '.join(paths)}: workers of {runner} run in containers, which see no folder of this machine; put "
            f"input and output at gs:// or s3://{instead}"
        )


def _check_hooks(values: Namespace, *, options: BuildOptions) -> None:
    own = [f"{option} {name}" for option, name in options.read.hooks.items()]
    given = (values.extra_packages, values.setup_file, values.requirements_file, values.sdk_container_image)
    if own and not any((*given, values.environment_config, values.environment_options)):
        raise ConfigError(
            f"{own[0]}: workers on other machines have no such module; bring it to them with "
            "-- --extra_package=PACKAGE.whl, --setup_file=setup.py, or an image that has it (--sdk_container_image)"
        )


def _notes(
    runner: str, workers: Place, values: Namespace, *, image: str | None, places: Sequence[str]
) -> Iterator[str]:
    paths = [place for place in places if not is_uri(place)]
    if workers == "machines" and paths:
        yield f"{', '.join(paths)} must lie on a file system that all workers share, under the same path"
    if workers == "containers" and image:
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        yield f"{image} must have bertdata, Python {python} and Beam {importlib.metadata.version('apache-beam')}"
    if values.job_endpoint:
        return
    if runner == "FlinkRunner" and not values.flink_job_server_jar:
        where = "on this machine" if values.flink_master.startswith("[") else f"at {values.flink_master}"
        yield f"Flink {where} (--flink_master); its job server is fetched unless --flink_job_server_jar names one"
    if runner == "SparkRunner" and not values.spark_job_server_jar:
        where = "on this machine" if values.spark_master_url.startswith("local") else f"at {values.spark_master_url}"
        yield f"Spark {where} (--spark_master_url); its job server is fetched unless --spark_job_server_jar names one"
    if runner == "PrismRunner" and not values.prism_location:
        yield "Prism is fetched unless --prism_location names it"
