import dataclasses
import json
from collections import defaultdict

import click
import pytest
from click.testing import CliRunner

import bertdata
from bertdata.cli import main
from bertdata.config import PairOptions, ReadOptions
from bertdata.errors import ShardError
from bertdata.locating import find_document
from bertdata.painting import Painter
from bertdata.walk import walk_document
from bertdata.walk_text import describe_walk
from tests.bertdata.pair_corpora import MODES
from tests.bertdata.small_builds import build, samples_of, write_jsonl
from tests.corpus import article, iter_texts

# One of them with sentences that are cut, and with some that are left out.
TEXTS = [
    *iter_texts(11),
    "The town has a market. 1984! "
    + "An old miller, a baker, and a fisher mend boats, " * 9
    + "in summer. !!! A river.",
]
LONG = len(TEXTS)


@pytest.fixture(scope="module", params=MODES)
def built(request, tmp_path_factory, small_options):
    """(data set, its input) in each mode."""
    folder = tmp_path_factory.mktemp(request.param)
    pairs = PairOptions(max_seq_length=48, next_sentence=request.param, short_seq_prob=0.2, dupe_factor=2)
    shards = dataclasses.replace(small_options.shards, num_shards=1, block_size=20, eval_fraction=0.2)
    options = dataclasses.replace(small_options, pairs=pairs, shards=shards, max_seq_lengths=(48,))
    path = write_jsonl(folder / "corpus.jsonl", TEXTS)
    return bertdata.open_data_set(build(folder / "out", path, options=options)), path


@pytest.fixture(scope="module")
def walks(built):
    data_set, path = built
    return [walk_document(data_set, inputs=[str(path)], name=f"line {line}") for line in range(1, len(TEXTS) + 1)]


def test_every_sample_of_a_build_is_explained_by_the_document_of_its_a(built, walks):
    """Each is made anew: [CLS], sentences less what is cut off, [SEP]; no sample is left, and none comes twice."""
    data_set, _ = built
    roles = data_set.manifest.tokenizer.roles
    made = []
    for walk in walks:
        pieces = [piece for sentence in walk.sentences for piece in split(sentence.tokens, sentence.pieces)]
        assert len(pieces) == len(walk.sentence_names)
        for sample in walk.samples:
            content = sample.found.content
            tokens = [roles["cls"], *rebuilt(sample.alignment.a, pieces), roles["sep"]]
            if sample.alignment.b is not None:
                tokens += [*rebuilt(sample.alignment.b, pieces), roles["sep"]]
                assert tokens == content.tokens
            elif 1 in content.segment_ids:
                assert content.document_keys[1] != content.document_keys[0]
                assert tokens == content.tokens[: len(tokens)]
            else:
                assert tokens == content.tokens
            made.append(content)
    key = repr
    assert sorted(made, key=key) == sorted(samples_of(data_set.folder), key=key)


def split(tokens, sizes):
    return [tokens[sum(sizes[:place]) : sum(sizes[: place + 1])] for place in range(len(sizes))]


def rebuilt(segment, pieces):
    tokens = [token for piece in pieces[segment.first : segment.last + 1] for token in piece]
    return tokens[segment.front_cut : len(tokens) - segment.back_cut]


def test_places_are_those_of_all_samples_with_the_key(built, walks):
    data_set, _ = built
    as_a, as_b = defaultdict(int), defaultdict(int)
    for sample in samples_of(data_set.folder):
        as_a[sample.document_keys[0]] += 1
        as_b[sample.document_keys[1]] += sample.document_keys[1] != sample.document_keys[0]
    for walk in walks:
        key = int(walk.key[:16], 16)
        roles = [place.role for place in walk.places]
        assert (roles.count("A"), roles.count("B")) == (as_a[key], as_b[key])
        assert len(walk.samples) == as_a[key] > 0
        assert list(walk.places) == find_document(data_set, key)


def test_sentences_that_are_cut_or_left_out_are_marked(built, walks):
    data_set, _ = built
    mode = data_set.manifest.options["pairs"]["next_sentence"]
    walk = walks[LONG - 1]
    dropped = {sentence.text: sentence.dropped for sentence in walk.sentences if sentence.dropped}
    assert "no letter in it" in dropped.values()
    assert all(not any(map(str.isalpha, text)) for text in dropped)
    longest = max(walk.sentences, key=lambda sentence: len(sentence.tokens))
    assert len(longest.tokens) > 60
    if mode in ("balanced", "sop"):
        assert len(longest.pieces) > 2
        assert max(longest.pieces) <= 24
        assert f"{longest.number}.3" in walk.sentence_names
    else:
        assert longest.pieces == (len(longest.tokens),)
    assert [sentence.number for sentence in walk.sentences] == list(range(1, len(walk.sentences) + 1))


def test_samples_come_in_the_order_of_the_document(walks):
    for walk in walks:
        starts = [sample.alignment.a.start for sample in walk.samples]
        assert starts == sorted(starts)


def inspect(folder, name, path, *arguments, **options):
    command = ["inspect", str(folder), "--document", name, "--input", str(path), *arguments]
    return CliRunner().invoke(main, command, **options)


def test_text_tells_all_stages(built, walks):
    data_set, path = built
    result = inspect(data_set.folder, f"line {LONG}", path, "--full", "--num-samples", "99")
    assert result.exit_code == 0, result.output
    walk = walks[LONG - 1]
    text = result.stdout
    assert text.startswith(f"Found\n'line {LONG}' in {path}\n")
    assert walk.record.raw in text
    assert walk.record.document.text in text
    assert all(f" {sentence.text}" in text for sentence in walk.sentences)
    assert walk.key in text
    assert text.count("[CLS]") == len(walk.samples)
    assert text.count("  mask set   1 of 2; ") == len(walk.samples)
    assert "more" not in text
    shortened = inspect(data_set.folder, f"line {LONG}", path, "--num-samples", "1")
    assert len(shortened.stdout) < len(text)
    assert f"{len(walk.samples) - 1} more samples; --num-samples shows more" in shortened.stdout


def test_long_texts_are_shortened_unless_full(built, tmp_path):
    data_set, _ = built
    path = write_jsonl(tmp_path / "corpus.jsonl", ["The town has a market. " * 100])
    walk = walk_document(data_set, inputs=[str(path)], name="line 1")
    painter = Painter.of(data_set)
    short, full = ("\n".join(describe_walk(walk, painter=painter, num_samples=3, full=full)) for full in (False, True))
    assert "... 1,112 more characters; --full shows all" in short
    assert "... 80 more sentences; --full shows all" in short
    # Of the record, of the text and of the sentences.
    assert (short.count("market"), full.count("market")) == (51 + 52 + 20, 300)


def test_json_is_the_walk(built, walks):
    data_set, path = built
    walk = walks[3]
    values = json.loads(inspect(data_set.folder, "line 4", path, "--json").stdout)
    assert (values["file"], values["where"], values["raw"]) == (str(path), "line 4", walk.record.raw)
    assert values["text"] == walk.record.document.text
    assert [sentence["tokens"] for sentence in values["sentences"]] == [list(it.tokens) for it in walk.sentences]
    assert values["key"] == walk.key
    assert values["why_not"] is None
    assert len(values["places"]) == len(walk.places)
    assert [sample["tokens"] for sample in values["samples"]] == [it.found.content.tokens for it in walk.samples]
    for sample, wanted in zip(values["samples"], walk.samples, strict=True):
        assert sample["segment_a"]["start"] == wanted.alignment.a.start
        assert (sample["segment_b"] is None) == (wanted.alignment.b is None)
        assert len(sample["mask_sets"]) == 2


def test_colours_add_nothing_but_colours(built):
    data_set, path = built
    plain = inspect(data_set.folder, "line 2", path).stdout
    coloured = inspect(data_set.folder, "line 2", path, color=True).stdout
    assert coloured != plain
    assert click.unstyle(coloured) == plain


@pytest.fixture(scope="module")
def wiki(tmp_path_factory, small_options):
    """(data set, dump): articles, copies of one, and pages that leave no samples, each for another reason."""
    folder = tmp_path_factory.mktemp("wiki")
    pages = {
        **{f"Title {number}": text for number, text in enumerate(TEXTS)},
        "Copy": TEXTS[2],
        "Single": "Only one sentence here.",
        "Wordless": "12345. 67!",
        "Short": "Ab. Cd.",
        "Empty": "{{stub}}",
    }
    path = folder / "wiki.xml"
    text = "".join(article(title, text) for title, text in pages.items()) + article("Moved", "#REDIRECT [[Title 1]]")
    path.write_text(f'<mediawiki version="0.11" xml:lang="en">\n{text}</mediawiki>\n')
    read = ReadOptions(min_document_chars=9)
    shards = dataclasses.replace(small_options.shards, num_shards=1)
    options = dataclasses.replace(small_options, read=read, shards=shards)
    return bertdata.open_data_set(build(folder / "out", path, options=options)), path


@pytest.mark.parametrize(
    ("title", "why_not"),
    [
        ("Single", "it has one sentence, and --next-sentence balanced needs two to make a pair"),
        ("Wordless", "no word is left of it"),
        ("Short", "its text has 7 characters; --min-document-chars is 9"),
        ("Empty", "no text is left of it"),
        ("Moved", "it is a redirect to 'Title 1'"),
    ],
)
def test_documents_without_samples_say_why(wiki, title, why_not):
    data_set, path = wiki
    result = inspect(data_set.folder, title, path)
    assert result.exit_code == 0, result.output
    assert f"In no sample\n  {why_not}" in result.stdout
    assert "[CLS]" not in result.stdout
    assert json.loads(inspect(data_set.folder, title, path, "--json").stdout)["why_not"].startswith(why_not)


def test_copies_share_their_samples(wiki):
    data_set, path = wiki
    walks = [walk_document(data_set, inputs=[str(path)], name=name) for name in ("Title 2", "Copy")]
    assert walks[0].samples == walks[1].samples != ()
    assert walks[0].record.where != walks[1].record.where
    for walk in walks:
        assert "the build dropped 1 documents as copies" in walk.notes[0]


def test_page_that_is_not_there_is_an_error_with_the_nearest(wiki):
    data_set, path = wiki
    result = inspect(data_set.folder, "Titel 5", path)
    assert result.exit_code == 1
    assert "the nearest names are 'Title 5'" in result.stderr
    assert result.stdout == ""


def test_input_that_is_not_the_builds_is_told(wiki, tmp_path):
    data_set, path = wiki
    changed = tmp_path / "wiki.xml"
    page = article("Title 0", "Another text. It is not that of the build.")
    changed.write_text(f"<mediawiki>\n{page}</mediawiki>\n")
    walk = walk_document(data_set, inputs=[str(changed)], name="Title 0")
    assert walk.why_not == (
        f"wiki.xml has {changed.stat().st_size:,} bytes now; the one that the build read had {path.stat().st_size:,}"
    )
    other = changed.rename(tmp_path / "other.xml")
    walk = walk_document(data_set, inputs=[str(other)], name="Title 0")
    assert walk.why_not == "the build read no file named other.xml, but wiki.xml"


def test_other_versions_are_told(wiki, monkeypatch):
    """Another splitter of sentences gives other keys."""
    data_set, path = wiki
    for module in ("walk", "sentences"):
        monkeypatch.setattr(f"bertdata.{module}.split_sentences", lambda text, **_: ["A town.", text])
    monkeypatch.setattr("bertdata.walk.library_versions", lambda: data_set.manifest.versions | {"sentencex": "9"})
    walk = walk_document(data_set, inputs=[str(path)], name="Title 0")
    assert walk.why_not == (
        "its sentences may have been others at the build, which ran with sentencex "
        f"{data_set.manifest.versions['sentencex']}"
    )
    monkeypatch.setattr("bertdata.walk.library_versions", lambda: data_set.manifest.versions)
    walk = walk_document(data_set, inputs=[str(path)], name="Title 0")
    assert "has changed since the build" in walk.why_not


def test_tokens_that_differ_are_an_error(wiki, monkeypatch):
    """The key is of the text; another tokenizer's ids cannot be aligned."""
    data_set, path = wiki
    encode = bertdata.encoder.Encoder.encode
    monkeypatch.setattr(
        bertdata.encoder.Encoder, "encode", lambda self, texts: (encode(self, texts)[0] + 1, encode(self, texts)[1])
    )
    with pytest.raises(ShardError, match="tokenized otherwise"):
        walk_document(data_set, inputs=[str(path)], name="Title 0")


def test_further_copies_that_are_kept_are_told(wiki, tmp_path, small_options):
    path = write_jsonl(tmp_path / "corpus.jsonl", [*TEXTS, TEXTS[0]])
    shards = dataclasses.replace(small_options.shards, num_shards=1, keep_duplicates=True)
    out = build(tmp_path / "out", path, options=dataclasses.replace(small_options, shards=shards))
    walk = walk_document(bertdata.open_data_set(out), inputs=[str(path)], name="line 13")
    assert "further ones have others" in walk.notes[0]
    assert walk.samples
