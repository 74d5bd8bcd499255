from bertdata import build
from bertdata.build import build_serially
from bertdata.index import load_index
from bertdata.launch import open_build
from bertdata.manifest import read_manifest
from tests.benchmarks.at_size import Measured, measure, rows
from tests.benchmarks.many_shards import DOCUMENTS_PER_RUN, make_plan_input, make_records


def test_constants_of_a_build_give_its_own_figures(tmp_path, jsonl_file, small_options):
    with open_build([str(jsonl_file)], out=tmp_path / "out", options=small_options, keep_work=True) as work:
        build_serially(work)
    measured = measure(work, max_seq_length=64)
    size = jsonl_file.stat().st_size
    assert round(measured.documents_per_byte * size) == 300
    assert 0.2 < measured.run_bytes_per_byte < 1
    assert 5 < measured.bytes_per_bin < 40
    assert all(value > 0 for value in (measured.shard_bytes_per_byte, measured.record_bytes, measured.task_bytes))


def test_arithmetic_of_300_gb():
    measured = Measured(
        run_bytes_per_byte=0.5,
        documents_per_byte=1 / 4000,
        shard_bytes_per_byte=2,
        bytes_per_bin=10,
        record_bytes=1000,
        task_bytes=150,
        shard_record_bytes=3000,
        block_bytes=350_000,
    )
    found = dict(rows(measured))
    assert found["portions"] == "2,000 of 150 MB"
    assert found["runs"] == "2,000 of 75 MB; 150 GB in all"
    assert found["shards"] == "8,941 of 64 MiB"
    assert found["requests of a shard"] == "2,000 of 8.4 kB to runs, 6 to the plan"
    assert found["index.arrow"] == "69 MB for 1.7 million blocks"
    assert found["the commit holds"] == "321 MiB"


def test_many_shards_are_planned_and_committed(tmp_path):
    """The made-up work folder is one that the stages take."""
    work = make_plan_input(tmp_path, num_portions=3, num_shards=5)
    tasks = build.plan_shards(work)
    make_records(work, num_blocks=2)
    build.write_data_sets(work)
    manifest = read_manifest(tmp_path / "manifest.json")
    assert [shard.num_blocks for shard in manifest.shards] == [2] * len(tasks)
    assert manifest.counts["documents_kept"] == 3 * DOCUMENTS_PER_RUN
    assert len(load_index(tmp_path / "index.arrow", shards=manifest.shards)) == 2 * len(tasks)
