"""What stands after "--" on the command line: Apache Beam's own options, checked before anything starts.

Beam drops an option that it does not know with a line in its log, so a misspelt `--max_num_worker` would go unnoticed
until the bill comes. Here every option has to be one of Beam's or of a job server's, with a value where it takes one,
and those that cannot be meant for a build are refused with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from bertdata.errors import ConfigError
from bertdata.parameters import hint_at_nearest

__all__ = ["environment_of", "image_of", "parse_beam_options", "pipeline_options"]

_REFUSED = {
    "runner": 'bertdata build has one of its own, before "--"',
    "save_main_session": "workers import bertdata, and nothing of the command's own session",
    "streaming": "a build has an end",
    "no_wait_until_finish": "the build's last step writes what makes the shards a data set",
    "template_location": "it would make a template and build nothing",
    "output_executable_path": "it would make a jar and build nothing",
    "dataflow_job_file": "the job goes to the service, not into a file",
    "update": "a build cannot take the place of a running job",
    "dry_run": "bertdata build has a --dry-run of its own",
}
# Options that Beam's Java job servers have and its Python side asks them for, once they run: those of use for a build.
_OF_JOB_SERVERS = (
    *("retain_docker_containers", "semi_persist_dir"),
    *("disable_metrics", "execution_mode_for_batch", "execution_retry_delay", "faster_copy", "flink_conf_dir"),
    *("max_bundle_size", "max_bundle_time_mills", "number_of_execution_retries", "object_reuse", "operator_chaining"),
    *("re_iterable_group_by_key_result",),
    *("bundle_size", "cache_disabled", "storage_level"),
)
_WITH_JOB_SERVER = ("FlinkRunner", "SparkRunner", "PortableRunner")


class _Parser(argparse.ArgumentParser):
    """Beam's options; raises a ConfigError instead of ending the process."""

    def __init__(self) -> None:
        # Classes of options that others define may overlap; Beam takes the last one.
        super().__init__(add_help=False, allow_abbrev=False, conflict_handler="resolve")
        for kind in PipelineOptions.__subclasses__():
            kind._add_argparse_args(self)
        self.flags = [flag for action in self._actions for flag in action.option_strings]

    def add_value_provider_argument(self, *args: Any, **kwargs: Any) -> None:
        """Adds an option of a template, which is like any other here."""
        self.add_argument(*args, **kwargs)

    def add_job_server_options(self) -> None:
        """Adds options that only a job server knows."""
        for name in _OF_JOB_SERVERS:
            self.add_argument(f"--{name}", nargs="?", default=None, const="true")
        self.flags += [f"--{name}" for name in _OF_JOB_SERVERS]

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"an option for Apache Beam is wrong: {message}")


def parse_beam_options(flags: Sequence[str], *, runner: str = "PortableRunner") -> argparse.Namespace:
    """Returns the values of Beam's options.

    Args:
        flags: The user's own options for Beam.
        runner: Name of the runner; options of Java's job servers are allowed where it uses one.

    Raises:
        ConfigError: Beam has no such option, it lacks its value or has a wrong one, or it is not for a build.
    """
    parser = _Parser()
    if runner in _WITH_JOB_SERVER:
        parser.add_job_server_options()
    for flag in (flag.split("=")[0] for flag in flags if flag.startswith("--")):
        if flag not in parser.flags:
            raise ConfigError(f"Apache Beam has no option {flag}{hint_at_nearest(flag, parser.flags)}")
    values, rest = parser.parse_known_args(list(flags))
    if rest:
        raise ConfigError(f'{rest[0]!r} stands after "--", and belongs to no option for Apache Beam before it')
    for name, why in _REFUSED.items():
        if getattr(values, name, None):
            raise ConfigError(f"--{name} is not for bertdata build: {why}; leave it out")
    return values


def environment_of(values: argparse.Namespace, *, runner: str) -> str:
    """Returns where workers are: LOOPBACK (in the build's own process), DOCKER, PROCESS or EXTERNAL.

    Args:
        values: From `parse_beam_options`.
        runner: Name of the runner, one of those that run on a job server.
    """
    if values.environment_type:
        return str(values.environment_type)
    is_local = {
        "PrismRunner": True,
        "FlinkRunner": values.flink_master.strip() in ("[local]", "[auto]"),
        "SparkRunner": values.spark_master_url.startswith("local"),
        "PortableRunner": values.job_endpoint == "embed",
    }[runner]
    host = (values.job_endpoint or "embed").rpartition(":")[0] or "embed"
    is_local = is_local and host in ("embed", "localhost", "127.0.0.1") and not image_of(values)
    return "LOOPBACK" if is_local else "DOCKER"


def image_of(values: argparse.Namespace) -> str | None:
    """Returns the image for workers in containers that the options name, if any."""
    image: str | None = values.sdk_container_image or values.worker_harness_container_image
    if image is None and values.environment_type in (None, "DOCKER"):
        named = (option.partition("docker_container_image=")[2] for option in values.environment_options or ())
        image = values.environment_config or next(filter(None, named), None)
    return image


def _flags_for(values: argparse.Namespace, *, runner: str, num_workers: int) -> list[str]:
    """Returns what a runner needs beside the user's own options."""
    if runner == "FnApiRunner":
        mode = "in_memory" if num_workers == 1 else "multi_processing"
        return [f"--direct_num_workers={num_workers}", f"--direct_running_mode={mode}"]
    if runner == "DataflowRunner":
        return []
    flags = []
    if not values.environment_type:
        flags.append(f"--environment_type={environment_of(values, runner=runner)}")
    image = image_of(values)
    if image and not values.environment_config and not values.environment_options:
        flags.append(f"--environment_config={image}")  # --sdk_container_image is Dataflow's; the others ignore it
    return flags


def pipeline_options(*, runner: str, num_workers: int, flags: Sequence[str] = ()) -> PipelineOptions:
    """Returns Beam's options.

    Args:
        runner: Name of the runner; FnApiRunner works on this machine.
        num_workers: Worker processes of FnApiRunner.
        flags: The user's own options for Beam.

    Raises:
        ConfigError: An option is none of Beam's, or wrong.
    """
    values = parse_beam_options(flags, runner=runner)
    own = _flags_for(values, runner=runner, num_workers=num_workers)
    quiet = ["--default_sdk_harness_log_level=WARNING"]
    options = PipelineOptions([f"--runner={runner}", *own, *quiet, *flags])
    options.view_as(SetupOptions).save_main_session = False  # Dataflow's default would pickle this process's modules
    return options
