"""Every stage run several times at once, as runners do with bundles that they retry or hand out again."""

import multiprocessing
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from bertdata.build import build_shard, count_words, plan_shards, tokenize_portion, train_tokenizer, write_data_sets
from bertdata.launch import open_build
from bertdata.storage import LocalFolder
from bertdata.work import Work
from tests.bertdata.test_build import digests

TIMES = 3


def run_all_stages(out, wait):
    """Goes through a build in step with others that do the same: each stage of each element starts in all at once."""
    work = Work.load(out)
    numbers = range(len(work.portions))
    stages = [(count_words, number) for number in numbers] + [(train_tokenizer,)]
    stages += [(tokenize_portion, number) for number in numbers]
    for stage, *element in stages:
        wait()
        stage(work, *element)
    wait()
    for task in plan_shards(work):
        wait()
        build_shard(work, task)
    wait()
    write_data_sets(work)


def run_in_process(out, barrier):
    run_all_stages(out, lambda: barrier.wait(timeout=60))


def test_stages_run_at_once_by_threads_of_a_process_give_the_same_bytes(
    tmp_path, monkeypatch, wiki_file, trained, serial
):
    written = Counter()
    create = LocalFolder.create

    def counting(folder, name):
        written[f"{folder.path.name}/{name}"] += 1
        return create(folder, name)

    monkeypatch.setattr(LocalFolder, "create", counting)
    barrier = threading.Barrier(TIMES)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with open_build([str(wiki_file)], out=tmp_path / "out", options=trained, split_bytes=40_000) as work:
            assert len(work.portions) > 3
            with ThreadPoolExecutor(TIMES) as pool:
                runs = [pool.submit(run_all_stages, work.out, lambda: barrier.wait(timeout=60)) for _ in range(TIMES)]
            for run in runs:
                run.result()
    finally:
        sys.setswitchinterval(interval)
    assert digests(tmp_path / "out") == serial
    assert not list(tmp_path.rglob("*.tmp"))
    several = {
        name.partition("/")[0].rstrip("0123456789") + name.partition("/")[2] for name, n in written.items() if n > 1
    }
    for kind in ("words", "tokenizer.json", "splits", "run", "plan.json", "train-", "eval-", "manifest.json"):
        assert any(kind in name for name in several), f"nothing of {kind} was ever written by two at once"


@pytest.mark.slow
def test_stages_run_at_once_by_processes_give_the_same_bytes(tmp_path, wiki_file, trained, serial):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    with open_build([str(wiki_file)], out=tmp_path / "out", options=trained, split_bytes=40_000) as work:
        processes = [context.Process(target=run_in_process, args=(work.out, barrier)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
        assert [process.exitcode for process in processes] == [0, 0]
    assert digests(tmp_path / "out") == serial
    assert not list(tmp_path.rglob("*.tmp"))
