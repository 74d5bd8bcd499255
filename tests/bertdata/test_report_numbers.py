import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bertdata
from bertdata.report_funnel import Funnel, Stage, make_funnels
from bertdata.report_numbers import report_numbers
from bertdata.wordpiece import load_tokenizer
from tests.bertdata.report_builds import MODES, build_all_modes
from tests.bertdata.small_builds import build, samples_of, write_jsonl

SPECIALS = {"[CLS]", "[SEP]", "[PAD]", "[MASK]"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, small_options):
    return build_all_modes(tmp_path_factory.mktemp("modes"), small_options)[0]


@pytest.fixture(params=MODES)
def folder(request, folders):
    return folders[request.param]


def numbers_of(folder):
    data_set = bertdata.open_data_set(folder)
    return report_numbers(data_set, data_set.load_statistics())


def mode_of(folder):
    return bertdata.open_data_set(folder).manifest.options["pairs"]["next_sentence"]


def histogram(values, size):
    counts = Counter(values)
    return [counts[value] for value in range(size)]


def test_sample_numbers_are_those_of_a_plain_count(folder):
    numbers, samples = numbers_of(folder), samples_of(folder)
    lengths = [len(sample.tokens) for sample in samples]
    assert numbers["shards.samples"] == len(samples)
    assert numbers["shards.train_samples"] == sum(1 for _ in bertdata.read_samples(folder))
    assert numbers["shards.eval_samples"] == sum(1 for _ in bertdata.read_samples(folder, split="eval"))
    assert numbers["shards.tokens"] == sum(lengths)
    assert numbers["shards.padding_share"] == pytest.approx(
        sum(64 - length for length in lengths) / (64 * len(lengths))
    )
    assert numbers["shards.full_share"] == pytest.approx(lengths.count(64) / len(lengths))
    assert numbers["shards.sample_lengths.histogram"] == histogram(lengths, 65)
    assert numbers["shards.sample_lengths.mean"] == pytest.approx(np.mean(lengths))
    for name, share in (("percentile_10", 10), ("median", 50), ("percentile_90", 90), ("longest", 100)):
        assert numbers[f"shards.sample_lengths.{name}"] == np.percentile(lengths, share, method="inverted_cdf")
    files = sorted(folder.glob("*.tar"), key=lambda path: (path.name.startswith("eval"), path.name))
    assert numbers["shards.bytes_by_shard"] == [path.stat().st_size for path in files]
    assert numbers["shards.samples_by_shard"] == [sum(1 for _ in bertdata.read_samples(path)) for path in files]


def test_label_numbers_are_those_of_a_plain_count(folder):
    numbers, samples = numbers_of(folder), samples_of(folder)
    if mode_of(folder) == "none":
        assert not [name for name in numbers if "label" in name or "forced" in name]
        return
    by_label = [[sample for sample in samples if sample.next_sentence_label == label] for label in (0, 1)]
    assert [numbers["shards.label_0"], numbers["shards.label_1"]] == [len(part) for part in by_label]
    assert numbers["shards.label_1_share"] == pytest.approx(len(by_label[1]) / len(samples))
    assert numbers["input.forced"] + numbers["input.label_1_free"] == len(by_label[1])
    assert (numbers["input.forced"] > 0) == (mode_of(folder) == "google")
    for label, part in enumerate(by_label):
        a_lengths = [sample.segment_ids.count(0) - 2 for sample in part]
        assert numbers["shards.a_lengths"][label] == histogram(a_lengths, 65)
        assert numbers["shards.pair_lengths"][label] == histogram([len(sample.tokens) - 3 for sample in part], 65)
    assert 0.4 < numbers["shards.label_guess"] < 0.75


def test_mask_numbers_are_those_of_a_plain_count(folder):
    numbers, samples = numbers_of(folder), samples_of(folder)
    if mode_of(folder) == "sop":  # built without mask sets
        assert not [name for name in numbers if "shown_" in name and name.startswith("shards.")]
        return
    kinds, places, expected = Counter(), Counter(), np.zeros(20)
    most = 8 if mode_of(folder) == "none" else 64
    by_rule = 0
    for sample in samples:
        candidates = [place for place, token in enumerate(sample.tokens) if token not in (2, 3)]
        by_rule += 2 * min(max(round(0.15 * len(sample.tokens)), 1), most, len(candidates))
        share = np.bincount(np.arange(len(candidates)) * 20 // len(candidates), minlength=20) / len(candidates)
        for positions, shown in sample.mask_sets:
            expected += share * len(positions)
            for position, token in zip(positions, shown, strict=True):
                kinds["mask" if token == 4 else "same" if token == sample.tokens[position] else "other"] += 1
                places[candidates.index(position) * 20 // len(candidates)] += 1
    assert numbers["shards.predictions"] == numbers["shards.predictions_by_rule"] == kinds.total() == by_rule
    tokens = sum(len(sample.tokens) for sample in samples)
    assert numbers["shards.predicted_share"] == pytest.approx(kinds.total() / (2 * tokens))
    assert numbers["shards.predictions_per_set"] == pytest.approx(kinds.total() / (2 * len(samples)))
    for kind, theory in (("mask", 0.8), ("other", 0.1), ("same", 0.1)):
        assert numbers[f"shards.shown_{kind}"] == kinds[kind]
        assert numbers[f"shards.shown_{kind}_share"] == pytest.approx(kinds[kind] / kinds.total())
        assert numbers[f"shards.shown_{kind}_share_in_theory"] == theory
        assert numbers[f"shards.shown_{kind}_of_tokens"] == pytest.approx(kinds[kind] / (2 * tokens))
        assert numbers[f"shards.shown_{kind}_of_tokens_in_theory"] == pytest.approx(0.15 * theory)
    assert numbers["shards.prediction_places"] == [places[place] for place in range(20)]
    assert numbers["shards.expected_places"] == pytest.approx(expected)
    assert numbers["shards.place_deviation"] == pytest.approx(
        max(abs(places[place] / expected[place] - 1) for place in range(20))
    )


def test_vocabulary_numbers_are_those_of_a_plain_count(folder):
    numbers = numbers_of(folder)
    vocab = load_tokenizer(folder / "tokenizer.json").get_vocab()
    texts = {number: text for text, number in vocab.items()}
    tokens = [token for sample in samples_of(folder) for token in sample.tokens if texts[token] not in SPECIALS]
    counts = Counter(tokens)
    ordinary = [n for n, text in texts.items() if text not in SPECIALS and text not in ("[UNK]", "[unused0]")]
    assert numbers["shards.ids"] == len(vocab)
    assert numbers["shards.text_tokens"] == len(tokens)
    assert numbers["shards.words"] == sum(not texts[token].startswith("##") for token in tokens)
    assert numbers["shards.pieces_per_word"] == len(tokens) / numbers["shards.words"]
    assert numbers["shards.entries"] == len(ordinary)
    assert numbers["shards.unused_entries"] == sum(counts[token] == 0 for token in ordinary)
    assert numbers["shards.unused_tokens"] == sorted(token for token in ordinary if not counts[token])
    assert numbers["shards.rare_entries"] == sum(0 < counts[token] < 10 for token in ordinary)
    top = sorted(counts, key=lambda token: (-counts[token], token))
    assert numbers["shards.top_tokens"] == top[:30]
    assert numbers["shards.top_token_counts"] == [counts[token] for token in top[:30]]
    assert numbers["shards.ranks"][-1] == len(top)
    assert numbers["shards.rank_counts"] == [counts[top[rank - 1]] for rank in numbers["shards.ranks"]]
    half = numbers["shards.entries_of_half"]
    assert (
        sum(counts[token] for token in top[: half - 1]) < len(tokens) / 2 <= sum(counts[token] for token in top[:half])
    )


def test_numbers_of_the_input_are_those_of_known_documents(tmp_path, small_options):
    documents = [["The old town.", "A new bridge!"], ["Early.", "Late.", "Summer.", "!!!"], ["The river road."]]
    documents += [["A small green boat.", "The fisher sells it."]] * 3 + [["In winter.", "By the sea."]] * 60
    documents = [[f"{n} {first}", *rest] if n >= 6 else [first, *rest] for n, (first, *rest) in enumerate(documents)]
    out = build(tmp_path / "shards", write_jsonl(tmp_path / "some.jsonl", documents), options=small_options)
    numbers = numbers_of(out)
    kept = [[s for s in d if s != "!!!"] for n, d in enumerate(documents) if n not in (2, 4, 5)]
    encode = load_tokenizer(out / "tokenizer.json").encode
    tokens = [[len(encode(s, add_special_tokens=False).ids) for s in d] for d in kept]
    assert numbers["input.sentences_found"] == sum(map(len, documents))
    assert numbers["input.sentences_dropped.without_letters"] == 1
    assert numbers["input.sentences_dropped.in_one_sentence_documents"] == 1
    assert numbers["input.sentences_dropped.in_other_documents"] == 4
    assert numbers["input.sentences_kept"] == sum(map(len, kept))
    assert numbers["input.documents_kept"] == len(kept)
    assert numbers["input.tokens_kept"] == sum(map(sum, tokens))
    assert numbers["input.document_sentences.histogram"][:5] == histogram(map(len, kept), 5)
    assert numbers["input.document_tokens.histogram"][:32] == histogram(map(sum, tokens), 32)
    assert numbers["input.sentence_tokens.histogram"][:32] == histogram([n for d in tokens for n in d], 32)
    assert numbers["input.sentence_tokens.mean"] == pytest.approx(np.mean([n for d in tokens for n in d]))
    assert numbers["input.never_shown_share"] + numbers["input.shown_share"] == pytest.approx(1)


def test_every_funnel_adds_up(folder):
    numbers = numbers_of(folder)
    counts = bertdata.open_data_set(folder).manifest.counts
    for funnel in make_funnels(numbers):
        left = None
        for stage in funnel.stages:
            if not stage.is_part:
                assert left in (None, numbers[stage.name]), stage
                left = numbers[stage.name]
            left -= sum(numbers[name] for _, name in stage.dropped)
            left += sum(numbers[name] for _, name in stage.added)
        parts = [numbers[stage.name] for stage in funnel.stages if stage.is_part]
        assert not parts or sum(parts) == left
    shown = {name for funnel in make_funnels(numbers) for stage in funnel.stages for _, name in stage.dropped}
    dropped = {"redirects", "other_namespaces", "empty", "filtered_no_milk", "rejected_bad_json", "duplicates"}
    dropped |= {"rejected_missing_field", "documents_without_tokens", "excluded_documents"}
    assert dropped <= {name.rpartition(".")[2] for name in shown}
    assert all(counts[name] > 0 for name in dropped)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=6), st.integers(0, 10**6), st.integers(0, 10**12))
def test_bars_of_a_funnel_tile_its_width(drops, gain, left):
    first = sum(drops) + left
    numbers = {"first": first, "gain": gain, "left": left + gain} | {f"drop{n}": drop for n, drop in enumerate(drops)}
    dropped = tuple((f"reason {n}", f"drop{n}") for n in range(len(drops)))
    stages = [
        Stage(label="in", name="first", dropped=dropped, added=(("more", "gain"),)),
        Stage(label="out", name="left"),
    ]
    bars = list(Funnel(title="Things", stages=stages).bars(numbers))
    assert [bar.value for bar in bars if bar.kind == "dropped"] == [drop for drop in drops if drop]
    end = bars[0].width
    for bar in bars[1:-1]:
        begin, stop = bar.start, bar.start + bar.width
        assert -1e-9 <= begin <= stop <= 1 + 1e-9
        assert (stop if bar.kind == "dropped" else begin) == pytest.approx(end)
        end = begin if bar.kind == "dropped" else stop
    assert bars[-1].start == 0
    assert bars[-1].width == pytest.approx(end)
    assert bars[0].share == (1 if first else 0)


def test_numbers_are_json(folder):
    numbers = numbers_of(folder)
    assert json.loads(json.dumps(numbers)) == numbers
