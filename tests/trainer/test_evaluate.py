import math
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import BertConfig
from transformers import BertForPreTraining as HfBertForPreTraining

import bertdata
from bertdata.counting import count_block
from bertdata.data_set import DataSet
from bertdata.diagnostics import guess_labels_by_length
from bertdata.shard_reading import iter_blocks
from bertdata.statistics import Statistics
from tests.small_data_set import make_data_set
from tests.trainer.oracle import slow_samples
from trainer.arena import Shown
from trainer.batch import IGNORED
from trainer.config import ModelOptions
from trainer.cutting import Cutting, cut_step
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.evaluate import _sums_of, evaluate
from trainer.export import hf_config, hf_weights
from trainer.held_out import evaluation_chunks
from trainer.model import BertForPreTraining, Outputs, build_model

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)
MASK = 4
MODEL = ModelOptions(
    vocab_size=120,
    num_hidden_layers=1,
    hidden_size=16,
    num_attention_heads=2,
    intermediate_size=32,
    initializer_range=0.3,  # larger than published, so that the model prefers some words
)
COUNTS = ("num_samples", "num_predictions", "mlm_baseline")


@dataclass
class Meeting:
    """Where threads add up tensors, each the process of a rank."""

    barrier: threading.Barrier
    tensors: dict[int, Tensor] = field(default_factory=dict)

    def sum(self, rank: int, tensor: Tensor) -> Tensor:
        self.barrier.wait(timeout=60)
        self.tensors[rank] = tensor.clone()
        self.barrier.wait(timeout=60)
        return torch.stack([tensor for _, tensor in sorted(self.tensors.items())]).sum(0)


@dataclass(frozen=True, kw_only=True)
class ThreadWorld(World):
    meeting: Meeting

    def sum(self, tensor: Tensor) -> Tensor:
        return self.meeting.sum(self.rank, tensor)


def run(
    model: BertForPreTraining,
    *data_sets: DataSet,
    world: World = ALONE,
    skip_bad_blocks: bool = False,
    **changes: object,
) -> dict[str, float] | None:
    data = TrainingData(data_sets=data_sets)
    cutting = data.make_cutting(micro_batch_size=changes.pop("micro_batch_size", 8))
    values = {"max_samples": None, "next_sentence": True, "vocab_size": 120} | changes
    reader = data.open_split("eval", skip_bad_blocks=skip_bad_blocks)
    return evaluate(model, reader, world=world, cutting=cutting, autocast=nullcontext(), **values)


def run_together(size: int, model: BertForPreTraining, *data_sets: DataSet, **changes: object) -> dict[str, float]:
    """What each of several ranks returns, which must be the same."""
    meeting = Meeting(threading.Barrier(size))
    worlds = [ThreadWorld(rank=rank, size=size, device=CPU, meeting=meeting) for rank in range(size)]
    model.eval()  # the threads share it
    with ThreadPoolExecutor(size) as threads:
        results = list(threads.map(lambda world: run(model, *data_sets, world=world, **changes), worlds))
    assert all(result == results[0] for result in results)
    return results[0]


def damage(data_set: DataSet, *, split: str, block: int) -> None:
    row = int(
        np.flatnonzero(data_set.index.shard == [one.split for one in data_set.manifest.shards].index(split))[block]
    )
    path = data_set.folder / data_set.manifest.shards[int(data_set.index.shard[row])].name
    data = bytearray(path.read_bytes())
    data[int(data_set.index.offset[row]) + 700] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """A data set of which some labels are forced."""
    return make_data_set(tmp_path_factory.mktemp("google"), next_sentence="google")


@pytest.mark.parametrize("max_samples", [None, 35, 7, 1000])
def test_chunks_are_the_first_samples_of_each_data_set(max_samples: int | None) -> None:
    sizes = [30, 1, 11]
    chunks = evaluation_chunks(sizes, max_samples=max_samples, micro_batch_size=4)
    whole = np.concatenate(chunks).tolist()
    assert len(whole) == min(max_samples or 42, 42)
    assert [len(chunk) for chunk in chunks[:-1]] == [4] * (len(chunks) - 1)
    ranges = [range(0, 30), range(30, 31), range(31, 42)]
    chosen = [[number for number in whole if number in numbers] for numbers in ranges]
    assert [number for part in chosen for number in part] == whole
    for numbers, found in zip(ranges, chosen, strict=True):
        assert found == list(numbers)[: len(found)]
        assert abs(len(found) - len(whole) * len(numbers) / 42) <= 1


@pytest.mark.parametrize("num_samples", [0, 1, 5000, 100_000])
def test_chunks_are_neither_few_nor_large(num_samples: int) -> None:
    chunks = evaluation_chunks([num_samples], max_samples=None, micro_batch_size=32)
    assert sum(map(len, chunks)) == num_samples
    assert max(map(len, chunks), default=0) <= 1024
    assert num_samples < 16 * 32 or len(chunks) >= 16
    assert all(len(chunk) % 32 == 0 for chunk in chunks[:-1])


def kind_of(shown: int, label: int) -> str:
    return "mask" if shown == MASK else "kept" if shown == label else "random"


@pytest.mark.parametrize("micro_batch_size", [3, 41])
def test_evaluation_equals_transformers_sample_by_sample(google: DataSet, micro_batch_size: int) -> None:
    model = build_model(MODEL, seed=2)
    weights = hf_weights(model)
    other = HfBertForPreTraining(BertConfig(**hf_config(MODEL, pad_token_id=0))).eval()
    tied = {"cls.predictions.decoder.weight": weights["bert.embeddings.word_embeddings.weight"]}
    other.load_state_dict(weights | tied | {"cls.predictions.decoder.bias": weights["cls.predictions.bias"]})
    forced = [sample.label_forced for sample in bertdata.read_samples(google.folder, split="eval")]
    losses, right, number = Counter[str](), Counter[str](), Counter[str]()
    for sets, is_forced in zip(slow_samples(google, "eval"), forced, strict=True):
        sample = sets[0]
        with torch.no_grad():
            outputs = other(torch.tensor([sample["input"]]), token_type_ids=torch.tensor([sample["types"]]))
        for position, label in zip(sample["positions"], sample["labels"], strict=True):
            logits = outputs.prediction_logits[0, position].double()
            kind = kind_of(sample["input"][position], label)
            losses["mlm"] += float(F.cross_entropy(logits, torch.tensor(label)))
            number[kind] += 1
            right[kind] += int(logits.argmax()) == label
        logits, kind = outputs.seq_relationship_logits[0].double(), "forced" if is_forced else "free"
        losses["nsp"] += float(F.cross_entropy(logits, torch.tensor(sample["next"][0])))
        number[kind] += 1
        right[kind] += int(logits.argmax()) == sample["next"][0]
    assert min(number[kind] for kind in ("mask", "random", "kept", "forced", "free")) > 3
    words, samples = sum(number[kind] for kind in ("mask", "random", "kept")), number["forced"] + number["free"]
    mlm_loss, nsp_loss = losses["mlm"] / words, losses["nsp"] / samples

    found = run(model, google, micro_batch_size=micro_batch_size)
    assert found is not None
    exact = {f"mlm_accuracy_{kind}": right[kind] / number[kind] for kind in ("mask", "random", "kept")}
    exact |= {f"nsp_accuracy_{kind}": right[kind] / number[kind] for kind in ("forced", "free")}
    exact["mlm_accuracy"] = sum(right[kind] for kind in ("mask", "random", "kept")) / words
    exact["nsp_accuracy"] = (right["forced"] + right["free"]) / samples
    exact |= {"num_samples": 41, "num_predictions": words, "mlm_baseline": found["mlm_baseline"]}
    assert {name: found[name] for name in exact} == exact
    close = {
        "mlm_loss": mlm_loss,
        "nsp_loss": nsp_loss,
        "loss": mlm_loss + nsp_loss,
        "mlm_perplexity": math.exp(mlm_loss),
    }
    assert {name: found[name] for name in found if name not in exact} == pytest.approx(close, rel=1e-6)


@pytest.mark.parametrize("changes", [{}, {"max_samples": 3}, {"max_samples": 17}, {"micro_batch_size": 41}])
def test_any_number_of_ranks_gives_the_same_digits(google: DataSet, data_set: DataSet, changes: dict[str, int]) -> None:
    model = build_model(MODEL, seed=3)
    whole = run(model.eval(), google, data_set, **changes)
    assert whole is not None
    assert whole["num_samples"] == changes.get("max_samples", 82)
    for size in (2, 4, 30):
        assert run_together(size, model, google, data_set, **changes) == whole


def test_sizes_of_micro_batches_change_no_count(google: DataSet) -> None:
    model = build_model(MODEL)
    one = run(model, google)
    for size in (1, 5, 41, 1000):
        other = run(model.eval(), google, micro_batch_size=size)
        assert one == pytest.approx(other, rel=1e-6)
        assert {name: one[name] for name in COUNTS} == {name: other[name] for name in COUNTS}


def test_evaluate_restores_the_training_mode(data_set: DataSet) -> None:
    model = build_model(MODEL)
    run(model, data_set)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="stop now"):
        run(model, data_set, should_stop=lambda: (_ for _ in ()).throw(RuntimeError("stop now")))
    assert model.training


def test_evaluate_baseline_is_the_share_of_the_most_frequent_label(data_set: DataSet) -> None:
    labels: Counter[int] = Counter()
    (shard,) = [shard for shard in data_set.manifest.shards if shard.split == "eval"]
    for block in iter_blocks(data_set.folder / shard.name):
        start = 0
        for sample, counts in enumerate(block.num_predictions.tolist()):
            positions = block.mask_positions[start : start + counts[0]]
            labels.update(block.tokens[block.token_offsets[sample] + positions].tolist())
            start += sum(counts)
    result = run(build_model(MODEL), data_set)
    assert result["num_predictions"] == labels.total()
    assert result["mlm_baseline"] == labels.most_common(1)[0][1] / labels.total()


def test_drawn_masks_are_those_of_the_first_set(new_data_set: Callable[..., DataSet]) -> None:
    model = build_model(MODEL)
    assert run(model, new_data_set(num_mask_sets=0)) == run(model, new_data_set(num_mask_sets=3))


def test_damaged_blocks_are_left_out_by_all_ranks(new_data_set: Callable[..., DataSet]) -> None:
    data_set = new_data_set(eval_blocks=((30, 11), (9,)))
    model = build_model(MODEL).eval()
    without = run(model, new_data_set(eval_blocks=((30,), (9,))), micro_batch_size=1)
    damage(data_set, split="eval", block=1)
    with pytest.raises(bertdata.ShardError, match="--skip-bad-blocks goes on without"):
        run(model, data_set)
    found = run(model, data_set, skip_bad_blocks=True)
    assert found is not None
    assert found["num_samples"] == 39
    assert without is not None  # the third block was drawn from another seed
    for size in (2, 4):
        assert run_together(size, model, data_set, skip_bad_blocks=True) == found
    damage(data_set, split="eval", block=0)
    (last,) = [shard for shard in data_set.manifest.shards if shard.name == "eval-00001-of-00002.tar"]
    path = data_set.folder / last.name
    path.write_bytes(path.read_bytes()[:100])
    assert run_together(2, model, data_set, skip_bad_blocks=True) == {"loss": 0, "num_samples": 0, "num_predictions": 0}


def test_progress_goes_from_nothing_towards_all(data_set: DataSet) -> None:
    shares: list[float] = []
    run(build_model(MODEL), data_set, on_progress=shares.append)
    assert shares == [number / len(shares) for number in range(len(shares))]
    assert len(shares) > 1


def test_a_rank_that_is_asked_to_stop_stops_all(data_set: DataSet) -> None:
    model = build_model(MODEL)
    calls = []

    def should_stop() -> bool:
        calls.append(len(calls))
        return len(calls) == 3

    assert run(model, data_set, should_stop=should_stop) is None
    assert len(calls) == 3
    assert run(model, data_set, should_stop=lambda: False) == run(model, data_set)
    meeting = Meeting(threading.Barrier(3))
    worlds = [ThreadWorld(rank=rank, size=3, device=CPU, meeting=meeting) for rank in range(3)]
    with ThreadPoolExecutor(3) as threads:
        results = threads.map(
            lambda world: run(model.eval(), data_set, world=world, should_stop=lambda: world.rank == 1), worlds
        )
        assert list(results) == [None] * 3


@pytest.mark.parametrize("next_sentence", ["balanced", "sop", "none"])
def test_what_there_is_none_of_is_absent(new_data_set: Callable[..., DataSet], next_sentence: str) -> None:
    data_set = new_data_set(next_sentence=next_sentence)
    has_labels = next_sentence != "none"
    found = run(build_model(MODEL, next_sentence=has_labels), data_set, next_sentence=has_labels)
    names = {name for name in found if name.startswith("nsp_")}
    assert names == ({"nsp_loss", "nsp_accuracy"} if has_labels else set())
    assert found["loss"] == found["mlm_loss"] + found.get("nsp_loss", 0)
    assert run(build_model(MODEL), new_data_set(eval_blocks=())) == {"loss": 0, "num_samples": 0, "num_predictions": 0}


def test_lengths_tell_the_label_as_they_do_to_the_report(new_data_set: Callable[..., DataSet]) -> None:
    data_set = new_data_set(eval_blocks=((700,), (300, 101)), max_seq_length=24)
    empty = Statistics.empty(max_seq_length=24, vocab_size=120)
    counted = empty
    for shard in data_set.manifest.shards:
        if shard.split == "eval":
            for block in iter_blocks(data_set.folder / shard.name):
                counted += count_block(block, empty=empty, mask_token=MASK, has_labels=True)
    model = build_model(MODEL).eval()
    size = {"micro_batch_size": 64}
    wanted = guess_labels_by_length(counted.segment_lengths)
    assert wanted != 0.5
    for found in (run(model, data_set, **size), run_together(3, model, data_set, **size)):
        assert found["nsp_accuracy_by_lengths"] == wanted
    assert "nsp_accuracy_by_lengths" not in run(model, data_set, max_samples=999, **size)


def test_kinds_of_positions_by_hand() -> None:
    """Two samples; what is shown: [MASK], the label itself, another token; then [MASK], and one past the end."""
    shown = Shown(
        token_ids=np.array([2, MASK, 7, 9, 3, 2, MASK, 3], dtype=np.int32),
        token_type_ids=np.zeros(8, dtype=np.int32),
        token_offsets=np.array([0, 5, 8]),
        mask_rows=np.array([1, 2, 3, 6]),
        mask_labels=np.array([6, 7, 8, 5]),
        mask_offsets=np.array([0, 3, 4]),
        next_sentence_labels=np.array([1, 1]),
        label_forced=np.array([True, False]),
    )
    data = {"max_seq_length": 8, "max_predictions": 3, "pad_token_id": 0}
    (batch,) = cut_step(shown, np.arange(2), 0, 2, cutting=Cutting(pad_to_multiple=8, **data)).micro_batches
    assert batch.mask_labels.tolist() == [6, 7, 8, 5, IGNORED, IGNORED]
    logits = torch.zeros(6, 10)
    for row, best in enumerate([6, 7, 8, 4, 0, 0]):
        logits[row, best] = 1.0
    logits[0, 9] = 1.0  # a tie goes to the lower id, 6
    sums = _sums_of(Outputs(logits, torch.tensor([[0.0, 1.0], [0.0, 1.0]])), batch, mask_token=MASK).tolist()
    loss = -math.log(math.e / (math.e + 9))
    assert sums[0] == pytest.approx(-math.log(math.e / (2 * math.e + 8)) + 2 * loss + (loss + 1), rel=1e-6)
    assert sums[1:4] == [1, 1, 1]
    assert sums[4] == pytest.approx(2 * math.log1p(math.exp(-1)), rel=1e-6)
    assert sums[5:] == [2, 1]
    logits[1, 9] = 2.0
    logits[0, 3] = 1.0  # a tie that the label loses
    assert _sums_of(Outputs(logits, None), batch, mask_token=MASK).tolist()[1:] == [0, 1, 0, 0, 0, 0]


def test_losses_that_are_no_numbers_are_told(data_set: DataSet) -> None:
    model = build_model(MODEL)
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.weight.fill_(math.nan)
    found = run(model, data_set)
    assert math.isnan(found["mlm_loss"])
    assert math.isnan(found["mlm_perplexity"])


@pytest.mark.slow
def test_a_compiled_model_is_compiled_once(google: DataSet) -> None:
    """Shapes of batches differ, and none of them makes another graph."""
    torch._dynamo.reset()
    model = build_model(MODEL)
    plain = run(model, google, micro_batch_size=7)
    model.compile(backend="eager", dynamic=True)
    assert run(model, google, micro_batch_size=7) == pytest.approx(plain, rel=1e-6)
    num_graphs = counters["stats"]["unique_graphs"]
    for size in (7, 13, 41):
        run(model, google, micro_batch_size=size, max_samples=40)
    assert counters["stats"]["unique_graphs"] == num_graphs
    torch._dynamo.reset()
