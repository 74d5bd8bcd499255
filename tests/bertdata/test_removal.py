import dataclasses
import itertools
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bertdata
from bertdata.build import build_serially
from bertdata.build_state import BuildState
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ShardOptions, TokenizerOptions
from bertdata.errors import ConfigError, OutputError
from bertdata.launch import open_build
from bertdata.removal import read_document_keys, withdraw_changed_shards
from bertdata.shard_reading import iter_blocks
from bertdata.spill import document_key
from bertdata.summary import iter_warnings
from bertdata.verify import iter_problems
from bertdata.wordpiece import load_tokenizer
from bertdata.work import Work
from tests.bertdata.small_builds import build, counts_of, write_jsonl
from tests.corpus import sentence

NUM_DOCUMENTS = 60
DOCUMENTS = [[sentence(number, place) for place in range(2 + number % 7)] for number in range(NUM_DOCUMENTS)]
KEYS = [document_key(sentences)[:8].hex() for sentences in DOCUMENTS]
ABSENT = "0123456789abcdef"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """60 documents, of which the first five have a copy each."""
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", DOCUMENTS + DOCUMENTS[:5])


@pytest.fixture(scope="module")
def options(tokenizer_file) -> BuildOptions:
    return BuildOptions(
        tokenizer=TokenizerOptions(path=str(tokenizer_file)),
        pairs=PairOptions(dupe_factor=1),
        masks=MaskOptions(num_mask_sets=1),
        shards=ShardOptions(num_shards=3, block_size=20, eval_fraction=0.1),
        max_seq_lengths=(32,),
    )


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a build by name, but for the work folder."""
    paths = [path for path in out.rglob("*") if path.is_file() and ".work" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def marks(out: Path) -> dict[str, tuple[int, int]]:
    """What changes of a shard when it is written again, with the same bytes or not."""
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.rglob("*.tar")}


def keys_in(path: Path) -> set[str]:
    return {f"{key:016x}" for block in iter_blocks(path) for key in block.document_keys.ravel().tolist()}


def shards_of(out: Path, keys) -> set[str]:
    """The shards that hold text of documents, as their samples say."""
    return {str(path.relative_to(out)) for path in out.rglob("*.tar") if keys_in(path) & {*keys}}


def grams(tokens, *, length=8) -> set[tuple[int, ...]]:
    return {tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)}


def shown(out: Path) -> set[tuple[int, ...]]:
    """All runs of eight tokens in the samples of a data set."""
    samples = [sample for split in ("train", "eval") for sample in bertdata.read_samples(out, split=split)]
    return set().union(*(grams(sample.tokens) for sample in samples))


def own_grams(out: Path, number: int) -> set[tuple[int, ...]]:
    """Runs of eight tokens that stand in one document only, by the tokenizer itself."""
    tokenizer = load_tokenizer(out / "tokenizer.json")
    texts = [grams(tokenizer.encode(" ".join(text), add_special_tokens=False).ids) for text in DOCUMENTS]
    return texts[number].difference(*(text for other, text in enumerate(texts) if other != number))


def held_in(out: Path, split: str, *, least_sentences: int = 5) -> int:
    """The number of a document of several sentences that lies in a split."""
    held = set().union(*(keys_in(path) for path in out.glob(f"{split}-*.tar")))
    return next(n for n in range(5, NUM_DOCUMENTS) if KEYS[n] in held and len(DOCUMENTS[n]) >= least_sentences)


# What is built.


@pytest.mark.parametrize(
    ("next_sentence", "split"),
    [("balanced", "train"), ("balanced", "eval"), ("google", "train"), ("sop", "train"), ("none", "train")],
)
def test_only_the_shard_of_an_excluded_document_is_built_again(tmp_path, corpus, options, next_sentence, split):
    options = dataclasses.replace(options, pairs=dataclasses.replace(options.pairs, next_sentence=next_sentence))
    out = build(tmp_path / "out", corpus, options=options, keep_work=True)
    number = held_in(out, split)
    assert own_grams(out, number) & shown(out)
    before, holding = marks(out), shards_of(out, [KEYS[number]])
    assert len(holding) == 1
    assert len(before) == 4

    excluding = options.excluding([KEYS[number]])
    build(out, corpus, options=excluding)
    assert {name for name, mark in marks(out).items() if mark != before[name]} == holding
    assert contents(out) == contents(build(tmp_path / "fresh", corpus, options=excluding))
    assert not own_grams(out, number) & shown(out)
    assert shards_of(out, [KEYS[number]]) == set()
    assert counts_of(out)["excluded_documents"] == 1
    assert not (out / ".work").exists()


def test_each_document_has_its_one_shard_built_again(tmp_path, corpus, options):
    options = dataclasses.replace(options, pairs=dataclasses.replace(options.pairs, next_sentence="none"))
    out = build(tmp_path / "out", corpus, options=options, keep_work=True)
    work = Work.load(out)
    records = {path: path.read_bytes() for path in (out / ".work" / "shards" / "32").glob("*.json")}
    holding = {key: path.name for path in out.glob("*.tar") for key in keys_in(path)}
    assert holding.keys() == {*KEYS}
    for key in KEYS:
        withdraw_changed_shards(work, excluded=[key])
        gone = [path for path in records if not path.exists()]
        assert [path.name for path in gone] == [f"{holding[key]}.json"]
        gone[0].write_bytes(records[gone[0]])


def test_all_lengths_lose_the_document(tmp_path, corpus, options):
    options = dataclasses.replace(options, max_seq_lengths=(16, 32))
    out = build(tmp_path / "out", corpus, options=options, keep_work=True)
    number = held_in(out / "16", "train")
    before, holding = marks(out), shards_of(out, [KEYS[number]])
    assert len(holding) == 2
    excluding = options.excluding([KEYS[number]])
    build(out, corpus, options=excluding)
    assert {name for name, mark in marks(out).items() if mark != before[name]} == holding
    assert contents(out) == contents(build(tmp_path / "fresh", corpus, options=excluding))
    for length in ("16", "32"):
        assert not own_grams(out / length, number) & shown(out / length)
        assert list(iter_problems(out / length, num_workers=1)) == []


@pytest.mark.parametrize("keep", [False, True])
def test_all_copies_are_excluded(tmp_path, corpus, options, keep):
    options = dataclasses.replace(options, shards=dataclasses.replace(options.shards, keep_duplicates=keep))
    number = next(number for number in range(5) if len(DOCUMENTS[number]) >= 3)
    out = build(tmp_path / "out", corpus, options=options, keep_work=True)
    before = counts_of(out)
    assert own_grams(out, number) & shown(out)
    build(out, corpus, options=options.excluding([KEYS[number]]))
    after = counts_of(out)
    assert after["excluded_documents"] == 2
    assert after["documents"] == before["documents"] == NUM_DOCUMENTS + 5
    assert before["duplicates"] - after["duplicates"] == (not keep)
    assert before["documents_kept"] - after["documents_kept"] == 1 + keep
    assert not own_grams(out, number) & shown(out)


def test_a_document_comes_back_when_it_is_excluded_no_longer(tmp_path, corpus, options):
    out = build(tmp_path / "out", corpus, options=options.excluding(KEYS[10:13]), keep_work=True)
    build(out, corpus, options=options.excluding(KEYS[12:14]), keep_work=True)
    assert contents(out) == contents(build(tmp_path / "some", corpus, options=options.excluding(KEYS[12:14])))
    build(out, corpus, options=options)
    assert contents(out) == contents(build(tmp_path / "none", corpus, options=options))


@pytest.mark.parametrize("excluded", ["a shard", "all"])
def test_shards_without_a_document_are_built(tmp_path, corpus, options, excluded):
    out = build(tmp_path / "out", corpus, options=options, keep_work=True)
    keys = KEYS if excluded == "all" else sorted(keys_in(next(out.glob("train-00001-*.tar"))))
    build(out, corpus, options=options.excluding(keys))
    assert contents(out) == contents(build(tmp_path / "fresh", corpus, options=options.excluding(keys)))
    shards = bertdata.open_data_set(out).manifest.shards
    assert sum(shard.num_samples == 0 for shard in shards) == (4 if excluded == "all" else 1)


def test_keys_without_a_document_are_named(tmp_path, corpus, options):
    absent = [f"{number:016x}" for number in range(7)]
    out = build(tmp_path / "out", corpus, options=options.excluding([*absent, KEYS[20]]))
    manifest = bertdata.open_data_set(out).manifest
    assert manifest.excluded_not_found == tuple(absent)
    (warning,) = (warning for warning in iter_warnings(manifest) if "--exclude-documents" in warning)
    assert f"7 of 8 document keys in --exclude-documents belong to no document: {', '.join(absent[:3])}, ..." in warning


# What is said, and what is left alone.


def test_log_and_progress_say_how_many_shards_are_built_again(tmp_path, corpus, options, caplog):
    out = build(tmp_path / "out", corpus, options=options, keep_work=True)
    excluding = options.excluding([KEYS[8]])
    with caplog.at_level("INFO"), open_build([str(corpus)], out=out, options=excluding) as work:
        assert not (out / "manifest.json").exists()
        assert BuildState(work).update().shards == 3
        build_serially(work)
        assert BuildState(work).update().shards == 4
    assert "other documents are excluded than before: builds 1 of 4 shards again" in caplog.text


def test_work_folder_is_kept_until_the_finished_command_is_given_without_it(tmp_path, corpus, options):
    plain = contents(build(tmp_path / "plain", corpus, options=options))
    out = build(tmp_path / "out", corpus, options=options, keep_work=True)
    assert contents(out) == plain
    for keep_work in (True, False):
        assert (out / ".work" / "build.json").exists()
        with open_build([str(corpus)], out=out, options=options, keep_work=keep_work) as work:
            assert work is None
    assert not (out / ".work").exists()
    with open_build([str(corpus)], out=out, options=options, keep_work=True) as work:
        assert work is None
    assert not (out / ".work").exists()
    assert contents(out) == plain


def test_without_its_work_folder_a_build_is_left_alone(tmp_path, corpus, options):
    out = build(tmp_path / "out", corpus, options=options)
    before = contents(out)
    with pytest.raises(OutputError, match=r"another build.*--overwrite.*excludes other documents.*--keep-work"):
        build(out, corpus, options=options.excluding([KEYS[8]]))
    with pytest.raises(OutputError) as refusal:
        build(out, corpus, options=dataclasses.replace(options, seed=1))
    assert "--keep-work" not in str(refusal.value)
    assert contents(out) == before


def test_kept_work_folder_of_another_build_is_refused(tmp_path, corpus, options):
    out = build(tmp_path / "out", corpus, options=options, keep_work=True)
    before = contents(out)
    other = dataclasses.replace(options, seed=1).excluding([KEYS[8]])
    with pytest.raises(OutputError, match="another build"):
        build(out, corpus, options=other)
    assert contents(out) == before
    assert contents(build(out, corpus, options=other, overwrite=True)) == contents(
        build(tmp_path / "fresh", corpus, options=other)
    )


# The list of keys.


@given(
    keys=st.lists(st.integers(0, 2**128 - 1)),
    style=st.lists(
        st.sampled_from(["{:032x}", "{:032X}  # a title", "\t{:032x}\r", "# {:032x}", "", "  #"]), min_size=1
    ),
)
def test_keys_are_read_from_lines_with_comments(tmp_path_factory, keys, style):
    path = tmp_path_factory.getbasetemp() / "keys.txt"
    forms = [style[number % len(style)] for number in range(len(keys))]
    halves = [number % 3 == 0 for number in range(len(keys))]
    words = [f"{key:032x}"[:16] if half else f"{key:032x}" for key, half in zip(keys, halves, strict=True)]
    lines = [
        form.replace("{:032x}", word).replace("{:032X}", word.upper()) for form, word in zip(forms, words, strict=True)
    ]
    path.write_text("\n".join(lines), newline="")
    listed = {word[:16] for form, word in zip(forms, words, strict=True) if "{" in form and "# {" not in form}
    assert read_document_keys(path) == tuple(sorted(listed))


@pytest.mark.parametrize("word", ["7a", "g" * 16, "0" * 17, "0" * 31, "0x" + "0" * 14, "é", "\0", f"{ABSENT} {ABSENT}"])
def test_a_line_that_is_no_key_is_named(tmp_path, word):
    path = tmp_path / "keys.txt"
    path.write_text(f"# to remove\n{ABSENT}\n\n{word} # wrong\n")
    with pytest.raises(
        ConfigError, match=r"keys\.txt, line 4: .* is no document key; give one of 16 or 32 hexadecimal"
    ):
        read_document_keys(path)


@pytest.mark.parametrize("name", ["absent.txt", "."])
def test_a_list_that_cannot_be_read_is_an_error(tmp_path, name):
    with pytest.raises(ConfigError, match="--exclude-documents .* cannot be read"):
        read_document_keys(tmp_path / name)


@pytest.mark.parametrize("key", [ABSENT.upper(), ABSENT[1:], "é" * 16])
def test_options_take_keys_of_sixteen_digits(key):
    with pytest.raises(ConfigError, match="is not 16 digits"):
        ShardOptions(excluded_documents=(key,))


def test_options_keep_keys_sorted_and_once():
    options = BuildOptions().excluding([KEYS[1], KEYS[0], KEYS[1]])
    assert options.shards.excluded_documents == tuple(sorted(KEYS[:2]))
    assert BuildOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


# Killed at any moment.


class PowerCutError(BaseException):
    pass


@contextmanager
def power_cut_at(step: int | None):
    """From the given file operation on none is done; yields a list as long as there were operations before."""
    done: list[str] = []
    inner = False

    def guarded(original, name):
        def operate(*args, **values):
            nonlocal inner
            if inner:
                return original(*args, **values)
            if step is not None and len(done) >= step:
                raise PowerCutError
            done.append(name)
            inner = True
            try:
                return original(*args, **values)
            finally:
                inner = False

        return operate

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (os, "unlink"), (os, "rmdir")):
            patch.setattr(owner, name, guarded(getattr(owner, name), name))
        yield done


class Machine:
    """An output folder on which builds run that may be cut off at any file operation."""

    def __init__(self, folder: Path, corpus: Path, options: BuildOptions) -> None:
        self._folder, self._corpus, self._options = folder, corpus, options
        self._fresh: dict[tuple[str, ...], dict[str, bytes]] = {}
        self.out = folder / "out"

    def run(self, keys, *, step: int | None = None, **launch) -> int:
        """Builds, maybe until power is cut; returns the number of file operations."""
        options = self._options.excluding(keys)
        with power_cut_at(step) as done:
            try:
                with open_build([str(self._corpus)], out=self.out, options=options, **launch) as work:
                    if work is not None:
                        build_serially(work)
            except PowerCutError:
                assert step is not None
        return len(done)

    def start_from(self, template: Path) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(template, self.out)

    @property
    def is_bare(self) -> bool:
        """Whether there is a finished build without a work folder, which only --overwrite changes."""
        return (self.out / "manifest.json").exists() and not (self.out / ".work" / "build.json").exists()

    def is_right(self, keys) -> bool:
        keys = tuple(keys)
        if keys not in self._fresh:
            fresh = self._folder / f"fresh{len(self._fresh)}"
            self._fresh[keys] = contents(build(fresh, self._corpus, options=self._options.excluding(keys)))
        return contents(self.out) == self._fresh[keys]


@pytest.fixture
def machine(tmp_path, corpus, options) -> Machine:
    return Machine(tmp_path, corpus, options)


EXCLUSIONS = [(), KEYS[8:9], KEYS[8:10] + KEYS[20:23], KEYS[30:31]]


def check_all_steps(machine: Machine, template: Path, *, keys, then, stride: int = 1) -> None:
    """Cuts a build off at file operations and goes on with another, which must end in the bytes of a fresh one."""
    machine.start_from(template)
    num_steps = machine.run(keys)
    assert machine.is_right(keys)
    assert num_steps > 15
    for step, other in zip(range(0, num_steps, stride), itertools.cycle(then), strict=False):
        machine.start_from(template)
        machine.run(keys, step=step)
        machine.run(other, overwrite=machine.is_bare)
        assert machine.is_right(other), f"stopped at file operation {step}, then {other}"


def finished(machine: Machine, folder: Path) -> Path:
    """A finished build with documents excluded, and its work folder, to start from."""
    machine.run(EXCLUSIONS[1], keep_work=True)
    return machine.out.rename(folder / "template")


def test_build_cut_off_at_file_operations_goes_on_rightly(tmp_path, machine):
    template = finished(machine, tmp_path)
    check_all_steps(machine, template, keys=EXCLUSIONS[3], then=[EXCLUSIONS[3], EXCLUSIONS[2]], stride=3)


@pytest.mark.slow
def test_build_cut_off_at_any_file_operation_goes_on_with_other_exclusions(tmp_path, machine):
    template = finished(machine, tmp_path)
    for keys, last in itertools.product(EXCLUSIONS, [3, 4]):
        check_all_steps(machine, template, keys=keys, then=EXCLUSIONS[:last])


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_overwriting_a_kept_build_cut_off_at_file_operations_goes_on_rightly(tmp_path, corpus, options, stride):
    template = finished(Machine(tmp_path / "first", corpus, dataclasses.replace(options, seed=1)), tmp_path)
    machine = Machine(tmp_path, corpus, options)
    machine.start_from(template)
    num_steps = machine.run((), overwrite=True)
    for step in range(0, num_steps, stride):
        machine.start_from(template)
        machine.run((), step=step, overwrite=True)
        machine.run((), overwrite=True)
        assert machine.is_right(()), f"stopped at file operation {step}"


runs = st.tuples(st.sampled_from(EXCLUSIONS), st.none() | st.integers(0, 90), st.booleans())


def check_sequence(machine: Machine, sequence, last) -> None:
    shutil.rmtree(machine.out, ignore_errors=True)
    for keys, step, keep_work in sequence:
        machine.run(keys, step=step, keep_work=keep_work, overwrite=machine.is_bare)
        if step is None:
            assert machine.is_right(keys)
    machine.run(last, overwrite=machine.is_bare)
    assert machine.is_right(last)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(runs, min_size=1, max_size=5), last=st.sampled_from(EXCLUSIONS))
def test_any_sequence_of_exclusions_ends_in_the_right_bytes(machine, sequence, last):
    check_sequence(machine, sequence, last)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(runs, min_size=1, max_size=7), last=st.sampled_from(EXCLUSIONS))
def test_any_sequence_of_exclusions_ends_in_the_right_bytes_often(machine, sequence, last):
    check_sequence(machine, sequence, last)
