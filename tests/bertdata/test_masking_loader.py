"""A mask set is the same wherever it is drawn: in a build of any number of sets and block size, or by the loader."""

import dataclasses

import numpy as np
import pytest

import bertdata
from bertdata.config import PairOptions, ShardOptions
from tests.bertdata.small_builds import build, write_jsonl
from tests.corpus import iter_texts
from trainer.loader import BlockReader
from trainer.plan import Plan, SampleRefs

NUM_SETS = 4


@pytest.fixture(scope="module", params=["positions", "words", "google"])
def folders(request, tmp_path_factory, small_options):
    """The same pairs with sets 0 to 3, with sets 0 and 1, and with none, in blocks of other sizes."""
    folder = tmp_path_factory.mktemp("sets")
    path = write_jsonl(folder / "a.jsonl", iter_texts(60))
    mode = "google" if request.param == "google" else "balanced"
    found = {}
    for num_mask_sets, block_size in ((NUM_SETS, 100), (2, 16), (0, 37)):
        masks = dataclasses.replace(
            small_options.masks, num_mask_sets=num_mask_sets, whole_word_mask=request.param == "words"
        )
        options = dataclasses.replace(
            small_options,
            pairs=PairOptions(max_seq_length=64, next_sentence=mode, dupe_factor=1),
            masks=masks,
            shards=ShardOptions(num_shards=2, block_size=block_size, eval_fraction=0),
        )
        found[num_mask_sets] = build(folder / str(num_mask_sets), path, options=options)
    return found


def masks_of(samples) -> list[tuple[list[int], list[int]]]:
    """Positions and shown tokens of each of the trainer's samples."""
    offsets = samples.mask_offsets
    return [
        (samples.mask_positions[start:stop].tolist(), samples.mask_tokens[start:stop].tolist())
        for start, stop in zip(offsets[:-1], offsets[1:], strict=True)
    ]


def test_mask_sets_do_not_depend_on_their_number_or_on_block_size(folders):
    four, two, none = (list(bertdata.read_samples(folders[number])) for number in (NUM_SETS, 2, 0))
    assert len(four) > 100
    assert [sample.mask_sets[:2] for sample in four] == [sample.mask_sets for sample in two]
    assert [sample.tokens for sample in four] == [sample.tokens for sample in two] == [s.tokens for s in none]
    assert not any(sample.mask_sets for sample in none)


def test_loader_draws_the_mask_set_that_a_build_would_have_stored(folders):
    stored = list(bertdata.read_samples(folders[NUM_SETS]))
    reader = BlockReader(bertdata.open_data_set(folders[0]), split="train")
    block = np.repeat(np.arange(len(reader.block_sizes)), reader.block_sizes)
    sample = np.concatenate([np.arange(size) for size in reader.block_sizes])
    shuffled = np.random.default_rng(0).permutation(len(block))
    for mask_set in range(NUM_SETS):
        refs = SampleRefs(block=block, sample=sample, mask_set=np.full(len(block), mask_set))
        assert masks_of(reader.read(refs)) == [one.mask_sets[mask_set] for one in stored]
    mixed = SampleRefs(block=block[shuffled], sample=sample[shuffled], mask_set=shuffled % NUM_SETS)
    assert masks_of(reader.read(mixed)) == [stored[row].mask_sets[row % NUM_SETS] for row in shuffled.tolist()]


def test_loader_draws_another_set_in_each_epoch(folders):
    reader = BlockReader(bertdata.open_data_set(folders[0]), split="train")
    stored = {tuple(sample.tokens): sample.mask_sets for sample in bertdata.read_samples(folders[NUM_SETS])}
    plan = Plan(reader.block_sizes, num_mask_sets=0, seed=0, batch_size=8)
    steps_per_epoch = reader.num_samples // 8
    seen = set()
    for step in range(0, NUM_SETS * steps_per_epoch - 1, max(steps_per_epoch // 3, 1)):
        refs = plan.step_samples(step)
        samples = reader.read(refs)
        for row, masks in enumerate(masks_of(samples)):
            tokens = tuple(samples.tokens[samples.token_offsets[row] : samples.token_offsets[row + 1]].tolist())
            assert masks == stored[tokens][refs.mask_set[row]]
            seen.add(int(refs.mask_set[row]))
    assert seen == set(range(NUM_SETS))
