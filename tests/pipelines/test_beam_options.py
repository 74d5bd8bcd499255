"""Options for Beam itself: all that are real go through, and nothing else does."""

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    JobServerOptions,
    PortableOptions,
    PrismRunnerOptions,
    SetupOptions,
    SparkRunnerOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.transforms.environments import DockerEnvironment, Environment, PythonLoopbackEnvironment

from bertdata.errors import ConfigError
from bertdata.options import RUNNERS
from pipelines.beam_options import environment_of, parse_beam_options, pipeline_options


def options_of(runner, *flags):
    return pipeline_options(runner=runner, num_workers=1, flags=flags)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(
    ("kind", "flag", "name", "value"),
    [
        (GoogleCloudOptions, "--region=europe-west4", "region", "europe-west4"),
        (GoogleCloudOptions, "--temp_location=gs://bucket/tmp", "temp_location", "gs://bucket/tmp"),
        (WorkerOptions, "--max_num_workers=100", "max_num_workers", 100),
        (WorkerOptions, "--worker_machine_type=n2-standard-8", "machine_type", "n2-standard-8"),
        (DebugOptions, "--experiments=use_sibling_sdk_workers", "experiments", ["use_sibling_sdk_workers"]),
        (FlinkRunnerOptions, "--flink_master=flink:8081", "flink_master", "flink:8081"),
        (FlinkRunnerOptions, "--parallelism=16", "parallelism", 16),
        (SparkRunnerOptions, "--spark_master_url=spark://spark:7077", "spark_master_url", "spark://spark:7077"),
        (PortableOptions, "--environment_config=pool:50000", "environment_config", "pool:50000"),
        (JobServerOptions, "--artifacts_dir=/shared", "artifacts_dir", "/shared"),
        (PrismRunnerOptions, "--prism_location=/opt/prism", "prism_location", "/opt/prism"),
        (DirectOptions, "--direct_runner_bundle_repeat=1", "direct_runner_bundle_repeat", 1),
    ],
)
def test_options_of_every_runner_go_through(runner, kind, flag, name, value):
    assert getattr(options_of(runner, flag).view_as(kind), name) == value
    assert getattr(options_of(runner, *flag.split("=", 1)).view_as(kind), name) == value


@pytest.mark.parametrize(
    ("runner", "flag", "nearest"),
    [
        ("DataflowRunner", "--regoin=europe-west4", "--region"),
        ("DataflowRunner", "--max_num_worker=9", "--max_num_workers"),
        ("FlinkRunner", "--flink_masters=a:1", "--flink_master"),
        ("FlinkRunner", "--object_reus", "--object_reuse"),
        ("SparkRunner", "--spark_master=spark://a:1", "--spark_master_url"),
        ("PortableRunner", "--job_endpoints=embed", "--job_endpoint"),
        ("PrismRunner", "--prism_locations=x", "--prism_location"),
        ("FnApiRunner", "--direct_num_worker=3", "--direct_num_workers"),
    ],
)
def test_misspelt_option_is_an_error_with_the_nearest(runner, flag, nearest):
    with pytest.raises(ConfigError, match=f"no option {flag.split('=')[0]}; did you mean {nearest}\\?"):
        options_of(runner, flag)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--region"], "--region: expected one argument"),
        (["--region", "--project=p"], "--region: expected one argument"),
        (["--max_num_workers=many"], "--max_num_workers: invalid int value: 'many'"),
        (["--flink_version=0.9"], r"--flink_version: invalid choice: '0.9' \(choose from"),
        (["gs://bucket"], "'gs://bucket' stands after"),
        (["--region=a", "b"], "'b' stands after"),
        (["--project", "p", "-x"], "'-x' stands after"),
    ],
)
def test_option_without_its_value_or_with_a_wrong_one_is_an_error(flags, told):
    with pytest.raises(ConfigError, match=told):
        options_of("DataflowRunner", *flags)


@pytest.mark.parametrize(
    "flag",
    [
        "--runner=DirectRunner",
        "--save_main_session",
        "--streaming",
        "--no_wait_until_finish",
        "--template_location=gs://a/b",
        "--output_executable_path=a.jar",
        "--dry_run=True",
        "--update",
    ],
)
def test_option_that_no_build_can_mean_is_refused_with_the_reason(flag):
    with pytest.raises(ConfigError, match=f"{flag.split('=')[0]} is not for bertdata build: .{{10,}}; leave it out"):
        options_of("DataflowRunner", flag)


def test_options_of_job_servers_are_known_where_there_is_one():
    for runner in ("FlinkRunner", "SparkRunner", "PortableRunner"):
        parse_beam_options(["--object_reuse", "--execution_mode_for_batch=BATCH_FORCED"], runner=runner)
    with pytest.raises(ConfigError, match="no option --object_reuse"):
        parse_beam_options(["--object_reuse"], runner="DataflowRunner")


@pytest.mark.parametrize("runner", RUNNERS)
def test_main_session_is_never_saved(runner):
    options = options_of(runner)
    assert options.view_as(SetupOptions).save_main_session is False
    assert options.view_as(StandardOptions).runner == runner


@pytest.mark.parametrize(
    ("runner", "flags", "where"),
    [
        ("PrismRunner", [], "LOOPBACK"),
        ("PrismRunner", ["--environment_type=DOCKER"], "DOCKER"),
        ("FlinkRunner", [], "LOOPBACK"),
        ("FlinkRunner", ["--flink_master=[local]"], "LOOPBACK"),
        ("FlinkRunner", ["--flink_master=flink:8081"], "DOCKER"),
        ("FlinkRunner", ["--job_endpoint=localhost:8099"], "LOOPBACK"),
        ("FlinkRunner", ["--job_endpoint=flink:8099"], "DOCKER"),
        ("FlinkRunner", ["--sdk_container_image=me/image:1"], "DOCKER"),
        ("FlinkRunner", ["--flink_master=flink:8081", "--environment_type=EXTERNAL"], "EXTERNAL"),
        ("SparkRunner", [], "LOOPBACK"),
        ("SparkRunner", ["--spark_master_url=local[2]"], "LOOPBACK"),
        ("SparkRunner", ["--spark_master_url=spark://spark:7077"], "DOCKER"),
        ("PortableRunner", ["--job_endpoint=embed"], "LOOPBACK"),
        ("PortableRunner", ["--job_endpoint=localhost:8099"], "DOCKER"),
    ],
)
def test_workers_are_where_the_options_put_them(runner, flags, where):
    values = parse_beam_options(flags, runner=runner)
    assert environment_of(values, runner=runner) == where
    # What Beam itself is told, not only what is said to the user.
    assert options_of(runner, *flags).view_as(PortableOptions).environment_type == where


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner", "PortableRunner", "PrismRunner"])
def test_image_of_workers_reaches_runners_that_know_it_by_another_option(runner):
    """Beam itself heeds --sdk_container_image on Dataflow only."""
    options = options_of(
        runner, "--sdk_container_image=me/image:1", "--experiments=disable_logging_submission_environment"
    )
    environment = Environment.from_options(options.view_as(PortableOptions))
    assert isinstance(environment, DockerEnvironment)
    assert environment.container_image == "me/image:1"


def test_embedded_job_server_has_its_workers_here():
    environment = Environment.from_options(
        options_of("PortableRunner", "--job_endpoint=embed").view_as(PortableOptions)
    )
    assert isinstance(environment, PythonLoopbackEnvironment)
