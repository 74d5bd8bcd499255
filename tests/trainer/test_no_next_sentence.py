"""On shards built without next sentences their head is off, and the exported model is whole all the same."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForPreTraining as HfBertForPreTraining

from bertdata.data_set import DataSet
from bertdata.seeds import stage_key
from tests.small_data_set import make_data_set
from tests.trainer.test_train import options_for, train_on
from trainer.checkpoint import load_latest
from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.defaults import Request, choose
from trainer.model import build_model

HEAD = ("bert.pooler.", "cls.seq_relationship.")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return make_data_set(tmp_path_factory.mktemp("single") / "shards", next_sentence="none")


def options(out: Path) -> TrainOptions:
    return options_for(out, max_steps=6, next_sentence=False, learning_rate=1e-2, save_every=6)


def test_head_is_off_on_shards_without_next_sentences(single: DataSet, data_set: DataSet) -> None:
    request = Request(out="run", settings={})
    for one in (single, data_set):
        chosen = choose(request, data=TrainingData(data_sets=(one,)), device_type="cpu", world_size=1, before=None)
        assert chosen.options.next_sentence == (one is data_set)


def test_nothing_of_the_head_is_trained_or_reported(single: DataSet, tmp_path: Path) -> None:
    rows = train_on(single, options(tmp_path))
    assert {"train", "eval", "epoch"} >= {row["kind"] for row in rows} >= {"train", "eval"}
    for row in rows:
        assert not [name for name in row if "nsp" in name]
        if "loss" in row:
            assert row["loss"] == row["mlm_loss"]
    checkpoint = load_latest(tmp_path / "checkpoints")
    assert checkpoint is not None
    first = build_model(options(tmp_path).model, seed=stage_key(0, "initial-weights")).state_dict()
    for name, tensor in checkpoint["model"].items():
        assert torch.equal(tensor, first[name]) == name.startswith(HEAD), name
    num_trained = sum(not name.startswith(HEAD) for name in first)
    assert len(checkpoint["optimizer"]["state"]) == num_trained == len(first) - 4


def test_export_is_whole(single: DataSet, tmp_path: Path) -> None:
    train_on(single, options(tmp_path))
    model, loading = HfBertForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    exported = load_file(tmp_path / "hf" / "model.safetensors")
    assert all(name in exported for name in model.state_dict() if "decoder" not in name)
