import json
import resource
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from transformers import BertForPreTraining as HfBertForPreTraining

from bertdata.data_set import DataSet
from bertdata.errors import OutputError
from tests.trainer.oracle import one_batch
from tests.trainer.references import small_options
from tests.trainer.test_train import options_for, train_on
from trainer.attention import layout_of
from trainer.checkpoint import load_latest
from trainer.export import export_model
from trainer.model import BertForPreTraining, build_model
from trainer.weight_files import load_weights, put_weights

OPTIONS = small_options()


@pytest.fixture
def model() -> BertForPreTraining:
    return build_model(OPTIONS, seed=3).eval()


def test_export_loads_in_transformers_with_equal_logits(
    model: BertForPreTraining, data_set: DataSet, tmp_path: Path
) -> None:
    export_model(model, tmp_path / "hf", tokenizer_folder=data_set.folder, pad_token_id=0)
    other, loading = HfBertForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]

    batch = one_batch(data_set, batch_size=8)
    with torch.no_grad():
        expected = other(**batch.padded(pad_token_id=0))
        found = model(batch)
    masked = expected.prediction_logits.flatten(0, 1)[layout_of(batch).padded_rows[batch.mask_rows]]
    torch.testing.assert_close(found.mlm_logits[:, :120], masked, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.nsp_logits, expected.seq_relationship_logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_bytes", [100, 10_000])  # within config.json, and within the weights
def test_full_disk_is_an_error_and_the_export_before_stays(
    model: BertForPreTraining, data_set: DataSet, tmp_path: Path, num_bytes: int
) -> None:
    export_model(model, tmp_path / "hf", tokenizer_folder=data_set.folder, pad_token_id=0)
    before = load_weights(tmp_path / "hf")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))  # a file that grows further is an error
    try:
        with pytest.raises(OutputError, match=r"hf cannot be written \(.*make room and run the same command again"):
            export_model(model, tmp_path / "hf", tokenizer_folder=data_set.folder, pad_token_id=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    assert all(torch.equal(one, before[name]) for name, one in load_weights(tmp_path / "hf").items())


def test_export_brings_the_tokenizer(model: BertForPreTraining, data_set: DataSet, tmp_path: Path) -> None:
    export_model(model, tmp_path / "hf", tokenizer_folder=data_set.folder, pad_token_id=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer("Word3 word4", "word0")["input_ids"] == [2, 8, 9, 3, 5, 3]
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["architectures"] == ["BertForPreTraining"]


def test_export_can_be_read_by_whom_other_new_files_can(
    model: BertForPreTraining, data_set: DataSet, tmp_path: Path
) -> None:
    export_model(model, tmp_path / "hf", tokenizer_folder=data_set.folder, pad_token_id=0)
    (tmp_path / "new").touch()
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "hf").iterdir()}
    assert set(modes.values()) == {(tmp_path / "new").stat().st_mode}, modes


def test_run_exports_a_model_that_gives_our_logits_from_text(data_set: DataSet, tmp_path: Path) -> None:
    train_on(data_set, options_for(tmp_path, max_steps=4))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    other = HfBertForPreTraining.from_pretrained(tmp_path / "hf").eval()
    checkpoint = load_latest(tmp_path / "checkpoints")
    assert checkpoint is not None
    model = build_model(options_for(tmp_path).model).eval()
    model.load_state_dict(checkpoint["model"])

    # The shards' own samples, [MASK] included, as text.
    batch = one_batch(data_set, batch_size=8)
    expected = batch.padded(pad_token_id=0)
    texts = []
    for ids in expected["input_ids"].tolist():
        first, second, *_ = tokenizer.decode(ids).removeprefix("[CLS]").split("[SEP]")
        texts.append((first.strip(), second.strip()))
    inputs = tokenizer([one for one, _ in texts], [other for _, other in texts], padding=True, return_tensors="pt")
    assert set(inputs) == {"input_ids", "token_type_ids", "attention_mask"}
    for name, tensor in inputs.items():
        assert torch.equal(tensor, expected[name]), name
    with torch.no_grad():
        found, outputs = model(batch), other(**inputs)
    masked = outputs.prediction_logits.flatten(0, 1)[layout_of(batch).padded_rows[batch.mask_rows]]
    torch.testing.assert_close(found.mlm_logits[:, :120], masked, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.nsp_logits, outputs.seq_relationship_logits, rtol=1e-5, atol=1e-5)


def test_export_replaces_an_earlier_one(model: BertForPreTraining, data_set: DataSet, tmp_path: Path) -> None:
    for seed in (1, 2):
        other = build_model(OPTIONS, seed=seed)
        export_model(other, tmp_path / "hf", tokenizer_folder=data_set.folder, pad_token_id=0)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    put_weights(model, load_weights(tmp_path / "hf"))
    words = model.bert.embeddings.word_embeddings.weight
    assert torch.equal(words[:120], other.bert.embeddings.word_embeddings.weight[:120])


def test_failed_export_leaves_the_earlier_one(
    model: BertForPreTraining, data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(model, tmp_path / "hf", tokenizer_folder=data_set.folder, pad_token_id=0)
    before = (tmp_path / "hf" / "model.safetensors").read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("trainer.export.save_file", fail)
    with pytest.raises(OutputError, match=r"hf cannot be written \(disk full\)"):
        export_model(build_model(OPTIONS), tmp_path / "hf", tokenizer_folder=data_set.folder, pad_token_id=0)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    assert (tmp_path / "hf" / "model.safetensors").read_bytes() == before
