import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from trainer.checkpoint import check_continues
from trainer.config import MODEL_SIZES, ModelOptions, TrainOptions, load_model_options
from trainer.data import TrainingData
from trainer.defaults import Choice, Request
from trainer.defaults import choose as choose_for


def choose(*arguments: Any, **options: Any) -> TrainOptions:
    return choice(*arguments, **options).options


def choice(
    data_set: DataSet,
    *,
    device_type: str = "cpu",
    world_size: int = 1,
    before: dict[str, Any] | None = None,
    **given: Any,
) -> Choice:
    request_fields = {name: given.pop(name, None) for name in ("size", "config", "epochs", "hidden_dropout")}
    request = Request(out="run", settings=given, **request_fields)
    data = TrainingData(data_sets=(data_set,))
    return choose_for(request, data=data, device_type=device_type, world_size=world_size, before=before)


def test_defaults_follow_the_data_set(data_set: DataSet) -> None:
    options = choose(data_set)
    assert options.model == ModelOptions.of_size("tiny", vocab_size=120)
    assert options.batch_size == 2  # 160 samples
    assert options.max_steps == 640  # 8 epochs
    assert options.precision == "fp32"
    on_gpu = choose(data_set, device_type="cuda", size="base", batch_size=4096)
    assert on_gpu.micro_batch_size == 32768 // 24


def test_processes_can_share_the_batch_that_is_chosen(new_data_set: Callable[..., DataSet]) -> None:
    many = new_data_set(train_blocks=((1000,) * 26,), num_mask_sets=0, max_seq_length=8)
    plans = TrainingData(data_sets=(many,))
    for world_size in range(1, 65):  # 192 is 64 lanes, which 3 processes cannot share
        batch_size = choose(many, device_type="cuda", world_size=world_size).batch_size
        plan = plans.make_plan(plans.initial_state(seed=0, batch_size=batch_size))
        assert len(plan.lanes_of(0, world_size=world_size)) * world_size == plan.num_lanes
        assert 64 <= batch_size <= 256
    assert choose(many, device_type="cuda", world_size=3).batch_size == 96
    assert choose(many, device_type="cuda", world_size=8).batch_size == 256


def test_half_precision_on_a_cpu_is_for_who_asks(data_set: DataSet) -> None:
    assert [choose(data_set).precision, choose(data_set, precision="bf16").precision] == ["fp32", "bf16"]


def test_what_is_given_is_taken(data_set: DataSet) -> None:
    given = {"batch_size": 16, "learning_rate": 0.5, "seed": 7, "save_every": 3, "keep": 9, "log_every": 2}
    options = choose(data_set, size="mini", epochs=2.5, hidden_dropout=0.0, **given)
    assert {name: getattr(options, name) for name in given} == given
    assert options.max_steps == 25
    assert options.model == ModelOptions.of_size("mini", vocab_size=120, hidden_dropout_prob=0.0)


def test_continued_run_keeps_what_is_not_given(data_set: DataSet) -> None:
    first = choose(data_set, size="small", batch_size=32, max_steps=90, learning_rate=0.25, seed=3, hidden_dropout=0.2)
    again = choose(data_set, before=first.to_json())
    assert again == first
    on_gpu = choose(data_set, before=first.to_json(), device_type="cuda")
    assert (on_gpu.model, on_gpu.batch_size, on_gpu.max_steps) == (first.model, 32, 90)
    assert choose(data_set, before=first.to_json(), max_steps=200).warmup_steps == 20


@pytest.mark.parametrize("part", [{"schedule_steps": 500}, {"schedule_start": 100}])
def test_run_of_a_longer_schedule_keeps_its_warm_up(data_set: DataSet, part: dict[str, int]) -> None:
    first = choose(data_set, max_steps=90, warmup_steps=77, **part)
    again = choice(data_set, before=first.to_json(), max_steps=200)
    assert (again.options.warmup_steps, again.origins["warmup_steps"]) == (77, "checkpoint")
    assert choose(data_set, before=first.to_json(), max_steps=200, warmup_steps=3).warmup_steps == 3


def test_run_of_its_own_schedule_says_that_its_warm_up_is_another(
    data_set: DataSet, caplog: pytest.LogCaptureFixture
) -> None:
    first = choose(data_set, max_steps=90, warmup_steps=77)
    again = choice(data_set, before=first.to_json(), max_steps=200)
    assert (again.options.warmup_steps, again.origins["warmup_steps"]) == (20, "default")
    data = TrainingData(data_sets=(data_set,)).initial_state(seed=0, batch_size=first.batch_size)
    state = {"options": first.to_json(), "data": data.to_json(), "step": 3}
    with caplog.at_level("INFO"):
        check_continues(state, options=again.options.to_json(), data=data, folder=Path("run"))
    assert "continuing with warmup_steps 20 instead of 77" in caplog.messages


def test_value_comes_from_the_first_that_has_one(data_set: DataSet) -> None:
    first = choice(data_set, preset="bert-base", learning_rate=3e-4, max_steps=7)
    options, origins = first.options, first.origins
    assert (options.learning_rate, options.warmup_steps, options.batch_size) == (3e-4, 10_000, 256)
    assert options.model.num_hidden_layers == 12
    assert set(origins) == set(options.to_json())
    assert [origins[name] for name in ("learning_rate", "max_steps")] == ["given", "given"]
    assert [origins[name] for name in ("model", "warmup_steps", "batch_size", "phase")] == ["preset"] * 4
    assert [origins[name] for name in ("micro_batch_size", "seed", "precision", "eval_every")] == ["default"] * 4

    again = choice(data_set, preset="bert-base", before=options.to_json(), weight_decay=0.5)
    assert again.options == TrainOptions.from_json(options.to_json() | {"weight_decay": 0.5})
    assert [again.origins[name] for name in ("learning_rate", "warmup_steps")] == ["checkpoint"] * 2
    assert again.origins["weight_decay"] == "given"
    assert choice(data_set, size="tiny", preset="bert-base").origins["model"] == "given"
    assert choice(data_set, epochs=2).origins["max_steps"] == "given"


def test_preset_may_be_shortened(data_set: DataSet) -> None:
    options = choose(data_set, preset="mosaicbert-base", max_steps=70, schedule_steps=70, warmup_steps=4)
    assert (options.schedule_steps, options.decay_to, options.adam_beta2) == (70, 0.02, 0.98)


def test_lamb_gets_the_rate_of_its_paper(data_set: DataSet) -> None:
    options = choose(data_set, size="large", optimizer="lamb", batch_size=512)
    assert options.learning_rate == pytest.approx(6.25e-4, rel=0.01)
    assert choose(data_set, size="large", optimizer="lamb", batch_size=32_768).learning_rate == pytest.approx(
        5e-3, rel=0.01
    )


def test_next_sentence_follows_the_shards(new_data_set: Callable[..., DataSet]) -> None:
    assert not choose(new_data_set(next_sentence="none")).next_sentence


def test_options_survive_json(data_set: DataSet) -> None:
    options = choose(data_set, eval_every=3)
    assert TrainOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_data_set_without_training_samples_is_refused(new_data_set: Callable[..., DataSet]) -> None:
    with pytest.raises(TrainingError, match="no training samples"):
        choose(new_data_set(train_blocks=()))


def test_samples_longer_than_the_model_are_refused(data_set: DataSet, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG | {"max_position_embeddings": 20}))
    with pytest.raises(TrainingError, match="up to 24 tokens, the model 20 positions"):
        choose(data_set, config=path)


CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 30522,
    "num_hidden_layers": 3,
    "hidden_size": 60,
    "num_attention_heads": 5,
    "intermediate_size": 99,
    "max_position_embeddings": 128,
    "attention_probs_dropout_prob": 0.1,
    "some_other_key": True,
}


def test_config_file_gives_the_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    options = load_model_options(tmp_path, vocab_size=120, hidden_dropout_prob=0.1)
    assert (options.vocab_size, options.hidden_size, options.max_position_embeddings) == (120, 60, 128)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "cannot be read"),
        ("[]", "no JSON object"),
        (json.dumps(CONFIG | {"model_type": "roberta"}), "model_type is 'roberta'"),
        (json.dumps(CONFIG | {"hidden_act": "relu"}), "hidden_act is 'relu'"),
        (json.dumps({"model_type": "bert"}), "config.json describes no model: .* missing"),
        (json.dumps(CONFIG | {"num_attention_heads": 7}), "config.json describes no model: .* multiple of its 7"),
        *(
            (json.dumps(CONFIG | {name: value}), f"config.json describes no model: the model's {name} is .* from 1 on")
            for name, value in (("hidden_size", 60.0), ("num_hidden_layers", "2"), ("max_position_embeddings", 0))
        ),
        *(
            (json.dumps(CONFIG | {name: value}), f"config.json describes no model: the model's {name} is .* from 0 on")
            for name, value in (("layer_norm_eps", "1e-12"), ("initializer_range", -1.0), ("layer_norm_eps", None))
        ),
    ],
)
def test_config_file_that_is_no_bert_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message):
        load_model_options(path, vocab_size=120, hidden_dropout_prob=0.1)


def test_sizes_are_the_published_ones() -> None:
    assert {name: shape[:2] for name, shape in MODEL_SIZES.items()} == {
        "tiny": (2, 128),
        "mini": (4, 256),
        "small": (4, 512),
        "base": (12, 768),
        "large": (24, 1024),
    }
    assert ModelOptions.of_size("base", vocab_size=30522).padded_vocab_size == 30528


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"keep": 0},
        {"eval_every": 0},
        {"learning_rate": 0.0},
        {"warmup_steps": 99, "max_steps": 9},
        {"seed": -1},
        {"weight_decay": -0.1},
        {"max_grad_norm": -1.0},
        {"adam_beta2": 1.0},
        {"adam_epsilon": 0.0},
        {"decay_power": 0.0},
        {"decay_to": 1.5},
        {"schedule_start": -1},
        {"schedule_steps": 3, "max_steps": 4},
        {"schedule_steps": 9, "max_steps": 4, "schedule_start": 6},
    ],
)
def test_options_that_cannot_be_are_refused(data_set: DataSet, change: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="--"):
        TrainOptions.from_json(choose(data_set).to_json() | change)


def test_short_runs_save_more_often(data_set: DataSet) -> None:
    assert choose(data_set, max_steps=100).save_every == 5
    assert choose(data_set, max_steps=1_000_000).save_every == 1000
