"""What `--dry-run` says, held against the builds themselves."""

import bz2
import dataclasses
import gzip
import json
import math
from itertools import chain

import pyarrow as pa
import pytest
from click.testing import CliRunner

import bertdata
from bertdata.build import build_serially
from bertdata.cli import main
from bertdata.config import PairOptions, ReadOptions, ShardOptions, TokenizerOptions
from bertdata.dry_run import estimate_build
from bertdata.inputs import find_inputs
from bertdata.launch import open_build
from bertdata.portions import plan_portions
from bertdata.sampling import sample_places
from bertdata.wordpiece import load_tokenizer
from tests.corpus import article, iter_texts

NUM_TEXTS = 1200


@pytest.fixture(scope="module")
def texts():
    return list(iter_texts(NUM_TEXTS))


@pytest.fixture(scope="module")
def num_tokens(texts, tokenizer_file):
    """What the library itself makes of them."""
    tokenizer = load_tokenizer(tokenizer_file)
    return sum(len(encoded.ids) for encoded in tokenizer.encode_batch_fast(texts, add_special_tokens=False))


def near(value):
    return pytest.approx(value, rel=0.15)


def portions_of(path, options, *, split_bytes=None):
    return plan_portions(find_inputs([str(path)]), options=options.read, split_bytes=split_bytes)


def write_corpus(folder, texts, kind):
    """Writes the corpus in a format, and returns what to read."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    pages = [article(f"Title {number}", text) for number, text in enumerate(texts)]
    head = '<mediawiki version="0.11" xml:lang="en">\n'
    if kind == "jsonl":
        (folder / "a.jsonl").write_bytes(lines)
    elif kind == "gz":
        (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    elif kind == "xml":
        (folder / "a.xml").write_text(head + "".join(pages) + "</mediawiki>\n")
    elif kind == "single":
        (folder / "a.xml.bz2").write_bytes(bz2.compress((head + "".join(pages) + "</mediawiki>\n").encode()))
    elif kind == "multistream":
        parts = [head, *("".join(pages[at : at + 20]) for at in range(0, len(pages), 20)), "</mediawiki>\n"]
        (folder / "a.xml.bz2").write_bytes(b"".join(bz2.compress(part.encode()) for part in parts))
    elif kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": texts}), folder / "a.parquet", row_group_size=50)
    elif kind == "text":
        (folder / "a.txt").write_text("\n\n".join(text.replace("\n\n", "\n") for text in texts))
    elif kind == "files":
        for number, text in enumerate(texts):
            (folder / f"{number:05d}.txt").write_text(text)
    return folder


KINDS = ["jsonl", "gz", "xml", "single", "multistream", "parquet", "text", "files"]
FAST = ("multistream", "files")
KINDS_BY_TIME = [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS_BY_TIME)
def test_places_are_spread_and_stand_for_all_of_the_input(tmp_path, texts, kind):
    read = ReadOptions(document_per="file") if kind == "files" else ReadOptions()
    (tmp_path / "input").mkdir()
    path = write_corpus(tmp_path / "input", texts, kind)
    portions = plan_portions(find_inputs([str(path)]), options=read, split_bytes=300_000)
    (tmp_path / "work").mkdir()
    places = sample_places(portions, options=read, folder=tmp_path / "work", text_bytes=300_000)
    again = sample_places(portions, options=read, folder=tmp_path / "work", text_bytes=300_000)
    assert [place.stored_bytes for place in places] == [place.stored_bytes for place in again]
    total = sum(split.stop - split.start for split in chain.from_iterable(portions))
    assert sum(place.stands_for for place in places) == pytest.approx(total)
    assert sum(place.stored_bytes for place in places) <= total
    if kind in ("jsonl", "xml", "text", "files"):
        assert sum(place.stored_bytes for place in places) < 0.5 * total
        assert len(places) > 15


@pytest.mark.parametrize("kind", KINDS_BY_TIME)
def test_counts_are_near_those_of_the_build(tmp_path, texts, num_tokens, small_options, kind):
    """A tenth of the input is read; the documents are few and unequal, so the tolerance is that of the sample."""
    read = ReadOptions(document_per="file") if kind == "files" else ReadOptions()
    options = dataclasses.replace(small_options, read=read, shards=ShardOptions(num_shards=3, block_size=100))
    path = write_corpus(tmp_path, texts, kind)
    portions = portions_of(path, options, split_bytes=300_000)
    estimate = estimate_build(portions, options=options, num_workers=2, text_bytes=300_000)
    assert estimate.documents == near(len(texts))
    assert estimate.tokens == near(num_tokens)
    assert (estimate.train_shards, estimate.num_portions) == (3, len(portions))


@pytest.mark.parametrize("trains", [pytest.param(False, marks=pytest.mark.slow), True])
def test_small_input_is_read_whole_and_all_is_told(tmp_path, wiki_file, small_options, trains):
    options = dataclasses.replace(
        small_options,
        max_seq_lengths=(32, 64),
        pairs=PairOptions(max_seq_length=32),
        tokenizer=TokenizerOptions(vocab_size=300) if trains else small_options.tokenizer,
        shards=ShardOptions(shard_size=200_000, block_size=100),
    )
    estimate = estimate_build(portions_of(wiki_file, options), options=options, num_workers=1)
    out = tmp_path / "out"
    with open_build([str(wiki_file)], out=out, options=options, keep_work=True) as work:
        build_serially(work)
    manifests = [bertdata.open_data_set(out / str(length)).manifest for length in (32, 64)]
    counts = manifests[0].counts
    assert (estimate.documents, estimate.tokens) == (counts["documents"], counts["tokens"])
    assert estimate.sentences == counts["sentences"]
    assert estimate.sampled_bytes == estimate.input_bytes == wiki_file.stat().st_size
    for split, pairs, shards in (
        ("train", estimate.train_pairs, estimate.train_shards),
        ("eval", estimate.eval_pairs, estimate.eval_shards),
    ):
        assert pairs == pytest.approx(sum(manifest.num_samples(split) for manifest in manifests), rel=0.15, abs=100)
        assert shards == sum(shard.split == split for manifest in manifests for shard in manifest.shards)
    stored = sum(path.stat().st_size for path in out.rglob("*.tar"))
    assert estimate.shard_bytes == near(stored)
    work_bytes = sum(path.stat().st_size for path in out.rglob("*.run"))
    assert estimate.peak_disk_bytes == near(stored + work_bytes)
    assert estimate.seconds > 0
    assert estimate.worker_memory > estimate.launcher_memory > 0


def test_more_workers_take_less_time_but_for_the_longest_task(texts, tmp_path, small_options):
    path = write_corpus(tmp_path, texts[:200], "jsonl")
    portions = portions_of(path, small_options, split_bytes=14_000)
    one, four = (estimate_build(portions, options=small_options, num_workers=number).seconds - 6 for number in (1, 4))
    assert four < one
    whole = portions_of(path, small_options)
    assert len(whole) == 1
    assert math.isfinite(estimate_build(whole, options=small_options, num_workers=100).seconds)


def test_command_writes_nothing_and_prints_a_table_or_json(tmp_path, jsonl_file, tokenizer_file):
    arguments = [
        "build",
        "--input",
        str(jsonl_file),
        "--out",
        str(tmp_path / "out"),
        "--tokenizer",
        str(tokenizer_file),
    ]
    before = sorted(tmp_path.iterdir())
    table = CliRunner().invoke(main, [*arguments, "--dry-run", "--num-workers", "2"])
    assert table.exit_code == 0, table.output
    assert "documents          300\n" in table.stdout
    assert " free)" in table.stdout
    assert "with 2 workers" in table.stdout
    values = json.loads(CliRunner().invoke(main, [*arguments, "--dry-run", "--json"]).stdout)
    assert values["documents"] == 300
    assert values["input_bytes"] == jsonl_file.stat().st_size
    assert sorted(tmp_path.iterdir()) == before
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 2
    assert "--json goes with --dry-run" in result.output


def test_errors_are_those_of_the_build(tmp_path, tokenizer_file):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "A sentence. Another one."}\n{broken\n')
    arguments = ["build", "--input", str(path), "--out", str(tmp_path / "out"), "--tokenizer", str(tokenizer_file)]
    result = CliRunner().invoke(main, [*arguments, "--dry-run"])
    assert result.exit_code == 1
    assert "1 bad records, 0 allowed" in result.output
    path.write_text('{"text": ""}\n')
    result = CliRunner().invoke(main, [*arguments, "--dry-run"])
    assert result.exit_code == 1
    assert "no document came out of the" in result.output
