"""A mask set is the same wherever it is drawn: in a build of any number of sets and block size, or by the loader."""

import dataclasses

import numpy as np
import pytest

import bertdata
from bertdata.config import PairOptions, ShardOptions
from tests.bertdata.small_builds import build, write_jsonl
from tests.corpus import iter_texts
from tests.trainer.oracle import masks_of, unpack_step
from trainer.data import TrainingData
from trainer.loader import Loader
from trainer.reader import BlockReader

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


def test_mask_sets_do_not_depend_on_their_number_or_on_block_size(folders):
    four, two, none = (list(bertdata.read_samples(folders[number])) for number in (NUM_SETS, 2, 0))
    assert len(four) > 100
    assert [sample.mask_sets[:2] for sample in four] == [sample.mask_sets for sample in two]
    assert [sample.tokens for sample in four] == [sample.tokens for sample in two] == [s.tokens for s in none]
    assert not any(sample.mask_sets for sample in none)


def test_loader_draws_the_mask_set_that_a_build_would_have_stored(folders):
    stored = list(bertdata.read_samples(folders[NUM_SETS]))
    reader = BlockReader([bertdata.open_data_set(folders[0])], split="train")
    numbers = np.random.default_rng(0).permutation(len(stored)).tolist()
    for mask_set in range(NUM_SETS):
        drawn = masks_of(reader, numbers, mask_set=mask_set)
        assert drawn == [stored[number].mask_sets[mask_set] for number in numbers]


def test_loader_draws_another_set_in_each_epoch(folders):
    stored = list(bertdata.read_samples(folders[NUM_SETS]))
    data = TrainingData(data_sets=(bertdata.open_data_set(folders[0]),))
    plan = data.make_plan(data.initial_state(seed=0, batch_size=8))
    loader = Loader(plan, data.open_split("train"), rank=0, world_size=1, cutting=data.make_cutting())
    steps_per_epoch = plan.num_samples // 8
    seen = set()
    for step, batches in enumerate(loader.steps(0, NUM_SETS * steps_per_epoch - 8)):
        refs = plan.step_samples(step)
        epochs = {
            int(number): epoch for number, epoch in zip(numbers_of(data, refs), refs.mask_set.tolist(), strict=True)
        }
        for number, sample in unpack_step(batches):
            shown = [sample["input"][position] for position in sample["positions"]]
            assert (sample["positions"], shown) == stored[number].mask_sets[epochs[number]]
            seen.add(epochs[number])
    assert seen == set(range(NUM_SETS))


def numbers_of(data, refs):
    return data.open_split("train").first_samples[refs.block] + refs.sample
