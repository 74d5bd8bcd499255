import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bertdata.data_set import DataSet, open_data_set
from bertdata.errors import ShardError
from tests.trainer.oracle import Sample, sample_ids, slow_samples, unpack_step
from trainer.assembler import Assembler
from trainer.batch import StepBatches
from trainer.data import TrainingData
from trainer.loader import Loader
from trainer.plan import Plan, SampleRefs

NewDataSet = Callable[..., DataSet]


class Setup:
    """A plan over data sets, and loaders that follow it."""

    def __init__(
        self, *data_sets: DataSet, weights: tuple[float, ...] | None = None, batch_size: int = 16, **options: int
    ) -> None:
        self.data = TrainingData(data_sets=data_sets, weights=weights)
        self.plan: Plan = self.data.make_plan(
            self.data.initial_state(seed=3, batch_size=batch_size, **({"window_blocks": 2} | options))
        )
        self.reader = self.data.open_split("train")

    def loader(
        self, *, rank: int = 0, world_size: int = 1, micro_batch_size: int | None = None, num_workers: int = 0
    ) -> Loader:
        return Loader(
            self.plan,
            self.reader,
            rank=rank,
            world_size=world_size,
            cutting=self.data.make_cutting(micro_batch_size=micro_batch_size),
            num_workers=num_workers,
        )

    def ids(self, refs: SampleRefs) -> list[int]:
        pairs = zip(refs.block.tolist(), refs.sample.tolist(), strict=True)
        return sample_ids(self.reader.block_sizes.tolist(), list(pairs))

    def expected(self, refs: SampleRefs, oracle: list[list[Sample]]) -> list[tuple[int, Sample]]:
        """Returns what `unpack_step` must give."""
        wanted = [(number, oracle[number][k]) for number, k in zip(self.ids(refs), refs.mask_set.tolist(), strict=True)]
        return sorted(wanted, key=lambda pair: (pair[0], pair[1]["positions"]))


def same(one: StepBatches, other: StepBatches) -> bool:
    pairs = list(zip(one.micro_batches, other.micro_batches, strict=True))
    return all(
        torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
        for batch, again in pairs
        for first, second in zip(batch, again, strict=True)
    )


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_loader_gives_the_samples_of_the_plan(data_set: DataSet, world_size: int) -> None:
    setup, oracle = Setup(data_set), slow_samples(data_set)
    for rank in range(world_size):
        for step, batches in enumerate(setup.loader(rank=rank, world_size=world_size, micro_batch_size=3).steps(0, 25)):
            refs = setup.plan.step_samples(step, rank=rank, world_size=world_size)
            assert unpack_step(batches) == setup.expected(refs, oracle)


def test_loader_gives_the_samples_of_several_data_sets(new_data_set: NewDataSet, data_set: DataSet) -> None:
    other = new_data_set(train_blocks=((50, 3), (17,)), num_mask_sets=2, max_seq_length=40, seed=9)
    setup = Setup(data_set, other, weights=(1, 2))
    oracle = slow_samples(data_set) + slow_samples(other)
    for step, batches in enumerate(setup.loader().steps(0, 25)):
        refs = setup.plan.step_samples(step)
        assert unpack_step(batches) == setup.expected(refs, oracle)


@pytest.mark.parametrize("world_size", [1, 8, 16])
def test_ranks_have_equal_steps_with_few_shards_of_one_sample(new_data_set: NewDataSet, world_size: int) -> None:
    setup = Setup(new_data_set(train_blocks=((1,),) * 5 + ((12,),)), window_blocks=8)
    shown: list[int] = []
    for rank in range(world_size):
        steps = list(setup.loader(rank=rank, world_size=world_size).steps(0, 17))
        assert [batches.num_samples for batches in steps] == [16 // world_size] * 17
        shown += [number for batches in steps for number, _ in unpack_step(batches)]
    counts = np.bincount(shown, minlength=17)
    assert counts.min() >= 8  # half of the epochs, where a sample was always in the one lane that has two samples


def test_loader_sorts_by_length_before_it_cuts(data_set: DataSet) -> None:
    (batches,) = Setup(data_set).loader(micro_batch_size=5).steps(0, 1)
    assert [batch.num_samples for batch in batches.micro_batches] == [5, 5, 5, 1]
    lengths = torch.cat([batch.cu_seqlens.diff() for batch in batches.micro_batches])
    assert torch.equal(lengths, lengths.sort(descending=True).values)


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_loader_workers_change_nothing(data_set: DataSet, num_workers: int) -> None:
    setup = Setup(data_set)
    alone = list(setup.loader(micro_batch_size=7).steps(5, 40))
    ahead = list(setup.loader(micro_batch_size=7, num_workers=num_workers).steps(5, 40))
    assert len(alone) == len(ahead) == 35
    assert all(map(same, alone, ahead))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_begins_anywhere(data_set: DataSet, num_workers: int) -> None:
    setup = Setup(data_set)
    walked = list(setup.loader(micro_batch_size=4).steps(0, 45))
    for start in range(0, 45, 4):
        again = list(setup.loader(micro_batch_size=4, num_workers=num_workers).steps(start, 45))
        assert all(map(same, walked[start:], again))
        assert len(again) == 45 - start


@pytest.mark.parametrize("every", [2, 3, 7])
def test_loader_leaves_out_steps(data_set: DataSet, every: int) -> None:
    setup = Setup(data_set)
    walked = list(setup.loader().steps(1, 60))
    chosen = list(setup.loader().steps(1, 60, every=every))
    assert len(chosen) == len(walked[::every])
    assert all(map(same, walked[::every], chosen))


def test_loader_stops_its_threads_when_it_is_left(data_set: DataSet) -> None:
    steps = Setup(data_set).loader(num_workers=3).steps(0)
    next(steps)
    assert any(thread.name.startswith("loader") for thread in threading.enumerate())
    steps.close()
    assert not any(thread.name.startswith("loader") for thread in threading.enumerate())


def test_loader_draws_masks_where_none_are_stored(new_data_set: NewDataSet) -> None:
    bare, stored = new_data_set(num_mask_sets=0), new_data_set(num_mask_sets=6)  # the same samples
    oracle = slow_samples(stored)
    setup = Setup(bare)
    seen = set()
    for step, batches in enumerate(setup.loader().steps(0, 45)):
        refs = setup.plan.step_samples(step)
        found = dict(unpack_step(batches))
        for number, epoch in zip(setup.ids(refs), refs.mask_set.tolist(), strict=True):
            assert found[number] == oracle[number][epoch]
            seen.add(epoch)
    assert seen == set(range(5))


def test_loader_reads_only_the_blocks_that_the_first_batch_needs(
    new_data_set: NewDataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(new_data_set(train_blocks=((10,) * 200,)), batch_size=16)
    read: list[int] = []
    reader_read = setup.reader.read
    monkeypatch.setattr(setup.reader, "read", lambda number, sets: read.append(number) or reader_read(number, sets))
    numbers = []
    for step in (0, 17, 400):
        read.clear()
        next(setup.loader().steps(step))
        assert sorted(read) == sorted(set(setup.plan.step_samples(step).block.tolist()))
        numbers.append(len(read))
    assert max(numbers) <= 16


def test_loader_reads_each_block_once_per_epoch(new_data_set: NewDataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(new_data_set(train_blocks=((20,) * 64,)), batch_size=16)
    read: list[int] = []
    reader_read = setup.reader.read
    monkeypatch.setattr(setup.reader, "read", lambda number, sets: read.append(number) or reader_read(number, sets))
    list(setup.loader().steps(0, 80))
    # A block that lies in windows of two lanes is read a second time where the one has passed before the other begins.
    assert 64 <= len(read) <= 64 + 16


def test_loader_frees_what_it_has_passed(new_data_set: NewDataSet) -> None:
    setup = Setup(new_data_set(train_blocks=((20,) * 64,)), batch_size=16)
    assembler = Assembler(
        setup.plan, setup.reader, lanes=setup.plan.lanes_of(0, world_size=1), cutting=setup.data.make_cutting(), run=map
    )
    held = []
    for step in range(0, 800, 4):
        assembler.prepare(step, step + 4, every=1)
        held.append(len(assembler._slots))
        assert len(assembler._users) <= 16 * 4
    assert max(held[:20]) >= max(held) - 8
    assert len(assembler._arena._tokens) <= 16 * 4 + 16


def damage(data_set: DataSet, *, shard: int = 0, at: int = 5000) -> str:
    path = data_set.folder / data_set.manifest.shards[shard].name
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return path.name


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_loader_names_a_damaged_block(new_data_set: NewDataSet, num_workers: int) -> None:
    broken = new_data_set()
    name = damage(broken)
    setup = Setup(open_data_set(broken.folder))
    shown: set[int] = set()
    with pytest.raises(ShardError, match=f"{name}, block .*--skip-bad-blocks"):
        for batches in setup.loader(num_workers=num_workers).steps(0, 20):
            shown |= set(dict(unpack_step(batches)))
    index = broken.blocks("train")
    bad = int(np.flatnonzero((index.shard == 0) & (index.offset <= 5000) & (index.offset + index.num_bytes > 5000))[0])
    start = int(index.num_samples[:bad].sum())
    assert not shown & set(range(start, start + int(index.num_samples[bad])))


@pytest.mark.parametrize("is_cut", [False, True])
def test_loader_shows_no_sample_of_a_block_that_is_damaged_anywhere(new_data_set: NewDataSet, is_cut: bool) -> None:
    setup = Setup(new_data_set(train_blocks=((7, 9), (5,))), batch_size=7)
    (data_set,), index = setup.data.data_sets, setup.data.data_sets[0].blocks("train")
    starts = setup.reader.first_samples
    generator, num_harmless = np.random.default_rng(int(is_cut)), 0
    for number in range(60):
        shard = number % 2
        path = data_set.folder / data_set.manifest.shards[shard].name
        whole = path.read_bytes()
        at = int(generator.integers(len(whole)))
        flipped = whole[:at] + bytes([whole[at] ^ 1 << int(generator.integers(8))]) + whole[at + 1 :]
        path.write_bytes(whole[:at] if is_cut else flipped)
        ends = index.offset + index.num_bytes
        is_bad = (index.shard == shard) & (ends > at) & (is_cut | (index.offset <= at))
        bad = {sample for row in np.flatnonzero(is_bad) for sample in range(starts[row], starts[row + 1])}
        shown: list[int] = []
        steps = setup.loader(num_workers=number % 3).steps(0, 6)  # two epochs
        if bad:
            with pytest.raises(ShardError, match=f"{path.name}, block "):
                for batches in steps:
                    shown += [one for one, _ in unpack_step(batches)]
        else:  # the end of the archive, which no block needs
            num_harmless += 1
            shown += [one for batches in steps for one, _ in unpack_step(batches)]
            assert set(shown) == set(range(21))
        assert not bad & set(shown)
        path.write_bytes(whole)
    assert num_harmless < 20


def test_loader_names_a_shard_that_is_cut_while_it_reads(new_data_set: NewDataSet) -> None:
    broken = new_data_set(train_blocks=((40,) * 30,))
    path = broken.folder / broken.manifest.shards[0].name
    steps = Setup(broken, window_blocks=1).loader().steps(0)
    next(steps)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3)
    with pytest.raises(ShardError, match=rf"{path.name}, block .*the shard is truncated"):
        for _ in range(100):
            next(steps)


def test_loader_goes_on_without_bad_blocks_by_the_same_plan(
    new_data_set: NewDataSet, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = new_data_set(), new_data_set()
    for shard, at in ((0, 5000), (1, 600)):
        damage(broken, shard=shard, at=at)
    setup, sound = Setup(open_data_set(broken.folder)), Setup(whole)
    setup.reader = setup.data.open_split("train", skip_bad_blocks=True)
    missing: set[int] = set()
    for world_size in (1, 2):
        for rank in range(world_size):
            shares = {"rank": rank, "world_size": world_size, "micro_batch_size": 4}
            for found, wanted in zip(
                setup.loader(**shares).steps(0, 30), sound.loader(**shares).steps(0, 30), strict=True
            ):
                there, all_samples = dict(unpack_step(found)), dict(unpack_step(wanted))
                assert there.items() <= all_samples.items()
                missing |= set(all_samples) - set(there)
    assert len(missing) == 40 + 40
    assert setup.reader.block_sizes[setup.reader.bad_blocks].tolist() == [40, 40]
    assert sum("leaving out 40 samples" in record.message for record in caplog.records) == 2


def test_loader_gives_a_batch_without_samples_where_all_are_damaged(new_data_set: NewDataSet) -> None:
    broken = new_data_set(train_blocks=((16,),))
    damage(broken, at=600)
    setup = Setup(open_data_set(broken.folder), batch_size=4)
    setup.reader = setup.data.open_split("train", skip_bad_blocks=True)
    for batches in setup.loader(micro_batch_size=2).steps(0, 6):
        assert [batch.num_samples for batch in batches.micro_batches] == [0]
        assert (batches.num_samples, batches.num_tokens, batches.num_predictions) == (0, 0, 0)
        assert len(batches.micro_batches[0].token_ids) == 1
