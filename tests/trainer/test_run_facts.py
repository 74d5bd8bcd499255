from pathlib import Path
from typing import Any

import pytest
import torch

from bertdata.data_set import DataSet
from bertdata.errors import OutputError
from trainer.checkpoint import load_latest
from trainer.config import MODEL_SIZES, ModelOptions, TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.model import BertForPreTraining
from trainer.run_facts import FILE_NAME, count_parameters, load_facts, load_facts_of, write_end, write_start
from trainer.train import train

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
MODEL = ModelOptions(vocab_size=120, num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=32)


def options_for(out: Path, **changes: Any) -> TrainOptions:
    values: dict[str, Any] = {"out": str(out), "model": MODEL, "batch_size": 16, "micro_batch_size": 16}
    values |= {"max_steps": 2, "learning_rate": 1e-3, "warmup_steps": 0, "eval_samples": 4}
    return TrainOptions(**(values | changes))


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_parameters_are_those_of_the_model(size: str) -> None:
    options = ModelOptions.of_size(size, vocab_size=30522)
    with torch.device("meta"):
        model = BertForPreTraining(options)
    padding = (options.padded_vocab_size - options.vocab_size) * options.hidden_size
    assert count_parameters(options) == sum(parameter.numel() for parameter in model.parameters()) - padding


def test_each_start_of_a_run_is_written_with_its_end(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = TrainingData(data_sets=(data_set,))
    train(data, options_for(tmp_path), world=ALONE, origins={"batch_size": "given"})
    facts = load_facts(tmp_path)
    assert facts is not None
    assert facts["options"] == options_for(tmp_path).to_json()
    assert facts["origins"] == {"batch_size": "given"}
    assert facts["num_parameters"] == count_parameters(MODEL)
    (described,) = facts["data"]
    assert described["train_samples"] == 160
    assert described["eval_samples"] == 41
    assert described["place"] == data_set.location
    assert data_set.manifest.fingerprint.startswith(described["fingerprint"])
    (start,) = facts["starts"]
    assert (start["step"], start["num_processes"], start["versions"]["torch"]) == (0, 1, torch.__version__)
    assert start["end"].items() >= {"step": 2, "is_finished": True}.items()
    monkeypatch.chdir(tmp_path / "hf")
    assert load_facts_of(tmp_path) == load_facts_of(tmp_path / "hf") == load_facts_of(Path()) == facts

    checkpoint = load_latest(tmp_path / "checkpoints")
    train(data, options_for(tmp_path, max_steps=3), world=ALONE, checkpoint=checkpoint)
    facts = load_facts(tmp_path)
    assert facts is not None
    assert [start["step"] for start in facts["starts"]] == [0, 2]
    assert [start["end"]["step"] for start in facts["starts"]] == [2, 3]
    assert facts["options"]["max_steps"] == 3
    before = (tmp_path / FILE_NAME).read_bytes()
    checkpoint = load_latest(tmp_path / "checkpoints")
    train(data, options_for(tmp_path, max_steps=3), world=ALONE, checkpoint=checkpoint)  # nothing is left to do
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_run_that_breaks_off_has_no_end(data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("trainer.train.save_checkpoint", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        train(TrainingData(data_sets=(data_set,)), options_for(tmp_path), world=ALONE)
    facts = load_facts(tmp_path)
    assert facts is not None
    assert "end" not in facts["starts"][0]


def start_at(step: int, *, out: Path, data_set: DataSet) -> None:
    write_start(
        options_for(out, max_steps=10**6),
        data=TrainingData(data_sets=(data_set,)),
        device=torch.device("cpu"),
        num_processes=1,
        first_step=step,
        origins={},
        word_entropy=None,
    )


def test_new_run_forgets_the_starts_of_the_old_one_and_a_long_one_its_first(data_set: DataSet, tmp_path: Path) -> None:
    for step in (0, 5, 0, *range(1, 120)):
        start_at(step, out=tmp_path, data_set=data_set)
    facts = load_facts(tmp_path)
    assert facts is not None
    assert [start["step"] for start in facts["starts"]] == list(range(20, 120))
    (tmp_path / FILE_NAME).write_text("torn")
    write_end(tmp_path, step=3, is_finished=False)  # of nothing that can be read: left as it is
    assert load_facts(tmp_path) is None
    start_at(7, out=tmp_path, data_set=data_set)
    facts = load_facts(tmp_path)
    assert facts is not None
    assert [start["step"] for start in facts["starts"]] == [7]


def test_file_that_cannot_be_written_is_an_error(data_set: DataSet, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="run.json cannot be written"):
        start_at(0, out=tmp_path / "missing", data_set=data_set)
