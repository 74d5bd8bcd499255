import dataclasses

import pytest

import bertdata
from bertdata.progress import Took
from bertdata.summary import format_table, iter_warnings, summary_rows, took_rows


@pytest.fixture
def data_set(small_data_set):
    return bertdata.open_data_set(small_data_set)


def with_counts(data_set, **counts):
    manifest = dataclasses.replace(data_set.manifest, counts=data_set.manifest.counts | counts)
    return dataclasses.replace(data_set, manifest=manifest)


def test_table_shows_what_was_built(data_set):
    rows = dict(summary_rows(data_set))
    counts = data_set.manifest.counts
    assert rows["documents"] == "300"
    assert rows["languages"] == "en 100%"
    assert rows["sentences"] == f"{counts['sentences']:,}"
    assert (
        rows["pairs (max_seq_length 64)"]
        == f"{counts['train_samples']:,} training / {counts['eval_samples']:,} evaluation"
    )
    assert rows["IsNext share"] == f"{1 - counts['not_next'] / counts['samples']:.1%}"
    assert rows["shards"] == "3 training / 1 evaluation"
    text = format_table(summary_rows(data_set))
    assert len(text.splitlines()) == len(rows)


def test_table_says_why_documents_were_dropped(data_set):
    counts = {"empty": 3, "too_short": 0, "filtered_few-letters": 1234, "rejected_bad_json": 20, "records": 99}
    rows = summary_rows(with_counts(data_set, **counts))
    names = [name for name, _ in rows]
    first = names.index("  filtered: few-letters, dropped")
    assert rows[first : first + 3] == [
        ("  filtered: few-letters, dropped", "1,234"),
        ("  rejected: bad json, dropped", "20"),
        ("  empty, dropped", "3"),
    ]
    assert "  too short, dropped" not in names


def test_table_names_the_largest_languages(data_set):
    manifest = dataclasses.replace(data_set.manifest, languages={"en": 1, "zh": 5, "ko": 2, "vi": 2})
    rows = dict(summary_rows(dataclasses.replace(data_set, manifest=manifest)))
    assert rows["languages"] == "zh 50%, ko 20%, vi 20%, ..."


def test_good_data_gives_no_warning(data_set):
    assert list(iter_warnings(data_set.manifest)) == []


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"unknown_tokens": 10**6, "tokens": 10**7}, "10.0% of the tokens are [UNK]"),
        ({"documents_under_3_sentences": 151}, "under three sentences"),
        ({"duplicates": 16}, "5.3% of the documents were copies"),
        ({"forced": 10**4}, "are NotNext because their chunk had one sentence"),
        ({"not_next": 100}, "NotNext instead of half"),
        ({"damaged_splits": 2}, "2 splits are of damaged files"),
        ({"eval_samples": 0}, "too few documents to hold some out"),
    ],
)
def test_each_fault_has_its_warning(data_set, counts, message):
    (warning,) = iter_warnings(with_counts(data_set, **counts).manifest)
    assert message in warning


def test_table_says_what_the_build_took():
    took = Took(
        seconds=100.0,
        read_bytes=2_500_000_000,
        portions=12,
        portions_found=4,
        shards=40,
        shards_found=0,
        worker_memory=450 << 20,
        launcher_memory=100 << 20,
    )
    assert took_rows(took) == [
        ("time", "01:40, 25.0 MB of input per second"),
        ("portions of the input", "12 in this run, 4 found done"),
        ("shards built", "40 in this run"),
        ("peak memory", "450 MiB of a worker, 100 MiB of the launcher"),
    ]
    elsewhere = dataclasses.replace(took, worker_memory=0, read_bytes=0)
    assert took_rows(elsewhere)[0] == ("time", "01:40")
    assert took_rows(elsewhere)[-1] == ("peak memory", "100 MiB of the launcher")
