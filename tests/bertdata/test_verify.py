"""Every kind of fault is found, by its own message; whatever a build writes is found right."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import bertdata
from bertdata.cli import main
from bertdata.config import MaskOptions, PairOptions
from bertdata.errors import ShardError
from bertdata.index import INDEX
from bertdata.statistics import SAMPLE_COUNTS, STATISTICS
from bertdata.verify import iter_problems, recount
from tests.bertdata.planting import change_block, copy, edit_manifest, put, read_blocks, take, write_blocks
from tests.bertdata.small_builds import build, samples_of, write_jsonl
from tests.corpus import WORDS


def problems_of(folder, **arguments):
    return [str(problem) for problem in iter_problems(folder, **arguments)]


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(small_data_set, tmp_path):
    return copy(small_data_set, tmp_path / "shards")


FIRST, SECOND, THIRD = (f"train-0000{number}-of-00003.tar" for number in range(3))
EVAL = "eval-00000-of-00001.tar"


@pytest.mark.parametrize("mode", ["balanced", "google", "sop", "none"])
@pytest.mark.parametrize(
    "masks",
    [
        MaskOptions(num_mask_sets=3),
        MaskOptions(num_mask_sets=0),
        MaskOptions(num_mask_sets=2, whole_word_mask=True),
        MaskOptions(num_mask_sets=1, masked_lm_prob=0.4, max_predictions_per_seq=7),
    ],
)
def test_nothing_is_wrong_with_what_a_build_writes(tmp_path, jsonl_file, small_options, mode, masks):
    pairs = PairOptions(max_seq_length=48, next_sentence=mode, dupe_factor=3)
    options = dataclasses.replace(small_options, pairs=pairs, masks=masks, max_seq_lengths=(48,))
    assert problems_of(build(tmp_path / "shards", jsonl_file, options=options)) == []


def test_planting_alone_is_no_fault(folder):
    assert problems_of(write_blocks(folder, read_blocks(folder))) == []


def test_processes_find_what_one_finds(folder):
    (folder / SECOND).unlink()
    (folder / EVAL).write_bytes(b"")
    found = problems_of(folder)
    assert f"{SECOND}: it cannot be read (No such file or directory); copy it again" in found
    assert problems_of(folder, num_workers=2) == found


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "it has 111"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "after its last block it must have 1,024 zero"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "after its last block it must have 1,024 zero"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2000]), "it is cut off at byte"),
        (lambda path: flip(path, 5000), "block 0: CRC-32 is"),
        (lambda path: flip(path, 5000), "SHA-256 is"),
        (lambda path: flip(path, -1), "after its last block it must have 1,024 zero bytes"),
    ],
)
def test_damaged_bytes_are_found(folder, damage, message, quick):
    damage(folder / FIRST)
    found = problems_of(folder, quick=quick)
    assert any(message.replace("111", "") in problem for problem in found), found
    assert all(problem.startswith(FIRST) for problem in found)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", [INDEX, STATISTICS, "tokenizer_config.json"])
def test_damaged_small_files_are_found(folder, name):
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1", b"2", 1) if name != INDEX else data.replace(b"ARROW1\0\0", b"ARROW1\0x", 1))
    assert any(problem.startswith(f"{name} has SHA-256") for problem in problems_of(folder, quick=True))
    path.unlink()
    assert any(f"{name}" in problem and "cannot be read" in problem for problem in problems_of(folder, quick=True))


def test_a_folder_in_place_of_a_file_is_found_with_the_reason(folder):
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").mkdir()
    assert problems_of(folder, quick=True) == [
        "tokenizer_config.json cannot be read (it is no plain file); copy it again"
    ]


def test_another_tokenizer_is_found(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    (problem,) = problems_of(folder)
    assert "tokenizer.json is not the tokenizer that the shards were built with" in problem


def test_a_shard_of_another_build_is_found(folder):
    shutil.copy(folder / FIRST, folder / "train-00000-of-00009.tar")
    assert problems_of(folder) == ["train-00000-of-00009.tar is not in the manifest; it is of another build, remove it"]


# Sample 3 of the first block is changed; K = 2 mask sets, so its predictions are those of rows 6 and 7.
def first_prediction(block):
    return int(block.num_predictions[:3].sum(dtype=int))


def with_special_in_text(block):
    return put(block, "tokens", int(block.token_offsets[3]) + 1, 3)


def with_swapped_positions(block):
    place = first_prediction(block)
    positions = block.mask_positions.copy()
    positions[[place, place + 1]] = positions[[place + 1, place]]
    return dataclasses.replace(block, mask_positions=positions)


def with_one_prediction_less(block):
    place = first_prediction(block)
    block = put(block, "num_predictions", (3, 0), int(block.num_predictions[3, 0]) - 1)
    return dataclasses.replace(
        block, mask_positions=np.delete(block.mask_positions, place), mask_tokens=np.delete(block.mask_tokens, place)
    )


def with_equal_sets(block):
    counts = block.num_predictions.astype(int)
    bounds = np.concatenate([[0], np.cumsum(counts.ravel())])
    positions, shown = block.mask_positions.copy(), block.mask_tokens.copy()
    for row in range(len(counts)):
        first, second = (slice(bounds[2 * row + number], bounds[2 * row + number + 1]) for number in (0, 1))
        positions[second], shown[second] = positions[first], shown[first]
    return dataclasses.replace(block, mask_positions=positions, mask_tokens=shown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda block: put(block, "segment_b", 3, 1), "segment B does not begin where A can have ended"),
        (lambda block: put(block, "segment_b", 3, 200), "segment B"),
        (lambda block: put(block, "token_offsets", 4, int(block.token_offsets[3])), "token_offsets do not ascend"),
        (lambda block: put(block, "tokens", int(block.token_offsets[3]), 9), "[CLS] or [SEP] is not where it belongs"),
        (
            lambda block: put(block, "tokens", int(block.token_offsets[3] + block.segment_b[3]) - 1, 9),
            "[CLS] or [SEP] is not where it belongs",
        ),
        (lambda block: put(block, "tokens", int(block.token_offsets[4]) - 1, 9), "[CLS] or [SEP] is not where it"),
        (with_special_in_text, "a special token stands in the text"),
        (lambda block: put(block, "tokens", int(block.token_offsets[3]) + 1, 60_000), "below the vocabulary's size"),
        (lambda block: put(block, "next_sentence_label", 3, 7), "next_sentence_label is neither 0 nor 1"),
        (
            lambda block: dataclasses.replace(
                block,
                next_sentence_label=np.where(np.arange(block.num_samples) == 3, 0, 1).astype("u1"),
                document_keys=np.stack([np.arange(block.num_samples), np.arange(1, block.num_samples + 1)], 1).astype(
                    "u8"
                ),
            ),
            "it is labelled IsNext, and its segments are of two documents",
        ),
        (
            lambda block: dataclasses.replace(
                block,
                next_sentence_label=np.where(np.arange(block.num_samples) == 3, 1, 0).astype("u1"),
                document_keys=np.stack([np.arange(block.num_samples)] * 2, 1).astype("u8"),
            ),
            "it is labelled NotNext, and its segments are of one document",
        ),
        (lambda block: put(block, "mask_positions", first_prediction(block), 0), "is that of a special token"),
        (
            lambda block: put(block, "mask_positions", first_prediction(block), int(block.segment_b[3]) - 1),
            "a masked position is that of a special token",
        ),
        (lambda block: put(block, "mask_positions", first_prediction(block), 250), "masked position"),
        (with_swapped_positions, "masked positions do not ascend"),
        (with_one_prediction_less, "the number of masked positions is not that of the rule"),
        (lambda block: put(block, "mask_tokens", first_prediction(block), 2), "a token that may not replace another"),
        (lambda block: put(block, "mask_tokens", first_prediction(block), 60_000), "that may not replace another"),
        (with_equal_sets, "two of its mask sets are the same"),
    ],
)
def test_a_wrong_sample_is_found_by_its_place(folder, change, message):
    found = problems_of(change_block(folder, change, shard=1, block=2))
    wanted = [problem for problem in found if message in problem]
    assert wanted, found
    assert wanted[0].startswith(f"{SECOND}, block 2")
    if "sample" in wanted[0].split(":")[0] and change is not with_equal_sets:
        assert wanted[0].startswith(f"{SECOND}, block 2, sample 3: ")


@pytest.mark.parametrize(
    ("field", "dtype", "message"),
    [
        ("tokens", "<u4", "tokens has dtype uint32, not uint16"),
        ("mask_tokens", "<u4", "mask_tokens has dtype uint32, not uint16"),
        ("segment_b", "<u2", "segment_b has dtype uint16, not uint8"),
        ("num_predictions", "<u2", "num_predictions has dtype uint16, not uint8"),
        ("mask_positions", "<u4", "mask_positions has dtype uint32, not uint8"),
        ("token_offsets", "<u8", "token_offsets has dtype uint64, not uint32"),
        ("next_sentence_label", "<u2", "next_sentence_label has dtype uint16, not uint8"),
        ("document_keys", "<u4", "document_keys has dtype uint32, not uint64"),
    ],
)
def test_a_wrong_dtype_is_found(folder, field, dtype, message):
    folder = change_block(
        folder, lambda block: dataclasses.replace(block, **{field: getattr(block, field).astype(dtype)}), block=1
    )
    assert any(message in problem and "block 1" in problem for problem in problems_of(folder))


def test_a_wrong_number_of_mask_sets_is_found(folder):
    def drop_set(block):
        counts = block.num_predictions.astype(int)
        kept = np.repeat(np.tile([True, False], len(counts)), counts.ravel())
        return dataclasses.replace(
            block,
            num_predictions=block.num_predictions[:, :1],
            mask_positions=block.mask_positions[kept],
            mask_tokens=block.mask_tokens[kept],
        )

    assert any("there are 1 mask sets, not 2" in problem for problem in problems_of(change_block(folder, drop_set)))


def test_arrays_that_do_not_fit_are_found(folder):
    folder = change_block(
        folder, lambda block: dataclasses.replace(block, next_sentence_label=block.next_sentence_label[1:])
    )
    assert any("do not fit each other" in problem for problem in problems_of(folder))


def test_other_tar_members_are_found(folder):
    """A shard under the number of another: its bytes are whole, its members have other names."""
    blocks = read_blocks(folder)
    values = json.loads((folder / "manifest.json").read_bytes())
    write_blocks(
        folder, {name: blocks[other] for name, other in zip(blocks, [FIRST, THIRD, SECOND, EVAL], strict=True)}
    )
    names = {FIRST: FIRST, SECOND: THIRD, THIRD: SECOND, EVAL: EVAL}
    entries = {shard["name"]: shard for shard in values["shards"]}
    write_blocks(folder, blocks)
    (folder / SECOND).rename(folder / "x")
    (folder / THIRD).rename(folder / SECOND)
    (folder / "x").rename(folder / THIRD)
    swapped = [entries[names[shard["name"]]] | {"name": shard["name"]} for shard in values["shards"]]
    data_set = bertdata.open_data_set(folder)
    order = np.array([0, 2, 1, 3])[data_set.index.shard]
    rows = np.argsort(order, kind="stable")
    index = dataclasses.replace(data_set.index.take(rows), shard=order[rows].astype(np.int32))
    from bertdata.index import write_index
    from bertdata.shards import BlockEntry

    fields = [field.name for field in dataclasses.fields(BlockEntry)]
    write_index(
        folder,
        [
            [
                BlockEntry(**{name: int(getattr(index, name)[row]) for name in fields})
                for row in np.flatnonzero(index.shard == n)
            ]
            for n in range(4)
        ],
    )
    edit_manifest(folder, lambda values: values.update(shards=swapped))
    found = problems_of(folder)
    assert any(f"{SECOND}, block 0: its tar members are not those of block train-00001-00000" in text for text in found)


def test_copies_of_a_shard_are_found(folder):
    blocks = read_blocks(folder)
    blocks[THIRD] = blocks[FIRST]
    found = problems_of(write_blocks(folder, blocks))
    assert f"{THIRD}: all of its samples are those of {FIRST}" in found
    shutil.copy(folder / FIRST, folder / THIRD)
    entries = {shard.name: shard for shard in bertdata.open_data_set(folder).manifest.shards}
    edit_manifest(
        folder,
        lambda values: [
            shard.update(sha256=entries[FIRST].sha256) for shard in values["shards"] if shard["name"] == THIRD
        ],
    )
    assert f"{THIRD}: it is a copy of {FIRST}: the same SHA-256" in problems_of(folder, quick=True)


def test_copies_of_a_block_are_found(folder):
    blocks = read_blocks(folder)
    blocks[SECOND][1] = blocks[FIRST][0]
    blocks[SECOND][3] = blocks[SECOND][2]
    found = problems_of(write_blocks(folder, blocks))
    assert f"{SECOND}, block 1: its samples are those of {FIRST}, block 0" in found
    assert f"{SECOND}, block 3: its samples are those of {SECOND}, block 2" in found


def test_copies_of_a_sample_are_found(folder):
    """Once more is enough: the build has counted how often passes over the documents gave the same sample."""
    said = bertdata.open_data_set(folder).manifest.counts.get("repeated_samples", 0)
    blocks = read_blocks(folder)
    blocks[SECOND][-1] = take(blocks[SECOND][-1], [*range(blocks[SECOND][-1].num_samples), 5, 5])
    found = problems_of(write_blocks(folder, blocks))
    message = f"{said + 2} samples are copies of others; the build made {said}, and this is one of them"
    assert any(message in text for text in found), found


def test_a_block_of_shuffled_copies_is_found(folder):
    blocks = read_blocks(folder)
    blocks[SECOND].append(take(blocks[SECOND][0], list(range(99, -1, -1))))
    assert any(
        "samples are copies of others; the build made" in text for text in problems_of(write_blocks(folder, blocks))
    )


def test_lost_documents_are_found(folder):
    """All samples of one document are gone, and all counts of samples fit."""
    blocks = read_blocks(folder)
    key = blocks[SECOND][0].document_keys[0, 0]
    for own in blocks.values():
        for number, block in enumerate(own):
            own[number] = take(block, np.flatnonzero((block.document_keys != key).all(axis=1)).tolist())
    found = problems_of(write_blocks(folder, blocks))
    kept = bertdata.open_data_set(folder).manifest.counts["train_documents"]
    assert f"the train shards have samples of {kept - 1:,} documents; {kept:,} were kept" in found


def test_a_wrong_split_is_found_in_a_good_whole(folder):
    """What is held out has only IsNext, which the share of all labels hardly shows."""
    blocks = read_blocks(folder)
    for number, block in enumerate(blocks[EVAL]):
        blocks[EVAL][number] = take(block, np.flatnonzero(block.next_sentence_label == 0).tolist())
    found = problems_of(write_blocks(folder, blocks))
    assert any(text.startswith(f"{EVAL}: the share of NotNext is 0.00%") for text in found), found


def test_shards_without_samples_are_no_copies(tmp_path, jsonl_file, small_options):
    """All documents of two shards are excluded."""
    whole = build(tmp_path / "whole", jsonl_file, options=small_options)
    keys = {
        f"{key:016x}"
        for name in (FIRST, THIRD)
        for block in read_blocks(whole)[name]
        for key in block.document_keys.flat
    }
    shards = dataclasses.replace(small_options.shards, excluded_documents=tuple(sorted(keys)))
    folder = build(tmp_path / "rest", jsonl_file, options=dataclasses.replace(small_options, shards=shards))
    assert problems_of(folder) == []


@pytest.mark.parametrize("mode", [pytest.param("sop", marks=pytest.mark.slow), "none"])
def test_samples_that_repeat_by_themselves_are_no_fault(tmp_path, small_options, mode):
    """Text that says the same again and again, in samples of few tokens, in blocks of one."""
    texts = [["the river .", "a town .", "the old mill ."] * 9 + [f"house {WORDS[number]} ."] for number in range(40)]
    options = dataclasses.replace(
        small_options,
        pairs=PairOptions(max_seq_length=10, next_sentence=mode, dupe_factor=3),
        masks=MaskOptions(num_mask_sets=5, masked_lm_prob=1.0),
        shards=dataclasses.replace(small_options.shards, block_size=1),
        max_seq_lengths=(10,),
    )
    folder = build(tmp_path / "shards", write_jsonl(tmp_path / "a.jsonl", texts), options=options)
    assert bertdata.open_data_set(folder).manifest.counts["repeated_samples"] > 100
    assert problems_of(folder) == []


def test_a_document_in_both_splits_is_found(folder):
    blocks = read_blocks(folder)
    key = blocks[EVAL][0].document_keys[0, 0]
    keys = blocks[SECOND][0].document_keys
    moved = np.where(keys == keys[0, 0], key, keys)
    blocks[SECOND][0] = dataclasses.replace(blocks[SECOND][0], document_keys=moved)
    found = problems_of(write_blocks(folder, blocks))
    assert f"{SECOND}: 1 of its documents are for evaluation too, such as {key:016x}" in found


def test_a_document_that_should_have_been_excluded_is_found(folder):
    key = f"{int(read_blocks(folder)[SECOND][0].document_keys[0, 0]):016x}"
    edit_manifest(folder, lambda values: values["options"]["shards"].update(excluded_documents=[key]))
    assert problems_of(folder) == [f"{SECOND}: 1 of its documents should have been excluded, such as {key}"]


def test_has_document_says_what_was_excluded(tmp_path, jsonl_file, small_options):
    key = "0123456789abcdef"
    shards = dataclasses.replace(small_options.shards, excluded_documents=(key,))
    folder = build(tmp_path / "shards", jsonl_file, options=dataclasses.replace(small_options, shards=shards))
    result = run("verify", folder, "--has-document", key)
    assert result.exit_code == 1
    assert f"document {key} is in no sample of {folder}: the build excludes it" in result.stdout


def test_a_sample_in_the_wrong_shard_is_found(folder):
    blocks = read_blocks(folder)
    blocks[FIRST][0] = take(blocks[THIRD][0], list(range(50)))
    found = problems_of(write_blocks(folder, blocks))
    assert any("a sample or a block lies in the wrong shard" in text for text in found)


def shown_as(folder, choose):
    """All masks of a data set with other tokens, or at other positions."""
    blocks = read_blocks(folder)
    return write_blocks(folder, {name: [choose(block) for block in own] for name, own in blocks.items()})


def originals(block):
    samples = np.repeat(np.arange(block.num_samples), block.num_predictions.sum(axis=1, dtype=int))
    return block.tokens[block.token_offsets[samples] + block.mask_positions]


@pytest.mark.parametrize(
    ("show", "messages"),
    [
        (lambda block: np.full_like(block.mask_tokens, 4), ["100.00% of the masked positions show [MASK]"]),
        (lambda block: np.where(block.mask_tokens == 4, 4, originals(block)), ["show the token itself", "0.00% of"]),
        (
            lambda block: np.where(np.arange(len(block.mask_tokens)) % 25 == 0, originals(block), block.mask_tokens),
            ["show"],
        ),
    ],
)
def test_wrong_shares_of_what_masks_show_are_found(folder, show, messages):
    folder = shown_as(folder, lambda block: dataclasses.replace(block, mask_tokens=show(block).astype("u2")))
    found = problems_of(folder)
    for message in messages:
        assert any(message in problem for problem in found), found


def test_masks_that_are_not_uniform_are_found(folder):
    """None lies in the last fifth of its sample."""

    generator = np.random.default_rng(0)

    def first_positions(block):
        positions = []
        for row in range(block.num_samples):
            free = [place for place in range(1, 64) if place != block.segment_b[row] - 1]
            num_free = int(block.lengths[row]) - 3
            for count in block.num_predictions[row]:
                among = min(num_free, max(int(0.8 * num_free), count))
                positions += sorted(generator.choice(free[:among], count, replace=False))
        return dataclasses.replace(
            block, mask_positions=np.array(positions, dtype="u1"), mask_tokens=np.full_like(block.mask_tokens, 4)
        )

    found = problems_of(shown_as(folder, first_positions))
    assert any("masked positions are not uniform" in problem for problem in found), found


def test_a_label_share_that_chance_does_not_explain_is_found(folder):
    """Every second NotNext is gone."""
    blocks = read_blocks(folder)
    for own in blocks.values():
        for number, block in enumerate(own):
            kept = [row for row in range(block.num_samples) if not block.next_sentence_label[row] or row % 2]
            own[number] = take(block, kept)
    found = problems_of(write_blocks(folder, blocks))
    assert any("the share of NotNext is 3" in problem and "should be 50 %" in problem for problem in found), found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("samples", "the count of samples is"),
        ("eval_samples", "the count of eval_samples is"),
        ("not_next", "the count of not_next is"),
        ("documents", "documents, but"),
        ("duplicates", "documents, but"),
        ("train_documents", "documents_kept, but"),
    ],
)
def test_wrong_counts_are_found(folder, name, message):
    edit_manifest(folder, lambda values: values["counts"].update({name: values["counts"].get(name, 0) + 1}))
    assert any(message in problem for problem in problems_of(folder))


@pytest.mark.parametrize("name", SAMPLE_COUNTS)
def test_wrong_statistics_are_found(folder, name):
    values = json.loads((folder / STATISTICS).read_bytes())
    values[name]["counts"][0] += 1
    (folder / STATISTICS).write_text(json.dumps(values))
    found = problems_of(folder)
    assert found[0].startswith("statistics.json has SHA-256")
    assert f"statistics.json: {name} are not those of the shards" in found


def test_an_index_of_other_blocks_is_found(folder):
    edit_manifest(folder, lambda values: values["shards"][0].update(num_tokens=1))
    (problem,) = problems_of(folder, quick=True)
    assert "do not belong together" in problem
    assert f"{FIRST} has num_tokens" in problem
    assert "by the index, 1 by the manifest" in problem


def test_recount_gives_what_the_build_counted(folder):
    data_set = bertdata.open_data_set(folder)
    assert recount(data_set).differing(data_set.load_statistics()) == []
    flip(folder / FIRST, 3000)
    with pytest.raises(ShardError, match="block 0: CRC-32"):
        recount(data_set)


def test_verify_command_exits_by_what_it_finds(folder):
    result = run("verify", folder, "--num-workers", 1)
    assert result.exit_code == 0
    assert "nothing is wrong" in result.stdout
    flip(folder / FIRST, 3000)
    result = run("verify", folder, "--num-workers", 1)
    assert result.exit_code == 1
    assert f"{FIRST}, block 0: CRC-32 is" in result.stdout
    assert "2 problems in" in result.stderr
    result = run("verify", folder, "--json", "--quick", "--num-workers", 1)
    assert result.exit_code == 1
    problems = json.loads(result.stdout)["problems"]
    assert (problems[0]["shard"], problems[0]["block"], problems[0]["sample"]) == (FIRST, 0, None)


def test_verify_of_no_data_set_is_a_problem(tmp_path):
    result = run("verify", tmp_path, "--json")
    assert result.exit_code == 1
    assert "not a finished data set" in json.loads(result.stdout)["problems"][0]["message"]


def test_has_document_finds_it_by_key_and_by_text(tmp_path, jsonl_file, small_data_set):
    texts = [json.loads(line)["text"] for line in jsonl_file.read_text().splitlines()]
    counts = {}
    for sample in samples_of(small_data_set):
        for key in set(sample.document_keys):
            counts[key] = counts.get(key, 0) + 1
    found = set()
    for number in (0, 7, 150):
        path = tmp_path / "text.txt"
        path.write_text(texts[number])
        result = run("verify", small_data_set, "--has-document", path)
        assert result.exit_code == 0
        key = result.stdout.split()[1].rstrip(":")
        found.add(key)
        assert f"{counts[int(key, 16)]:,} samples" in result.stdout
        assert run("verify", small_data_set, "--has-document", key).stdout == result.stdout
        assert run("verify", small_data_set, "--has-document", key + "0" * 16).stdout == result.stdout
    assert len(found) == 3
    path.write_text("Nothing of it was ever in the input.")
    result = run("verify", small_data_set, "--has-document", path)
    assert result.exit_code == 1
    assert "no sample of" in result.stdout
    result = run("verify", small_data_set, "--has-document", tmp_path / "absent")
    assert result.exit_code == 1
    assert "is no key of 16 or 32" in result.stderr


def test_every_byte_of_a_shard_counts(tmp_path, jsonl_file, small_options):
    """Each byte flipped, and the file cut at each byte, is found; without the SHA-256 too."""
    from bertdata.shard_checks import CheckTask, check_shard

    options = dataclasses.replace(
        small_options,
        pairs=PairOptions(max_seq_length=32),
        max_seq_lengths=(32,),
        shards=dataclasses.replace(small_options.shards, num_shards=130),
    )
    folder = build(tmp_path / "shards", jsonl_file, options=options)
    data_set = bertdata.open_data_set(folder)
    number, entry = min(enumerate(data_set.manifest.shards), key=lambda item: item[1].num_bytes)
    blocks = data_set.index.take(data_set.index.shard == number)
    task = CheckTask(folder=folder, entry=entry, blocks=blocks)
    assert check_shard(task, rules=None).problems == []
    path = folder / entry.name
    whole = path.read_bytes()
    with path.open("r+b") as file:
        for place in range(len(whole)):
            file.seek(place)
            file.write(bytes([whole[place] ^ (1 << place % 8)]))
            file.flush()
            messages = [problem.message for problem in check_shard(task, rules=None).problems]
            assert len(messages) == 2, (place, messages)  # by SHA-256, and by what stands there
            file.seek(place)
            file.write(whole[place : place + 1])
        for size in reversed(range(len(whole))):
            file.truncate(size)
            messages = [problem.message for problem in check_shard(task, rules=None).problems]
            assert f"it has {size:,} bytes, not {len(whole):,}; copy it again" in messages
            assert len(messages) == 3, (size, messages)
