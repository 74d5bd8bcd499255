import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel
from transformers import BertForPreTraining as HfBertForPreTraining

from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from bertdata.wordpiece import new_bert_tokenizer
from tests.small_data_set import make_data_set
from tests.trainer.oracle import one_batch
from tests.trainer.references import small_options
from tests.trainer.test_train import options_for, train_on
from trainer.attention import layout_of
from trainer.checkpoint import load_latest
from trainer.config import ModelOptions
from trainer.data import TrainingData
from trainer.defaults import Request, choose
from trainer.export import export_model, hf_config, hf_weights
from trainer.initial import Initial, initial_model_options, load_initial
from trainer.model import build_model
from trainer.phases import find_run
from trainer.weight_files import put_weights

OPTIONS = small_options(max_position_embeddings=64)
WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def folder(data_set: DataSet, tmp_path: Path) -> Path:
    """A folder with our own export."""
    export_model(build_model(OPTIONS, seed=3), tmp_path / "from", tokenizer_folder=data_set.folder, pad_token_id=0)
    return tmp_path / "from"


def initial_of(place: Path, data_set: DataSet, *, options: ModelOptions = OPTIONS, **more: Any) -> Initial:
    return load_initial(place, find_run(place), options=options, data_set=data_set, **({"next_sentence": True} | more))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    weights = change(load_file(folder / "model.safetensors"))
    save_file({name: one.clone() for name, one in weights.items()}, folder / "model.safetensors")


NEW = {
    HfBertForPreTraining: set(),
    BertForMaskedLM: {"bert.pooler", "cls.seq_relationship"},
    BertModel: {"cls.seq_relationship", "cls.predictions"},
    BertForSequenceClassification: {"cls.seq_relationship", "cls.predictions"},
}


@pytest.mark.parametrize("kind", list(NEW))
def test_weights_of_transformers_are_taken(
    kind: Any, data_set: DataSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(6)
    other = kind(BertConfig(**hf_config(OPTIONS, pad_token_id=0))).eval()
    other.save_pretrained(tmp_path)
    shutil.copy(data_set.folder / "tokenizer.json", tmp_path)
    with caplog.at_level(logging.INFO):
        initial = initial_of(tmp_path, data_set)
    model = build_model(OPTIONS, seed=2).eval()
    put_weights(model, initial.weights)

    assert {".".join(name.split(".")[:2]) for name in initial.new} == NEW[kind]
    assert initial.ignored == (
        ("classifier.bias", "classifier.weight") if kind is BertForSequenceClassification else ()
    )
    assert (initial.step, initial.optimizer) == (None, None)
    fresh = build_model(OPTIONS, seed=2).state_dict()
    assert all(torch.equal(model.state_dict()[name], fresh[name]) for name in initial.new)
    (line,) = [record.message for record in caplog.records]
    assert ("all of the model" in line) == (not NEW[kind])
    assert ("new: pooler, next-sentence head" in line) == (kind is BertForMaskedLM)
    assert ("not used: classifier.bias, classifier.weight" in line) == (kind is BertForSequenceClassification)

    batch = one_batch(data_set, batch_size=6)
    inputs = {name: one for name, one in batch.padded(pad_token_id=0).items() if "label" not in name}
    with torch.no_grad():
        bert = other if kind is BertModel else other.bert
        layout = layout_of(batch)
        hidden = model.bert.encoder(model.bert.embeddings(batch, layout), layout)
        expected = bert(**inputs).last_hidden_state.flatten(0, 1)[layout.padded_rows]
        torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)
        if kind in (HfBertForPreTraining, BertForMaskedLM):
            outputs = other(**inputs)
            logits = outputs.prediction_logits if kind is HfBertForPreTraining else outputs.logits
            expected = logits.flatten(0, 1)[layout.padded_rows[batch.mask_rows]]
            torch.testing.assert_close(model(batch).mlm_logits[:, :120], expected, rtol=1e-5, atol=1e-5)


def as_bin(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_parts(folder: Path, *, kind: str) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    stem, suffix = kind.split(".")
    where = {name: f"{stem}-{number % 2}.{suffix}" for number, name in enumerate(names)}
    for part in set(where.values()):
        chosen = {name: weights[name] for name in names if where[name] == part}
        save_file(chosen, folder / part) if suffix == "safetensors" else torch.save(chosen, folder / part)
    (folder / f"{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def as_early(folder: Path) -> None:
    def change(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        early = {
            re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", name)): one
            for name, one in weights.items()
        }
        early["cls.predictions.decoder.bias"] = early.pop("cls.predictions.bias")
        early["cls.predictions.decoder.weight"] = weights[WORDS]
        return early | {"bert.embeddings.position_ids": torch.arange(64)[None]}

    change_weights(folder, change)
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))


FORMS: dict[str, Callable[[Path], None]] = {
    "one file": lambda _: None,
    "pickle": as_bin,
    "parts": lambda folder: as_parts(folder, kind="model.safetensors"),
    "parts of pickle": lambda folder: as_parts(folder, kind="pytorch_model.bin"),
    "early names": as_early,
    "vocab.txt": lambda folder: as_vocab_txt(folder),
    "half": lambda folder: change_weights(folder, lambda all: {name: one.double() for name, one in all.items()}),
}


def as_vocab_txt(folder: Path) -> None:
    vocab = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)))
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_of_a_folder_gives_the_same_weights(
    form: str, folder: Path, data_set: DataSet, caplog: pytest.LogCaptureFixture
) -> None:
    FORMS[form](folder)
    initial = initial_of(folder, data_set)
    expected = hf_weights(build_model(OPTIONS, seed=3))
    assert initial.weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert initial.weights[name].dtype == torch.float32
        assert torch.equal(initial.weights[name], tensor), name
    assert not initial.new
    assert not initial.ignored
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_pickle_is_not_run(folder: Path, data_set: DataSet) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "sprung",)

    as_bin(folder)
    torch.save({WORDS: Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(TrainingError, match=r"pytorch_model.bin cannot be read as weights"):
        initial_of(folder, data_set)
    assert not (folder / "sprung").exists()


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_bin(folder: Path) -> None:
    as_bin(folder)
    cut_in_half(folder / "pytorch_model.bin")


def without(*endings: str) -> Callable[[Path], None]:
    return lambda folder: change_weights(
        folder, lambda weights: {name: one for name, one in weights.items() if not name.endswith(endings)}
    )


def other_tokens(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"word7"', '"word07"'))


def more_rows(folder: Path) -> None:
    change_config(folder, vocab_size=128)
    change_weights(
        folder,
        lambda weights: (
            weights
            | {
                WORDS: torch.cat([weights[WORDS], torch.ones(8, 32)]),
                "cls.predictions.bias": torch.cat([weights["cls.predictions.bias"], torch.ones(8)]),
            }
        ),
    )


def more_rows_and_no_tokenizer(folder: Path) -> None:
    more_rows(folder)
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "is not there; give the folder of a run"),
        (lambda folder: (folder / "config.json").unlink(), "holds no checkpoints and no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors nor pytorch_model.bin"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "tf_model.h5"), "tf_model.h5 is of another"),
        (lambda folder: cut_in_half(folder / "model.safetensors"), "model.safetensors cannot be read as weights"),
        (damage_bin, "pytorch_model.bin cannot be read as weights"),
        (lambda folder: change_config(folder, hidden_act="gelu_new"), "hidden_act is 'gelu_new'"),
        (lambda folder: change_config(folder, model_type="roberta"), "model_type is 'roberta'"),
        (lambda folder: change_config(folder, num_hidden_layers=1), "has bert.encoder.layer.1.*, against its config"),
        (lambda folder: change_config(folder, intermediate_size=64), r"of shape \[48, 32\] instead of \[64, 32\]"),
        (without("1.output.dense.weight"), "lacks bert.encoder.layer.1.output.dense.weight"),
        (without("word_embeddings.weight"), "holds no bert.embeddings.word_embeddings.weight, so it is no BERT"),
        (other_tokens, "id 12 is 'word07' and 'word7'"),
        (more_rows_and_no_tokenizer, "has 128 entries, that of .* 120"),
    ],
)
def test_folder_that_does_not_fit_is_refused(
    damage: Callable[[Path], None], message: str, folder: Path, data_set: DataSet
) -> None:
    damage(folder)
    with pytest.raises(TrainingError, match=message):
        initial_of(folder, data_set)


def test_rows_that_no_token_has_are_cut_off(folder: Path, data_set: DataSet) -> None:
    more_rows(folder)
    initial = initial_of(folder, data_set)
    assert torch.equal(initial.weights[WORDS], hf_weights(build_model(OPTIONS, seed=3))[WORDS])
    assert initial.weights["cls.predictions.bias"].shape == (120,)


def test_folder_without_tokenizer_is_taken_with_a_warning(
    folder: Path, data_set: DataSet, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "tokenizer.json").unlink()
    initial_of(folder, data_set)
    assert "whether its ids mean the tokens of" in caplog.text


def test_tokenizer_of_another_case_is_said(folder: Path, data_set: DataSet, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cased = new_bert_tokenizer(tokenizer.get_vocab(), lowercase=False, strip_accents=False)
    assert isinstance(cased.normalizer, normalizers.BertNormalizer)
    cased.save(str(folder / "tokenizer.json"))
    initial_of(folder, data_set)
    assert "'lowercase': False" in caplog.text
    assert "not {" in caplog.text


def test_other_shape_than_asked_for_is_refused_with_both(folder: Path, data_set: DataSet) -> None:
    tiny = ModelOptions.of_size("tiny", vocab_size=120)
    with pytest.raises(
        TrainingError, match=r"hidden_size is 128, there 32; .*max_position_embeddings is 512, there 64"
    ):
        initial_of(folder, data_set, options=tiny)


def test_shape_is_that_of_the_weights(folder: Path, data_set: DataSet) -> None:
    found = initial_model_options(folder, vocab_size=120, hidden_dropout_prob=0.1, max_seq_length=64)
    assert found == OPTIONS
    with pytest.raises(TrainingError, match=r"up to 65 tokens, the model of --init .* has 64 positions"):
        initial_model_options(folder, vocab_size=120, hidden_dropout_prob=0.1, max_seq_length=65)
    request = Request(out="run", settings={"init": str(folder)})
    data = TrainingData(data_sets=(data_set,))
    options = choose(request, data=data, device_type="cpu", world_size=1, before=None).options
    assert (options.model, options.init) == (OPTIONS, str(folder))


def test_run_gives_its_newest_checkpoint_else_its_export(data_set: DataSet, tmp_path: Path) -> None:
    train_on(data_set, options_for(tmp_path / "run", max_steps=6))
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    options = options_for(tmp_path).model
    initial = initial_of(tmp_path / "run", data_set, options=options)
    assert initial.step == 6
    assert initial.optimizer is not None
    assert initial.optimizer["state"].keys() == checkpoint["optimizer"]["state"].keys()
    model = build_model(options, seed=77)
    put_weights(model, initial.weights)
    for name, tensor in checkpoint["model"].items():
        assert torch.equal(model.state_dict()[name], tensor), name

    shutil.rmtree(tmp_path / "run" / "checkpoints")
    exported = initial_of(tmp_path / "run", data_set, options=options)
    assert (exported.step, exported.optimizer) == (None, None)
    assert exported.weights.keys() == initial.weights.keys()
    assert all(torch.equal(one, initial.weights[name][: len(one)]) for name, one in exported.weights.items())


def test_run_of_another_tokenizer_is_refused(data_set: DataSet, tmp_path: Path) -> None:
    train_on(data_set, options_for(tmp_path / "run", max_steps=2))
    shutil.rmtree(tmp_path / "run" / "hf")  # as of a run that was stopped
    options = options_for(tmp_path).model
    initial_of(tmp_path / "run", make_data_set(tmp_path / "other", seed=9), options=options)  # of the same tokenizer
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint["tokenizer"] == data_set.manifest.tokenizer.sha256
    info = dataclasses.replace(data_set.manifest.tokenizer, sha256="0" * 64)
    other = dataclasses.replace(data_set, manifest=dataclasses.replace(data_set.manifest, tokenizer=info))
    with pytest.raises(TrainingError, match="was trained with another tokenizer"):
        initial_of(tmp_path / "run", other, options=options)


def test_next_sentence_head_that_was_never_trained_is_new(data_set: DataSet, tmp_path: Path) -> None:
    single = make_data_set(tmp_path / "single", next_sentence="none")
    train_on(single, options_for(tmp_path / "run", max_steps=2, next_sentence=False))
    options = options_for(tmp_path).model
    initial = initial_of(tmp_path / "run", data_set, options=options)
    assert {name.split(".")[1] for name in initial.new} == {"pooler", "seq_relationship"}
    assert not initial_of(tmp_path / "run", data_set, options=options, next_sentence=False).new


def test_training_begins_with_the_weights_and_reads_them_once(data_set: DataSet, tmp_path: Path, folder: Path) -> None:
    def options(steps: int) -> Any:
        return options_for(
            tmp_path / "run", model=OPTIONS, max_steps=steps, init=str(folder), learning_rate=1e-9, warmup_steps=0
        )

    train_on(data_set, options(1))
    expected = hf_weights(build_model(OPTIONS, seed=3))
    exported = load_file(tmp_path / "run" / "hf" / "model.safetensors")
    assert all(torch.allclose(exported[name], one, rtol=0, atol=1e-7) for name, one in expected.items())
    shutil.rmtree(folder)
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert [row["step"] for row in train_on(data_set, options(2), checkpoint=checkpoint)][-1] == 2
    with pytest.raises(TrainingError, match="is not there"):
        train_on(data_set, options_for(tmp_path / "new", model=OPTIONS, init=str(folder)))
