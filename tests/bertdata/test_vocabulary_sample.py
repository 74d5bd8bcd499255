import hashlib
import itertools
import json
import string
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertdata.config import ReadOptions
from bertdata.documents import Document
from bertdata.inputs import find_inputs
from bertdata.portions import plan_portions
from bertdata.vocabulary_sample import (
    NUM_LEVELS,
    PortionWords,
    WordCounts,
    _num_long_chars,
    count_words_of_portion,
    lowest_level,
    read_vocabulary_sample,
)
from tests.bertdata.memory_folder import MemoryFolder
from tests.corpus import iter_texts

TEXTS = list(iter_texts(40))


def record_of(folder, number):
    return PortionWords(**json.loads(folder.read(f"words/{number:05d}.json")))


def count_into(folder, number, texts, *, sample_bytes, level=0):
    words = WordCounts(sample_bytes=sample_bytes, level=level)
    for text in texts:
        words.add(Document(id="", text=text, language=None), language_option="auto")
    words.write(folder, number)


def level_of(text):
    """The level of a document, by the rule in words: its hash's leading zero bits."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"vocabulary").digest()
    bits = "".join(f"{byte:08b}" for byte in digest)
    return min(len(bits) - len(bits.lstrip("0")), NUM_LEVELS - 1)


def wanted_sample(texts, *, sample_bytes):
    """The sample as it is documented, from all texts at once."""
    for level in range(NUM_LEVELS):
        kept = [text for text in texts if level_of(text) >= level]
        if sum(len(text.encode()) for text in kept) <= sample_bytes:
            break
    return level, Counter(word for text in kept for word in text.split())


@given(
    order=st.permutations(range(len(TEXTS))),
    cuts=st.sets(st.integers(0, len(TEXTS)), max_size=6),
    sample_bytes=st.integers(100, 40_000),
    data=st.data(),
)
def test_sample_depends_on_neither_partition_nor_order_nor_what_a_portion_knew(order, cuts, sample_bytes, data):
    bounds = sorted({0, *cuts, len(TEXTS)})
    level, wanted = wanted_sample(TEXTS, sample_bytes=sample_bytes)
    folder = MemoryFolder()
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        seen = data.draw(st.sets(st.integers(0, number - 1))) if number else set()
        possible = lowest_level([record_of(folder, other) for other in seen], sample_bytes=sample_bytes)
        assert possible <= level
        texts = [TEXTS[place] for place in order[start:stop]]
        count_into(folder, number, texts, sample_bytes=sample_bytes, level=possible)
    num_portions = len(bounds) - 1
    folder.asked.clear()
    sample = read_vocabulary_sample(folder, num_portions=num_portions, sample_bytes=sample_bytes)
    assert sample.chunks == wanted
    assert sample.language == "en"
    # Of each portion the levels of the sample are read, and no others.
    for number in range(num_portions):
        assert (f"word_counts/{number:05d}.jsonl", 0, record_of(folder, number).ends[level]) in folder.asked


def test_later_portions_leave_out_what_cannot_be_in_the_sample(tmp_path):
    texts = list(iter_texts(300))
    size = sum(map(len, texts)) // 9
    folder = MemoryFolder()
    for number in range(10):
        path = tmp_path / f"{number}.txt"
        path.write_text("\n\n".join(text.replace("\n\n", "\n") for text in texts[30 * number : 30 * number + 30]))
        (portion,) = plan_portions(find_inputs([str(path)]), options=ReadOptions())
        count_words_of_portion(folder, number, portion, options=ReadOptions(), sample_bytes=size)
    records = [record_of(folder, number) for number in range(10)]
    levels = [record.level for record in records]
    assert levels == sorted(levels)
    assert levels[-1] >= 2
    assert sum(sum(record.text_bytes) for record in records[5:]) < sum(map(len, texts[150:])) / 2


def test_finished_portion_is_not_counted_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("One two.\n")
    (portion,) = plan_portions(find_inputs([str(path)]), options=ReadOptions())
    folder = MemoryFolder()
    count_words_of_portion(folder, 0, portion, options=ReadOptions(), sample_bytes=100)
    path.unlink()
    count_words_of_portion(folder, 0, portion, options=ReadOptions(), sample_bytes=100)
    assert read_vocabulary_sample(folder, num_portions=1, sample_bytes=100).chunks == Counter({"One": 1, "two.": 1})


def test_portion_reads_a_bounded_number_of_records(tmp_path, monkeypatch):
    from bertdata import vocabulary_sample

    monkeypatch.setattr(vocabulary_sample, "MAX_RECORDS_SEEN", 3)
    path = tmp_path / "a.txt"
    path.write_text("One two.\n")
    (portion,) = plan_portions(find_inputs([str(path)]), options=ReadOptions())
    folder = MemoryFolder()
    read = []
    original = folder.read
    folder.read = lambda name: read.append(name) or original(name)
    for number in range(6):
        read.clear()
        count_words_of_portion(folder, number, portion, options=ReadOptions(), sample_bytes=100)
        assert len(read) == min(number, 3)


def run_vocab(folder, *inputs, name, num_workers):
    out = folder / f"{name}.json"
    command = [sys.executable, "-m", "bertdata", "vocab", "--input", *map(str, inputs), "--out", str(out)]
    command += ["--vocab-size", "400", "--num-workers", str(num_workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f" entries in {out}\n")
    assert "reading words" in done.stderr
    return out.read_bytes()


@pytest.mark.slow
def test_vocabulary_is_the_same_with_any_number_of_workers_and_files(tmp_path):
    records = [json.dumps({"text": text}) for text in iter_texts(600)]
    whole = tmp_path / "whole.jsonl"
    whole.write_text("\n".join(records) + "\n")
    parts = []
    for number in range(3):
        parts.append(tmp_path / f"part{number}.jsonl")
        # A record without text, as large as a split, keeps the files out of one portion.
        filler = json.dumps({"text": "", "more": "x" * (33 << 20)})
        parts[-1].write_text("\n".join([*records[number::3], filler]) + "\n")
    wanted = run_vocab(tmp_path, whole, name="one", num_workers=1)
    assert run_vocab(tmp_path, *parts, name="two", num_workers=2) == wanted


@given(text=st.text(alphabet="ab\n\t \u3000\x1c\u2028", max_size=40), piece_chars=st.integers(1, 8))
def test_words_of_a_large_document_are_counted_piece_by_piece(text, piece_chars):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bertdata.vocabulary_sample._PIECE_CHARS", piece_chars)
        words = WordCounts(sample_bytes=1 << 20)
        words.add(Document(id="", text=text, language=None), language_option="en")
    assert words.chunks[level_of(text)] == Counter(text.split())


def long_chars(texts):
    """Characters in what has 32 and more of them between spaces, ASCII punctuation and Chinese characters."""
    total = 0
    for chunk in {chunk for text in texts for chunk in text.split()}:
        cut = "".join(" " if char in string.punctuation or "\u4e00" <= char <= "\u9fff" else char for char in chunk)
        total += sum(len(part) for part in cut.split() if len(part) >= 32)
    return total


@given(
    texts=st.lists(
        st.lists(
            st.sampled_from(["ก" * 40, "ข" * 31, "ค" * 32 + "," + "ง" * 50, "中" * 60 + "จ" * 33, "a b"]), max_size=3
        ).map(" ".join),
        unique=True,
        max_size=12,
    ),
    num_portions=st.integers(1, 3),
    limit=st.integers(0, 300),
)
def test_long_words_raise_the_level_until_few_are_left(texts, num_portions, limit):
    texts = [f"{text} {number}" for number, text in enumerate(texts)]
    folder = MemoryFolder()
    for number in range(num_portions):
        count_into(folder, number, texts[number::num_portions], sample_bytes=1 << 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bertdata.vocabulary_sample.MAX_LONG_CHARS", limit)
        sample = read_vocabulary_sample(folder, num_portions=num_portions, sample_bytes=1 << 20)
    kept = next(
        kept for level in range(NUM_LEVELS) if long_chars(kept := [t for t in texts if level_of(t) >= level]) <= limit
    )
    assert sample.chunks == Counter(chunk for text in kept for chunk in text.split())


@pytest.mark.parametrize("text", ["\n".join(TEXTS), "人工智能是计算机科学的一个分支，" * 20, "これはペンです。" * 20])
def test_usual_text_has_no_long_words(text):
    assert _num_long_chars(text.split()) == 0
