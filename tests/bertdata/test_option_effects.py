"""Every option that decides the bytes of a build has the effect that its help promises, and no option has none.

Each test builds a small corpus with the option as it is by default and with another value, and looks for the one thing
that must differ. The last test fails for an option without a test here.
"""

import dataclasses
import gzip
import itertools
import json
import math
from collections import Counter
from functools import cached_property
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import bertdata
from bertdata.blocks import Sample
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ShardOptions, TokenizerOptions
from bertdata.errors import ConfigError, InputError
from bertdata.wordpiece import Vocabulary, load_tokenizer
from tests.bertdata.small_builds import build, counts_of, samples_of, write_jsonl
from tests.corpus import iter_texts

CLS, SEP = 2, 3
TESTED: set[str] = set()


def effect_of(*names):
    """Marks a test as the test of some options, "stage.name"."""

    def mark(test):
        TESTED.update(names)
        return test

    return mark


@dataclasses.dataclass(frozen=True)
class Built:
    """A finished build, read when it is looked at."""

    folder: Path

    @cached_property
    def manifest(self) -> bertdata.Manifest:
        return bertdata.open_data_set(self.folder).manifest

    @cached_property
    def counts(self) -> Counter[str]:
        return counts_of(self.folder)

    @cached_property
    def samples(self) -> list[Sample]:
        return samples_of(self.folder)

    @cached_property
    def vocab(self) -> dict[str, int]:
        return load_tokenizer(self.folder / "tokenizer.json").get_vocab()

    def num_shards(self, split: str) -> int:
        return sum(shard.split == split for shard in self.manifest.shards)

    def segments(self) -> Counter[tuple[int, ...]]:
        """Tokens of the samples, specials included."""
        return Counter(tuple(sample.tokens) for sample in self.samples)


@pytest.fixture(scope="module")
def base(tokenizer_file) -> BuildOptions:
    return BuildOptions(
        tokenizer=TokenizerOptions(path=str(tokenizer_file)),
        pairs=PairOptions(dupe_factor=1),
        masks=MaskOptions(num_mask_sets=1),
        shards=ShardOptions(num_shards=1, eval_fraction=0),
        max_seq_lengths=(32,),
    )


@pytest.fixture
def make(tmp_path, base):
    """Returns a function that builds inputs with some options changed, named "stage.name"."""
    numbers = itertools.count()

    def make(*inputs: Path, **changes) -> Built:
        options = base
        for name, value in changes.items():
            stage, _, field = name.partition(".")
            value = dataclasses.replace(getattr(options, stage), **{field: value}) if field else value
            options = dataclasses.replace(options, **{stage: value})
        return Built(build(tmp_path / f"out{next(numbers)}", *inputs, options=options))

    return make


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """60 documents of 2 to 30 sentences."""
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", iter_texts(60))


@pytest.fixture(scope="module")
def tiny_documents(tmp_path_factory) -> Path:
    """1,500 documents of two short sentences."""
    texts = [[f"The river {number}", f"A town {number + 1}"] for number in range(1500)]
    return write_jsonl(tmp_path_factory.mktemp("tiny") / "tiny.jsonl", texts)


@pytest.fixture(scope="module")
def plain_build(tmp_path_factory, corpus, base) -> Built:
    return Built(build(tmp_path_factory.mktemp("plain") / "out", corpus, options=base))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# How input is read.


@effect_of("read.format")
def test_format_reads_jsonl_as_plain_text_where_asked_to(make, corpus, plain_build):
    assert plain_build.counts["documents"] == 60
    as_text = make(corpus, **{"read.format": "text"})
    assert as_text.counts["documents"] == 1  # no blank line in it
    assert as_text.counts["tokens"] > plain_build.counts["tokens"] + 60 * 4  # {"text": "..."}


@effect_of("read.document_per")
@pytest.mark.parametrize(("document_per", "num_documents"), [("blank-line", 3), ("line", 6), ("file", 2)])
def test_document_per_separates_documents(tmp_path, make, document_per, num_documents):
    lines = ["The river. A town.", "A bridge. The boat.", "", "A miller. The baker.", "Bread. Water."]
    one = write(tmp_path / "one.txt", "\n".join(lines) + "\n")
    two = write(tmp_path / "two.txt", "A door. A table.\nThe apple. A window.\n")
    built = make(one, two, **{"read.document_per": document_per})
    assert built.counts["documents"] == num_documents
    assert built.counts["sentences"] == 12


@effect_of("read.sentence_per_line")
def test_sentence_per_line_splits_nothing(tmp_path, make):
    path = write(tmp_path / "a.txt", "The river. A town.\nA bridge. The boat.\n")
    assert make(path).counts["sentences"] == 4
    assert make(path, **{"read.sentence_per_line": True}).counts["sentences"] == 2


@effect_of("read.text_field")
def test_text_field_names_the_field_with_the_text(tmp_path, make):
    record = {"text": "The river flows. The river ends.", "body": "A bridge opens. A bridge closes."}
    path = write(tmp_path / "a.jsonl", json.dumps(record) + "\n")
    for field, word, other in (("text", "river", "bridge"), ("body", "bridge", "river")):
        built = make(path, **{"read.text_field": field})
        tokens = {token for sample in built.samples for token in sample.tokens}
        assert built.vocab[word] in tokens
        assert built.vocab[other] not in tokens


@effect_of("read.language")
def test_language_decides_sentences_and_the_case_of_a_trained_vocabulary(tmp_path, make):
    path = write_jsonl(tmp_path / "a.jsonl", ["Er kam am 3. Mai. Dann ging er. Der Turm steht."] * 3)
    options = {"shards.keep_duplicates": True, "tokenizer.path": None}
    english, german = (make(path, **options, **{"read.language": language}) for language in ("en", "de"))
    assert (english.manifest.languages, german.manifest.languages) == ({"en": 3}, {"de": 3})
    assert (english.counts["sentences"], german.counts["sentences"]) == (3 * 4, 3 * 3)  # a date in German
    assert (english.manifest.tokenizer.lowercase, german.manifest.tokenizer.lowercase) == (True, False)


@effect_of("read.min_document_chars")
def test_min_document_chars_drops_shorter_documents(make, corpus, plain_build):
    lengths = sorted(len(text.replace("\n\n", "\n")) for text in iter_texts(60))
    built = make(corpus, **{"read.min_document_chars": lengths[20]})
    assert built.counts["too_short"] == 20
    assert built.counts["documents"] == 40
    assert plain_build.counts["too_short"] == 0


@effect_of("read.max_document_bytes")
def test_max_document_bytes_rejects_longer_documents(make, corpus, plain_build):
    lengths = sorted(len(text.replace("\n\n", "\n").encode()) for text in iter_texts(60))
    built = make(corpus, **{"read.max_document_bytes": lengths[49], "read.max_rejects": 10})
    assert built.counts["rejected_too_large"] == 10
    assert built.counts["documents"] == 50
    assert plain_build.counts["documents"] == 60


@effect_of("read.filter")
def test_filter_drops_documents(tmp_path, make, monkeypatch):
    path = write_jsonl(tmp_path / "a.jsonl", [["The river.", f"Town {number}."] for number in range(30)])
    write(
        tmp_path / "filter_of_towns.py",
        "def f(document):\n    return 'town7' if 'Town 7' in document.text else document\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make(path).counts["documents"] == 30
    counts = make(path, **{"read.filter": "filter_of_towns:f"}).counts
    assert counts["documents"] == 29
    assert counts["filtered_town7"] == 1


@effect_of("read.skip_bad_splits")
def test_skip_bad_splits_goes_on_after_damage(tmp_path, make, corpus):
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes())[:-5])
    good = write_jsonl(tmp_path / "good.jsonl", [["The river.", f"Town {number}."] for number in range(30)])
    with pytest.raises(InputError, match="--skip-bad-splits leaves out the rest"):
        make(good, tmp_path / "cut.jsonl.gz")
    counts = make(good, tmp_path / "cut.jsonl.gz", **{"read.skip_bad_splits": True}).counts
    assert counts["damaged_splits"] == 1
    assert counts["documents"] >= 30


@effect_of("read.max_rejects")
def test_max_rejects_allows_so_many_bad_records_and_no_more(tmp_path, make, corpus, plain_build):
    path = write(tmp_path / "corpus.jsonl", "{broken\n" + corpus.read_text() + "[1]\n")
    with pytest.raises(InputError, match="2 bad records, 1 allowed"):
        make(path, **{"read.max_rejects": 1})
    built = make(path, **{"read.max_rejects": 2})
    assert built.manifest.fingerprint == plain_build.manifest.fingerprint  # nothing else changes


# The tokenizer.


@effect_of("tokenizer.path", "tokenizer.vocab_size")
def test_tokenizer_is_the_given_one_or_trained_to_a_size(make, corpus, plain_build, tokenizer_file):
    assert not plain_build.manifest.tokenizer.trained
    assert plain_build.vocab == load_tokenizer(tokenizer_file).get_vocab()
    sizes = []
    for vocab_size in (100, 200):
        trained = make(corpus, **{"tokenizer.path": None, "tokenizer.vocab_size": vocab_size})
        assert trained.manifest.tokenizer.trained
        assert trained.vocab != plain_build.vocab
        assert len(trained.vocab) == trained.manifest.tokenizer.vocab_size <= vocab_size
        sizes.append(len(trained.vocab))
        assert max(token for sample in trained.samples for token in sample.tokens) < vocab_size
    assert sizes[0] == 100
    assert sizes[1] > 100


@effect_of("tokenizer.lowercase", "tokenizer.strip_accents")
def test_case_and_accents_are_kept_or_removed_in_a_trained_vocabulary(tmp_path, make):
    path = write_jsonl(tmp_path / "a.jsonl", [["The Caf\u00e9 opens", f"In Paris {number}"] for number in range(20)])
    for lowercase, strip_accents in itertools.product((True, False), repeat=2):
        options = {"tokenizer.lowercase": lowercase, "tokenizer.strip_accents": strip_accents}
        built = make(path, **options, **{"tokenizer.path": None})
        letters = {letter for text in built.vocab if not text.startswith("[") for letter in text}
        assert ("C" in letters) != lowercase
        assert ("\u00e9" in letters) != strip_accents
        assert built.manifest.tokenizer.lowercase == lowercase
        assert built.counts["unknown_tokens"] == 0


@effect_of("tokenizer.lowercase", "tokenizer.strip_accents")
def test_case_and_accents_of_a_given_tokenizer_can_be_forced(tmp_path, make):
    path = write_jsonl(tmp_path / "a.jsonl", [["the Caf\u00e9 opens", "the bread"]] * 5)
    unknown = {}
    for lowercase, strip_accents in itertools.product((None, False), repeat=2):
        options = {"tokenizer.lowercase": lowercase, "tokenizer.strip_accents": strip_accents}
        unknown[lowercase, strip_accents] = make(path, **options).counts["unknown_tokens"]
    # Lower-case letters without accents are all that the tokenizer knows.
    assert unknown == {(None, None): 0, (False, None): 5, (None, False): 5, (False, False): 5}


@effect_of("tokenizer.sample_bytes")
def test_sample_bytes_bounds_the_text_that_a_vocabulary_is_trained_on(tmp_path, make):
    names = [f"{one}{two}{one}" for one, two in itertools.permutations("bcdfgh", 2)]
    texts = [f"{name} {name}. " * 10 for name in names]
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    options = {"tokenizer.path": None, "tokenizer.vocab_size": 1000}
    total = sum(map(len, texts))
    builds = [make(path, **options, **{"tokenizer.sample_bytes": size}) for size in (total, total // 3)]
    known = [sum(name in built.vocab for name in names) for built in builds]
    assert known[0] == len(names)
    assert 0 < known[1] <= len(names) // 3


# Pairs.


@effect_of("pairs.max_seq_length", "max_seq_lengths")
def test_max_seq_lengths_writes_a_data_set_of_samples_of_each_length(make, corpus, plain_build):
    # The length of the pairs' own options is that of each data set in turn.
    both = make(corpus, max_seq_lengths=(16, 32), **{"pairs.max_seq_length": 16}).folder
    for length in (16, 32):
        built = Built(both / str(length))
        assert built.manifest.options["pairs"]["max_seq_length"] == length
        assert max(len(sample.tokens) for sample in built.samples) == length
    assert Built(both / "32").manifest.fingerprint == plain_build.manifest.fingerprint


@effect_of("pairs.short_seq_prob")
def test_short_seq_prob_of_zero_cuts_a_document_only_where_a_sample_is_full(make, corpus):
    lengths = {}
    for short_seq_prob in (0.0, 0.1, 1.0):
        built = make(corpus, **{"pairs.next_sentence": "none", "pairs.short_seq_prob": short_seq_prob})
        lengths[short_seq_prob] = Counter(len(sample.tokens) for sample in built.samples)
        assert sum((length - 2) * count for length, count in lengths[short_seq_prob].items()) == built.counts["tokens"]
    shares = {prob: 1 - counts[32] / counts.total() for prob, counts in lengths.items()}
    assert lengths[0.0].total() - lengths[0.0][32] <= 60  # the last of each document
    assert shares[0.0] + 0.05 < shares[0.1] < shares[0.0] + 0.2
    assert shares[1.0] > 0.9


@effect_of("pairs.next_sentence")
def test_next_sentence_decides_labels_and_segments(make, corpus, plain_build):
    built = {mode: make(corpus, **{"pairs.next_sentence": mode}) for mode in ("google", "sop", "none")}
    built["balanced"] = plain_build
    for mode, one in built.items():
        labels = [sample.next_sentence_label for sample in one.samples]
        is_same = [sample.document_keys[0] == sample.document_keys[1] for sample in one.samples]
        assert all((1 in sample.segment_ids) == (mode != "none") for sample in one.samples)
        assert any(labels) == (mode != "none")
        assert all(is_same) == (mode in ("sop", "none"))
        if mode == "balanced":
            assert [not label for label in labels] == is_same
    shares = {mode: one.counts["not_next"] / len(one.samples) for mode, one in built.items()}
    assert shares["google"] > 0.53
    assert all(abs(shares[mode] - 0.5) < tolerance for mode, tolerance in (("balanced", 0.02), ("sop", 0.06)))


@effect_of("pairs.dupe_factor")
def test_dupe_factor_passes_over_each_document_so_often(make, corpus):
    options = {"pairs.next_sentence": "none", "pairs.short_seq_prob": 0.3}
    one, three = (make(corpus, **options, **{"pairs.dupe_factor": number}) for number in (1, 3))
    counted = [Counter(token for sample in built.samples for token in sample.tokens) for built in (one, three)]
    text = [{token: count for token, count in counts.items() if token not in (CLS, SEP)} for counts in counted]
    assert text[1] == {token: 3 * count for token, count in text[0].items()}
    assert one.segments() <= three.segments()
    assert len(three.segments()) > 2 * len(one.segments())  # cut in other places


# Masks.


@effect_of("masks.num_mask_sets")
@pytest.mark.parametrize("num_mask_sets", [0, 1, 3])
def test_num_mask_sets_stores_so_many_sets(make, corpus, plain_build, num_mask_sets):
    built = make(corpus, **{"masks.num_mask_sets": num_mask_sets})
    assert built.segments() == plain_build.segments()
    for sample in built.samples:
        assert len(sample.mask_sets) == num_mask_sets
    distinct = sum(len({tuple(positions) for positions, _ in sample.mask_sets}) for sample in built.samples)
    assert distinct >= 0.9 * num_mask_sets * len(built.samples)


@effect_of("masks.masked_lm_prob", "masks.max_predictions_per_seq")
@pytest.mark.parametrize(("masked_lm_prob", "cap"), [(0.15, None), (0.4, None), (0.4, 6), (0.15, 1)])
def test_masked_lm_prob_and_its_cap_decide_how_much_is_predicted(make, corpus, plain_build, masked_lm_prob, cap):
    built = make(corpus, **{"masks.masked_lm_prob": masked_lm_prob, "masks.max_predictions_per_seq": cap})
    assert built.segments() == plain_build.segments()
    for sample in built.samples:
        wanted = max(1, round(len(sample.tokens) * masked_lm_prob))
        wanted = min(wanted, cap or wanted, len(sample.tokens) - 3)
        assert [len(positions) for positions, _ in sample.mask_sets] == [wanted]


def words_of(sample: Sample, continues: set[int]) -> list[set[int]]:
    """Positions of each word, by hand."""
    words: list[set[int]] = []
    for place, token in enumerate(sample.tokens):
        if token in (CLS, SEP):
            continue
        if token in continues and sample.tokens[place - 1] not in (CLS, SEP):
            words[-1].add(place)
        else:
            words.append({place})
    return words


@effect_of("masks.whole_word_mask")
@pytest.mark.parametrize("whole_word_mask", [False, True])
def test_whole_word_mask_masks_words_as_a_whole(tmp_path, make, whole_word_mask):
    texts = [
        ["the zebra yawns", "unknown giraffes sleep", "the river"] * 5 + [f"Town {number}"] for number in range(20)
    ]
    options = {"masks.whole_word_mask": whole_word_mask, "masks.masked_lm_prob": 0.3, "masks.num_mask_sets": 3}
    built = make(write_jsonl(tmp_path / "a.jsonl", texts), **options)
    continues = {number for text, number in built.vocab.items() if text.startswith("##")}
    num_split = 0
    for sample in built.samples:
        words = words_of(sample, continues)
        budget = max(1, round(len(sample.tokens) * 0.3))
        for positions, _ in sample.mask_sets:
            assert len(positions) <= budget
            num_split += sum(0 < len(word & set(positions)) < len(word) for word in words)
    assert (num_split == 0) == whole_word_mask
    assert num_split == 0 or num_split > 100


WORDLESS = {"zh": "北京是首都。北京有人。", "ja": "これは川です。町があります。", "th": "แม่น้ำสายใหญ่ เมืองเก่า"}


@effect_of("masks.whole_word_mask")
@pytest.mark.parametrize("language", WORDLESS)
def test_whole_word_mask_is_refused_for_languages_without_spaces(tmp_path, make, language):
    english = [f"The river {number}. A town." for number in range(38)]
    for num_documents, is_refused in ((1, False), (3, True)):
        texts = english + [f"{WORDLESS[language]}{number}" for number in range(num_documents)]
        path = write_jsonl(tmp_path / f"{num_documents}.jsonl", texts)
        if not is_refused:  # one of twenty at most
            assert make(path, **{"masks.whole_word_mask": True}).manifest.languages[language] == 1
            continue
        with pytest.raises(ConfigError, match=r"--whole-word-mask: 3 of 41 documents .* without spaces"):
            make(path, **{"masks.whole_word_mask": True})


@effect_of("masks.whole_word_mask")
def test_whole_word_mask_is_refused_for_a_tokenizer_without_word_marks(tmp_path, make, corpus):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        iter_texts(20), trainers.BpeTrainer(vocab_size=120, special_tokens=specials, show_progress=False)
    )
    path = tmp_path / "bpe.json"
    tokenizer.save(str(path))
    assert not Vocabulary.of(load_tokenizer(path)).marks_all_words
    assert make(corpus, **{"tokenizer.path": str(path)}).samples
    with pytest.raises(ConfigError, match="--whole-word-mask needs a tokenizer whose pieces tell"):
        make(corpus, **{"tokenizer.path": str(path), "masks.whole_word_mask": True})


# Shards.


@effect_of("shards.shard_size", "shards.num_shards")
def test_shard_size_and_num_shards_decide_the_number_of_shards(make, tiny_documents):
    default, small, three = (
        make(tiny_documents, **{"shards.num_shards": number, "shards.shard_size": size})
        for number, size in ((None, 1 << 26), (None, 10_000), (3, 10_000))
    )
    assert default.num_shards("train") == 1
    assert three.num_shards("train") == 3
    num_bytes = sum(shard.num_bytes for shard in default.manifest.shards)
    assert small.num_shards("train") > 3
    assert 10_000 / 2.5 < num_bytes / small.num_shards("train") < 10_000 * 2.5
    assert default.segments() != three.segments()  # a random B comes from the same shard
    assert default.counts["documents_kept"] == small.counts["documents_kept"] == three.counts["documents_kept"]


@effect_of("shards.block_size")
@pytest.mark.parametrize("block_size", [10, 50, 1024])
def test_block_size_cuts_samples_into_blocks(make, corpus, plain_build, block_size):
    built = make(corpus, **{"shards.block_size": block_size})
    sizes = bertdata.open_data_set(built.folder).index.num_samples.tolist()
    num_samples = len(plain_build.samples)
    assert len(sizes) == math.ceil(num_samples / block_size)
    assert sizes[:-1] == [block_size] * (len(sizes) - 1)
    assert built.samples == plain_build.samples


@effect_of("shards.eval_fraction")
@pytest.mark.parametrize(("eval_fraction", "num_held_out"), [(0.0, 0), (0.01, 100), (0.08, 120), (0.5, 150)])
def test_eval_fraction_holds_out_documents(make, tiny_documents, eval_fraction, num_held_out):
    built = make(tiny_documents, **{"shards.eval_fraction": eval_fraction})
    assert abs(built.counts["eval_documents"] - num_held_out) <= 2 * (num_held_out > 0)
    assert built.counts["train_documents"] + built.counts["eval_documents"] == 1500
    assert (built.num_shards("eval") > 0) == (num_held_out > 0)


@effect_of("shards.keep_duplicates")
def test_keep_duplicates_keeps_copies_with_draws_of_their_own(tmp_path, make):
    texts = list(iter_texts(30))
    path = write_jsonl(tmp_path / "a.jsonl", texts * 3)
    once, thrice = (make(path, **{"shards.keep_duplicates": keep}) for keep in (False, True))
    assert (once.counts["documents_kept"], once.counts["duplicates"]) == (30, 60)
    assert (thrice.counts["documents_kept"], thrice.counts["duplicates"]) == (90, 0)
    assert len({sample.document_keys[0] for sample in once.samples}) == 30
    assert len({sample.document_keys[0] for sample in thrice.samples}) == 90
    assert len(thrice.segments()) > 2 * len(once.segments())


@effect_of("shards.excluded_documents")
def test_excluded_documents_are_left_out_and_change_no_other_shard(make, corpus):
    whole = make(corpus, **{"shards.num_shards": 3})
    key = f"{whole.samples[0].document_keys[0]:016x}"
    less = make(corpus, **{"shards.num_shards": 3, "shards.excluded_documents": (key,)})
    left = {key for sample in less.samples for key in sample.document_keys}
    assert {key for sample in whole.samples for key in sample.document_keys} - left == {int(key, 16)}
    hashes = [[shard.sha256 for shard in built.manifest.shards] for built in (whole, less)]
    assert [one == other for one, other in zip(*hashes, strict=True)] == [False, True, True]


# The whole.


@effect_of("seed")
def test_seed_changes_draws_and_nothing_else(make, corpus):
    options = {"pairs.next_sentence": "none", "pairs.short_seq_prob": 0.0}  # nothing to draw but order and masks
    one, two, again = (make(corpus, **options, seed=seed) for seed in (1, 2, 1))
    assert one.segments() == two.segments()
    assert [sample.tokens for sample in one.samples] != [sample.tokens for sample in two.samples]
    masks = [{tuple(sample.tokens): sample.mask_sets for sample in built.samples} for built in (one, two)]
    assert sum(masks[0][tokens] == masks[1][tokens] for tokens in masks[0]) < 0.2 * len(masks[0])
    assert one.manifest.fingerprint == again.manifest.fingerprint


def test_every_option_has_a_test_of_its_effect():
    names = set()
    for field in dataclasses.fields(BuildOptions):
        if dataclasses.is_dataclass(field.default_factory):
            names |= {f"{field.name}.{inner.name}" for inner in dataclasses.fields(field.default_factory)}
        else:
            names.add(field.name)
    assert "read.format" in names
    assert names == TESTED
