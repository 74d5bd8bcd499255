"""The gradient of a step is that of one plain model over the whole batch, however the batch is dealt and cut."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from bertdata.data_set import open_data_set
from tests.small_data_set import make_data_set
from tests.trainer.gradient_ranks import BATCH_SIZE, CASES, MODEL, SHARES, SIZES, Case, share_of
from tests.trainer.references import WORDS, check_gradients, hf_model
from trainer.data import TrainingData
from trainer.export import hf_config, hf_weights
from trainer.metrics import SUMS
from trainer.model import build_model

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
Found = dict[tuple[int, int], tuple[dict[str, Tensor], Tensor]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    make_data_set(folder / "shards")
    make_data_set(folder / "no-pairs", next_sentence="none")
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[Found]:
    """Returns what each process found: gradients and sums by number of processes and number of the case."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.trainer.gradient_ranks", str(folder)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(max(SIZES))]


def expected_gradients(case: Case, data: TrainingData) -> dict[str, Tensor]:
    """Returns the gradients of transformers' own loss over the whole batch, in float64."""
    whole = case._replace(micro_batch_size=BATCH_SIZE, max_padding=None, pad_to_multiple=None)
    (batch,) = share_of(whole, data, rank=0, world_size=1).micro_batches
    weights = hf_weights(build_model(MODEL, seed=5))
    inputs = batch.padded(pad_token_id=0)
    if data.has_next_sentence:
        model = hf_model(MODEL, weights)
    else:
        inputs.pop("next_sentence_label")
        model = BertForMaskedLM(BertConfig(**hf_config(MODEL, pad_token_id=0), attn_implementation="eager"))
        assert not model.load_state_dict(weights, strict=False).missing_keys[2:]  # the tied ones
        model.tie_weights()
    model.double()(**inputs).loss.backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("dealt", ["evenly", "unevenly"])
@pytest.mark.parametrize("name", ["shards", "no-pairs"])
def test_gradient_is_that_of_transformers_over_the_whole_batch(
    folder: Path, found: list[Found], name: str, dealt: str
) -> None:
    data = TrainingData(data_sets=(open_data_set(str(folder / name)),))
    expected = expected_gradients(next(one for one in CASES if (one.data, one.dealt) == (name, dealt)), data)
    num_checked = 0
    for number, case in enumerate(CASES):
        if (case.data, case.dealt) != (name, dealt):
            continue
        for size in SIZES:
            for rank in range(size):
                gradients = dict(found[rank][size, number][0])
                gradients[WORDS] = gradients[WORDS][: MODEL.vocab_size]
                check_gradients(gradients, expected, tolerance=TOLERANCE[case.dtype])
                num_checked += 1
    assert num_checked == 7 * (9 if name == "shards" else 1)


def test_sums_are_the_same_for_every_number_of_processes(found: list[Found]) -> None:
    for number, case in enumerate(CASES):
        sums = torch.stack([found[rank][size, number][1] for size in SIZES for rank in range(size)])
        tolerance = 1e-5 if case.dtype == torch.float32 else 1e-12
        torch.testing.assert_close(sums, sums[:1].expand_as(sums), rtol=tolerance, atol=0)
        assert bool(sums[0, SUMS.index("nsp_loss")]) == (case.data == "shards")


def test_cases_are_as_uneven_as_they_say(folder: Path) -> None:
    data = TrainingData(data_sets=(open_data_set(str(folder / "shards")),))
    case = Case("shards", "unevenly", torch.float32, 3)
    shares = [share_of(case, data, rank=rank, world_size=4) for rank in range(4)]
    assert [share.num_samples for share in shares] == list(SHARES[4])
    assert [len(share.micro_batches) for share in shares] == [3, 2, 1, 1]
    assert [bool(share.num_predictions) for share in shares] == [True, True, False, False]
    assert len({share.num_predictions for share in shares[:2]}) == 2
    evenly = [share_of(case._replace(dealt="evenly"), data, rank=rank, world_size=4) for rank in range(4)]
    assert len({share.num_predictions for share in evenly}) > 1
