import bz2
import dataclasses
import hashlib
import json
import re
from collections import Counter

import numpy as np
import pytest

import bertdata
from bertdata.build import build_serially
from bertdata.config import BuildOptions, PairOptions, ReadOptions, ShardOptions, TokenizerOptions
from bertdata.errors import InputError
from bertdata.launch import open_build
from bertdata.spill import document_key
from tests.corpus import iter_texts, sentence


def build(out, *inputs, options, split_bytes=None):
    with open_build([str(path) for path in inputs], out=out, options=options, split_bytes=split_bytes) as work:
        build_serially(work)
    return out


def digests(folder):
    """SHA-256 of every file whose bytes must not depend on how the input is stored."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def counts_of(folder):
    return bertdata.open_data_set(folder).manifest.counts


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_bytes_do_not_depend_on_splits_order_or_compression(tmp_path, wiki_file, small_options):
    options = dataclasses.replace(small_options, tokenizer=TokenizerOptions(vocab_size=300))
    wanted = build(tmp_path / "whole", wiki_file, options=options)
    packed = tmp_path / "wiki.xml.bz2"
    packed.write_bytes(bz2.compress(wiki_file.read_bytes()))
    pages = re.findall("<page>.*?</page>\n", wiki_file.read_text(), re.DOTALL)
    halves = {"z.xml": pages[:100], "a.xml": pages[:99:-1]}
    for name, part in halves.items():
        (tmp_path / name).write_text('<mediawiki xml:lang="en">\n' + "".join(part) + "</mediawiki>\n")
    assert digests(build(tmp_path / "splits", wiki_file, options=options, split_bytes=5000)) == digests(wanted)
    assert digests(build(tmp_path / "packed", packed, options=options)) == digests(wanted)
    assert digests(build(tmp_path / "halves", *(tmp_path / name for name in halves), options=options)) == digests(
        wanted
    )
    assert counts_of(tmp_path / "splits") == counts_of(wanted) == counts_of(tmp_path / "packed")


def test_counts_add_up(small_data_set, wiki_file, tmp_path, small_options):
    counts = Counter(counts_of(build(tmp_path / "wiki", wiki_file, options=small_options)))
    assert counts["pages"] == counts["articles"] + counts["redirects"] + counts["other_namespaces"] == 325
    assert (counts["articles"], counts["redirects"], counts["other_namespaces"]) == (300, 20, 5)
    assert counts["records"] == counts["documents"] + counts["empty"] + counts["too_short"]
    for count in (counts, Counter(counts_of(small_data_set))):
        kept = count["train_documents"] + count["eval_documents"]
        assert count["documents"] == kept + count["duplicates"] + count["one_sentence_documents"]
        assert kept == count["documents_kept"]
        assert count["samples"] == count["train_samples"] + count["eval_samples"]


def test_samples_hold_the_text_of_their_documents(small_data_set):
    from bertdata.wordpiece import load_tokenizer

    tokenizer = load_tokenizer(small_data_set / "tokenizer.json")
    sentences = [tokenizer.encode(sentence(1, number), add_special_tokens=False).ids for number in range(31)]
    samples = list(bertdata.read_samples(small_data_set)) + list(bertdata.read_samples(small_data_set, split="eval"))
    texts = {json.dumps(ids)[1:-1] for ids in sentences if len(ids) > 12}
    shown = [json.dumps(sample.tokens) for sample in samples]
    found = [text for text in texts if any(text in tokens for tokens in shown)]
    assert len(found) >= 1


def test_train_and_eval_documents_are_disjoint(small_data_set):
    keys = {
        split: {key for sample in bertdata.read_samples(small_data_set, split=split) for key in sample.document_keys}
        for split in ("train", "eval")
    }
    assert len(keys["eval"]) == counts_of(small_data_set)["eval_documents"]
    assert not keys["train"] & keys["eval"]


def test_document_keys_are_those_of_the_text(small_data_set):
    from bertdata.sentences import split_sentences

    wanted = {
        int.from_bytes(document_key(split_sentences(text.replace("\n\n", "\n"), language="en"))[:8], "big")
        for text in iter_texts(300)
    }
    found = {key for sample in bertdata.read_samples(small_data_set) for key in sample.document_keys}
    assert found
    assert found <= wanted


@pytest.mark.parametrize("keep", [False, True])
def test_duplicates(tmp_path, small_options, keep):
    texts = list(iter_texts(100))
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts + texts[:10] + texts[:5]])
    shards = ShardOptions(num_shards=2, keep_duplicates=keep)
    out = build(tmp_path / "out", path, options=dataclasses.replace(small_options, shards=shards))
    counts = counts_of(out)
    assert counts["documents"] == 115
    assert counts.get("duplicates", 0) == (0 if keep else 15)
    assert counts["documents_kept"] == (115 if keep else 100)


def test_two_lengths_share_vocabulary_and_eval_documents(tmp_path, jsonl_file, small_options):
    options = dataclasses.replace(small_options, max_seq_lengths=(32, 64))
    out = build(tmp_path / "two", jsonl_file, options=options)
    keys = []
    for length in (32, 64):
        data_set = bertdata.open_data_set(out / str(length))
        assert data_set.manifest.options["pairs"]["max_seq_length"] == length
        samples = list(bertdata.read_samples(out / str(length), split="eval"))
        assert max(len(sample.tokens) for sample in samples) <= length
        keys.append({key for sample in samples for key in sample.document_keys})
    assert keys[0] == keys[1]
    alone = build(tmp_path / "one", jsonl_file, options=small_options)
    assert digests(out / "64") == digests(alone)


def test_finished_stages_are_not_done_again(tmp_path, jsonl_file, small_options, monkeypatch):
    from bertdata import build as stages
    from bertdata import tokenizing

    done = []
    for module, name in ((stages, "read_runs"), (tokenizing, "iter_checked_documents"), (stages, "plan_tasks")):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, original=original, **values: done.append(1) or original(*args, **values)
        )

    def fail(*args, **values):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_data_set", fail)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "out", jsonl_file, options=small_options)
    assert done
    assert not (tmp_path / "out" / "manifest.json").exists()
    done.clear()
    build(tmp_path / "out", jsonl_file, options=small_options)
    assert done == []
    assert not (tmp_path / "out" / ".work").exists()
    assert digests(tmp_path / "out") == digests(build(tmp_path / "again", jsonl_file, options=small_options))


def test_bad_records_end_the_build_and_can_be_allowed(tmp_path, small_options):
    records = [json.dumps({"text": text}) for text in iter_texts(30)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*records[:20], "{broken", *records[20:]]) + "\n")
    options = dataclasses.replace(small_options, shards=ShardOptions())
    with pytest.raises(InputError, match=r"1 bad records, 0 allowed.*a\.jsonl.*line 21.*Mend them, or .*--max-rejects"):
        build(tmp_path / "strict", path, options=options)
    assert not (tmp_path / "strict" / "manifest.json").exists()
    other_field = dataclasses.replace(options, read=ReadOptions(text_field="body"))
    with pytest.raises(InputError, match=r"missing_field.*Name the field of the text with --text-field, or "):
        build(tmp_path / "strict", path, options=other_field)
    out = build(tmp_path / "lenient", path, options=dataclasses.replace(options, read=ReadOptions(max_rejects=1)))
    assert counts_of(out)["rejected_bad_json"] == 1
    (reject,) = (out / "rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["reason"] == "bad_json"


def test_sentences_without_letters_are_dropped_and_counted(tmp_path, small_options):
    plain = [[f"The river {number}.", "A town.", "The old bridge."] for number in range(150)]
    dashed = [["* * *", sentences[0], "1984", *sentences[1:], "— 3.5 %"] for sentences in plain]
    shards = []
    for name, texts in (("plain", plain), ("dashed", dashed)):
        path = write_jsonl(tmp_path / f"{name}.jsonl", [{"text": text} for text in texts])
        out = build(tmp_path / name, path, options=small_options)
        manifest = bertdata.open_data_set(out).manifest
        assert manifest.counts["sentences"] == 450
        assert manifest.counts.get("sentences_without_letters", 0) == (450 if name == "dashed" else 0)
        shards.append([shard.sha256 for shard in manifest.shards])
    assert shards[0] == shards[1]


def test_no_document_is_an_error(tmp_path, small_options):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": ""}, {"text": " "}])
    with pytest.raises(InputError, match="no document came out of the input.*2 empty"):
        build(tmp_path / "out", path, options=small_options)


def test_google_counts_and_balanced_labels(small_data_set, tmp_path, jsonl_file, small_options):
    counts = counts_of(small_data_set)
    assert abs(counts["not_next"] / counts["samples"] - 0.5) < 0.01
    pairs = PairOptions(next_sentence="google", max_seq_length=64)
    google = counts_of(build(tmp_path / "google", jsonl_file, options=dataclasses.replace(small_options, pairs=pairs)))
    assert google["not_next"] / google["samples"] > 0.52


def test_balanced_not_next_exactly_where_documents_differ(small_data_set):
    for sample in bertdata.read_samples(small_data_set):
        assert sample.next_sentence_label == (sample.document_keys[0] != sample.document_keys[1])


GOLDEN = "d0ac06b858563b5b190e882ffaabe56f8e587ffbe539dbb2260c8a43018c260d"


def test_golden_build(small_data_set):
    """Fails when the bytes of a build change: then say so in the changelog under "Shard bytes"."""
    shards = bertdata.open_data_set(small_data_set).manifest.shards
    assert hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest() == GOLDEN


def test_blocks_hold_at_most_block_size(small_data_set):
    data_set = bertdata.open_data_set(small_data_set)
    assert data_set.index.num_samples.max() == 100
    assert np.all(data_set.index.num_bytes > 0)


def test_options_go_through_json():
    options = BuildOptions(max_seq_lengths=(128, 512), seed=7)
    assert BuildOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
