import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bertdata.data_set import DataSet, open_data_set
from bertdata.errors import ShardError, TrainingError
from trainer.data import open_training_data, parse_shards

NewDataSet = Callable[..., DataSet]


@pytest.mark.parametrize(
    ("text", "place", "weight"),
    [
        ("wiki", "wiki", None),
        ("wiki:0.7", "wiki", 0.7),
        ("/data/wiki/128:2", "/data/wiki/128", 2.0),
        ("wiki:.5", "wiki", 0.5),
        ("s3://bucket/wiki", "s3://bucket/wiki", None),
        ("s3://bucket/wiki:3", "s3://bucket/wiki", 3.0),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", None),
        ("http://127.0.0.1:8000/wiki", "http://127.0.0.1:8000/wiki", None),
        ("http://127.0.0.1:8000/wiki:0.25", "http://127.0.0.1:8000/wiki", 0.25),
        ("s3://bucket/wiki?endpoint_override=127.0.0.1:5000&scheme=http", "s3://bucket/wiki?endpoint_override=127.0.0.1:5000&scheme=http", None),
        ("wiki:1e3", "wiki:1e3", None),
        (":3", ":3", None),
    ],
)  # fmt: skip
def test_shards_are_a_place_and_maybe_a_weight(text: str, place: str, weight: float | None) -> None:
    assert parse_shards(text) == (place, weight)


def test_shards_may_have_a_colon_in_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wiki:2026").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_shards("wiki:2026") == ("wiki:2026", None)
    assert parse_shards("wiki:2027") == ("wiki", 2027.0)


def test_data_of_several_data_sets(data_set: DataSet, new_data_set: NewDataSet) -> None:
    other = new_data_set(train_blocks=((7,),), eval_blocks=((2,),), max_seq_length=40)
    data = open_training_data([f"{data_set.folder}:3", f"{other.folder}:1"])
    assert data.weights == (3.0, 1.0)
    assert (data.num_samples("train"), data.num_samples("eval")) == (167, 43)
    assert data.max_seq_length == 40
    assert data.make_cutting().max_predictions == 6  # of 40 tokens
    assert str(data) == f"{data_set.folder} (weight 3), {other.folder} (weight 1)"
    reader = data.open_split("train")
    assert reader.num_samples == 167
    assert reader.block_sizes.tolist() == [40, 40, 13, 40, 27, 7]
    assert open_training_data([str(data_set.folder)]).weights is None


def test_weights_are_for_all_or_none(data_set: DataSet) -> None:
    with pytest.raises(TrainingError, match="gives weights to 1 of 2 data sets"):
        open_training_data([f"{data_set.folder}:3", str(data_set.folder)])
    with pytest.raises(TrainingError, match="weight 0 of --shards is not above 0"):
        open_training_data([f"{data_set.folder}:0"])


def test_data_sets_of_other_tokenizers_are_refused(data_set: DataSet, new_data_set: NewDataSet) -> None:
    other = new_data_set()
    tokenizer = json.loads((other.folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    _replace_tokenizer(other, json.dumps(tokenizer))
    with pytest.raises(TrainingError, match="have different tokenizers; build one of them again with --tokenizer"):
        open_training_data([str(data_set.folder), str(other.folder)])


def _replace_tokenizer(data_set: DataSet, text: str) -> None:
    (data_set.folder / "tokenizer.json").write_text(text)
    manifest = json.loads((data_set.folder / "manifest.json").read_text())
    manifest["tokenizer"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (data_set.folder / "manifest.json").write_text(json.dumps(manifest))
    open_data_set(data_set.folder)


@pytest.mark.parametrize(("kind", "fits"), [("balanced", True), ("google", True), ("sop", False), ("none", False)])
def test_data_sets_of_other_labels_are_refused(
    data_set: DataSet, new_data_set: NewDataSet, kind: str, fits: bool
) -> None:
    other = new_data_set(next_sentence=kind)
    places = [str(data_set.folder), str(other.folder)]
    if fits:
        assert open_training_data(places).has_next_sentence
        return
    with pytest.raises(TrainingError, match=f"built with --next-sentence balanced, .* with {kind}: their labels"):
        open_training_data(places)


def test_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="nowhere is no folder"):
        open_training_data([str(tmp_path / "nowhere")])
