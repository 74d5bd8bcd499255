import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bertdata
from bertdata.config import MaskOptions, PairOptions
from bertdata.counting import count_shown_tokens
from bertdata.pairs import Pairs
from bertdata.wordpiece import Vocabulary, load_tokenizer
from tests.bertdata.small_builds import build, samples_of, write_jsonl


def counted(folder):
    """Samples, predictions and tokens counted one by one, in the order in which they lie."""
    data_set = bertdata.open_data_set(folder)
    length = data_set.manifest.options["pairs"]["max_seq_length"]
    mask = data_set.manifest.tokenizer.roles["mask"]
    counts = Counter()
    for shard in data_set.manifest.shards:
        for block in bertdata.iter_blocks(folder / shard.name):
            for number, sample in enumerate(bertdata.blocks.iter_samples(block)):
                tokens, num_b = sample.tokens, sum(sample.segment_ids)
                counts["sample_lengths", len(tokens)] += 1
                special = {0, len(tokens) - num_b - 1, len(tokens) - 1}
                candidates = [position for position in range(len(tokens)) if position not in special]
                if data_set.manifest.options["pairs"]["next_sentence"] != "none":
                    step = max(1, length // 128)
                    cell = ((len(tokens) - num_b - 2) // step, len(candidates) // step)
                    counts[("segment_lengths", number % 2, sample.next_sentence_label, *cell)] += 1
                for token in tokens:
                    counts["token_counts", token] += 1
                for positions, shown in sample.mask_sets:
                    for position, token in zip(positions, shown, strict=True):
                        kind = 0 if token == mask else 2 if token == tokens[position] else 1
                        counts["shown", kind] += 1
                        counts["predictions_by_candidates", len(candidates)] += 1
                        place = candidates.index(position) * 20 // len(candidates)
                        counts["prediction_places", place] += 1
    return counts


@pytest.mark.parametrize("mode", ["balanced", "google", "sop", "none"])
@pytest.mark.parametrize("length", [32, 300])
def test_statistics_are_those_of_the_samples(tmp_path, small_options, mode, length):
    texts = [[f"the river {'a ' * (number % 7)}town .", "bread and water .", "old stone ."] for number in range(40)]
    options = dataclasses.replace(
        small_options,
        pairs=PairOptions(max_seq_length=length, next_sentence=mode),
        masks=MaskOptions(num_mask_sets=3),
        max_seq_lengths=(length,),
    )
    folder = build(tmp_path / "shards", write_jsonl(tmp_path / "a.jsonl", texts), options=options)
    statistics = bertdata.open_data_set(folder).load_statistics()
    found = Counter()
    for name in {name for name, *_ in counted(folder)} | {"segment_lengths"}:
        array = getattr(statistics, name)
        found.update({(name, *map(int, place)): int(array[tuple(place)]) for place in np.argwhere(array)})
    assert found == counted(folder)
    assert bool(statistics.segment_lengths.sum()) == (mode != "none")


def test_documents_are_counted_by_what_is_in_them(tmp_path, small_options):
    texts = (
        [["the river .", "a town .", "stone and bread ."]] * 2 + [["a b .", "the old old old mill ."]] + [["alone ."]]
    )
    folder = build(
        tmp_path / "shards", write_jsonl(tmp_path / "a.jsonl", texts), options=small_options_for(small_options)
    )
    data_set = bertdata.open_data_set(folder)
    statistics = data_set.load_statistics()
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    kept = [[len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts[row]] for row in (0, 2)]
    assert histogram(statistics.document_sentences) == Counter(len(lengths) for lengths in kept)
    assert histogram(statistics.document_tokens) == Counter(sum(lengths) for lengths in kept)
    assert histogram(statistics.sentence_tokens) == Counter(length for lengths in kept for length in lengths)
    assert data_set.manifest.counts["tokens_kept"] == sum(map(sum, kept))


def small_options_for(options):
    return dataclasses.replace(options, shards=dataclasses.replace(options.shards, num_shards=1))


def histogram(array):
    return Counter({int(value): int(array[value]) for value in np.flatnonzero(array)})


@given(st.lists(st.tuples(*[st.integers(0, 60)] * 4), max_size=30))
def test_shown_tokens_are_counted_once(spans):
    a_start, a_length, b_start, b_length = np.array(spans, dtype=np.int64).reshape(-1, 4).T
    stops = {"a_stop": a_start + a_length, "b_stop": b_start + b_length}
    nothing = np.zeros(len(spans), dtype=np.int64)
    rest = {"next_sentence_label": nothing, "documents": nothing, "is_forced": nothing, "order": nothing}
    shown = {token for a, n, b, m in spans for token in (*range(a, a + n), *range(b, b + m))}
    assert count_shown_tokens(Pairs(a_start=a_start, b_start=b_start, **stops, **rest)) == len(shown)


def test_all_text_is_shown_where_nothing_is_cut(tmp_path, small_options):
    options = dataclasses.replace(small_options, pairs=PairOptions(max_seq_length=64, next_sentence="none"))
    texts = ["the old mill by the river .\n\na town .", "bread and water and stone ."] * 40
    source = write_jsonl(tmp_path / "a.jsonl", [f"House {number}: {text}" for number, text in enumerate(texts)])
    counts = bertdata.open_data_set(build(tmp_path / "shards", source, options=options)).manifest.counts
    assert counts["tokens_shown"] == counts["tokens_kept"] == counts["tokens"]


def test_counts_by_id_are_those_of_the_vocabulary(small_data_set):
    data_set = bertdata.open_data_set(small_data_set)
    vocabulary = Vocabulary.of(load_tokenizer(small_data_set / "tokenizer.json"))
    counts = data_set.load_statistics().token_counts
    samples = samples_of(small_data_set)
    assert counts[vocabulary.roles["cls"]] == len(samples)
    assert counts[vocabulary.roles["sep"]] == 2 * len(samples)
    assert counts.sum() == sum(len(sample.tokens) for sample in samples)
