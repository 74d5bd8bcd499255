import subprocess
import sys

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter

import bertdata
from bertdata import build as stages
from bertdata.errors import ConfigError, InputError, OutputError
from bertdata.fingerprint import library_versions
from bertdata.launch import open_build
from bertdata.work import portion_record
from pipelines.beam_options import pipeline_options
from pipelines.build import COUNTERS, _count_words, _Stage, build_on_beam, build_pipeline
from pipelines.supervise import run_supervised
from tests.bertdata.small_builds import build
from tests.bertdata.test_build import digests


@pytest.mark.parametrize("split_bytes", [None, 20_000])
def test_pipeline_in_one_process_equals_the_serial_loop(tmp_path, wiki_file, trained, serial, split_bytes):
    out = tmp_path / "shards"
    with open_build([str(wiki_file)], out=out, options=trained, split_bytes=split_bytes) as work:
        build_on_beam(work, runner="FnApiRunner", num_workers=1)
    assert digests(out) == serial


def test_pipeline_with_two_workers_equals_the_serial_loop(tmp_path, wiki_file, trained, serial):
    out = tmp_path / "shards"
    with open_build([str(wiki_file)], out=out, options=trained, split_bytes=20_000) as work:
        assert len(work.portions) > 5
        run_supervised(work, runner="FnApiRunner", num_workers=2, flags=[])
    assert digests(out) == serial


def test_portable_runner_with_an_embedded_job_server_equals_the_serial_loop(tmp_path, wiki_file, trained, serial):
    out = tmp_path / "shards"
    with open_build([str(wiki_file)], out=out, options=trained, split_bytes=20_000) as work:
        flags = ["--job_endpoint=embed", "--direct_num_workers=2"]
        build_on_beam(work, runner="PortableRunner", flags=flags)
    assert digests(out) == serial


def test_job_is_cancelled_when_the_build_is_interrupted(tmp_path, monkeypatch, wiki_file, trained):
    class Job:
        is_cancelled = False

        def wait_until_finish(self):
            raise KeyboardInterrupt

        def cancel(self):
            self.is_cancelled = True

    job = Job()
    monkeypatch.setattr(beam.Pipeline, "run", lambda _pipeline: job)
    with (
        pytest.raises(KeyboardInterrupt),
        open_build([str(wiki_file)], out=tmp_path / "shards", options=trained) as work,
    ):
        build_on_beam(work, runner="PortableRunner", flags=["--job_endpoint=embed"])
    assert job.is_cancelled


def test_worker_with_other_libraries_refuses_to_start(tmp_path, wiki_file, trained, monkeypatch):
    wanted = library_versions()
    told = iter([wanted] * 6)  # of the launcher: each of the six stages keeps them
    monkeypatch.setattr("pipelines.build.library_versions", lambda: next(told, wanted | {"tokenizers": "0.1"}))
    with (
        pytest.raises(ConfigError, match=rf"workers have tokenizers 0\.1 \(not {wanted['tokenizers']}\)"),
        open_build([str(wiki_file)], out=tmp_path / "shards", options=trained) as work,
    ):
        build_on_beam(work, runner="FnApiRunner")


def test_worker_that_does_not_see_the_output_says_so(tmp_path):
    stage = _Stage(_count_words, str(tmp_path / "elsewhere"))
    with pytest.raises(
        OutputError, match=r"a worker finds no build in .*elsewhere: .*Put the output at s3:// or gs://"
    ):
        stage.setup()


def test_tokenizer_is_read_where_the_command_runs(tmp_path, monkeypatch, wiki_file, small_options):
    """Workers elsewhere would not find its file."""

    def fail(_pipeline):
        raise RuntimeError("nothing was submitted")

    monkeypatch.setattr(beam.Pipeline, "run", fail)
    with (
        pytest.raises(RuntimeError, match="nothing was submitted"),
        open_build([str(wiki_file)], out=tmp_path / "out", options=small_options) as work,
    ):
        build_on_beam(work, runner="FnApiRunner")
    assert (tmp_path / "out" / ".work" / "tokenizer.json").exists()


@pytest.mark.slow
def test_command_line_runs_on_portable_runner(tmp_path, wiki_file, serial):
    options = ["--max-seq-length", "64", "--dupe-factor", "2", "--num-mask-sets", "2", "--num-shards", "3"]
    options += ["--block-size", "100", "--vocab-size", "300", "--runner", "PortableRunner"]
    command = [sys.executable, "-m", "bertdata", "build", "--input", wiki_file, "--out", tmp_path / "shards", *options]
    found = subprocess.run([*command, "--", "--job_endpoint=embed"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert digests(tmp_path / "shards") == serial
    assert "WARNING" not in found.stderr  # what Beam prints is in its log


def test_every_stage_may_run_twice(tmp_path, wiki_file, trained, serial):
    out = tmp_path / "shards"
    with open_build([str(wiki_file)], out=out, options=trained) as work:
        build_on_beam(work, runner="FnApiRunner", num_workers=1, flags=["--direct_runner_bundle_repeat=1"])
    assert digests(out) == serial


def test_pipeline_builds_only_the_shards_that_an_exclusion_changes(tmp_path, wiki_file, small_options):
    out = tmp_path / "shards"
    build(out, wiki_file, options=small_options, keep_work=True)
    before = {path.name: path.stat().st_ino for path in out.glob("*.tar")}
    sample = next(bertdata.read_samples(out))
    excluding = small_options.excluding([f"{sample.document_keys[0]:016x}"])
    with open_build([str(wiki_file)], out=out, options=excluding) as work:
        build_on_beam(work, runner="FnApiRunner", num_workers=1, flags=["--direct_runner_bundle_repeat=1"])
    assert sum(path.stat().st_ino != before[path.name] for path in out.glob("*.tar")) == 1
    assert digests(out) == digests(build(tmp_path / "fresh", wiki_file, options=excluding))


def test_metrics_count_what_was_done(tmp_path, wiki_file, trained):
    out = tmp_path / "shards"
    with open_build([str(wiki_file)], out=out, options=trained, split_bytes=20_000) as work:
        for number in range(len(work.portions)):
            stages.count_words(work, number)
        stages.train_tokenizer(work)
        for number in range(2):
            stages.tokenize_portion(work, number)
        found = [work.read(portion_record(number))["counts"] for number in range(2)]
        pipeline = beam.Pipeline(options=pipeline_options(runner="FnApiRunner", num_workers=1))
        build_pipeline(pipeline, work)
        result = pipeline.run()
        result.wait_until_finish()
        num_portions = len(work.portions)
    counters = result.metrics().query(MetricsFilter().with_namespace("bertdata"))["counters"]
    totals = {counter.key.metric.name: 0 for counter in counters}
    for counter in counters:
        totals[counter.key.metric.name] += counter.committed
    manifest = bertdata.open_data_set(out).manifest
    assert totals.keys() == set(COUNTERS)
    assert totals["portions"] == num_portions - 2
    for name in ("documents", "sentences", "tokens"):
        assert totals[name] == manifest.counts[name] - sum(counts[name] for counts in found)
    assert totals["pairs"] == manifest.counts["samples"]
    assert totals["shards"] == len(manifest.shards)
    assert totals["shard_bytes"] == sum(shard.num_bytes for shard in manifest.shards)
    assert totals["read_bytes"] == sum(split.stop - split.start for portion in work.portions[2:] for split in portion)


@pytest.mark.parametrize("runner", ["FnApiRunner", "PortableRunner"])
def test_error_of_a_stage_comes_through(tmp_path, small_options, runner):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "A sentence. Another one."}\n{broken\n')
    with (
        pytest.raises(InputError, match=r"1 bad records, 0 allowed.*bad\.jsonl, line 2"),
        open_build([str(path)], out=tmp_path / "out", options=small_options) as work,
    ):
        build_on_beam(work, runner=runner, flags=["--job_endpoint=embed"])


def test_unknown_beam_option_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no option --direct_num_worker; did you mean --direct_num_workers\?"):
        pipeline_options(runner="FnApiRunner", num_workers=1, flags=["--direct_num_worker=3"])


def test_users_beam_options_win():
    options = pipeline_options(runner="FnApiRunner", num_workers=2, flags=["--direct_num_workers=3"])
    assert options.get_all_options()["direct_num_workers"] == 3
