"""Runs that convince: what must be learned is learned, and what cannot be learned is not.

All go through `trainer.train.train`, as runs do; only the data are made for the purpose.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig
from transformers import BertForPreTraining as HfBertForPreTraining

from bertdata.data_set import DataSet
from bertdata.seeds import stage_key
from trainer.config import ModelOptions, TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.export import hf_config, hf_weights
from trainer.loader import Loader
from trainer.metrics import pretraining_sums
from trainer.model import build_model
from trainer.train import train

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def model_of(size: int, *, dropout: float = 0.0) -> ModelOptions:
    return ModelOptions(
        vocab_size=120,
        num_hidden_layers=2,
        hidden_size=size,
        num_attention_heads=2,
        intermediate_size=4 * size,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
    )


def run(data_set: DataSet, out: Path, **changes: Any) -> list[dict[str, Any]]:
    values: dict[str, Any] = {
        "out": str(out),
        "batch_size": 32,
        "warmup_steps": 10,
        "log_every": 1,
        "save_every": 10**6,
    }
    values |= {"pad_to_multiple": 64}  # a step is one micro-batch then, which saves half of the time
    values |= {"micro_batch_size": changes.get("batch_size", 32)} | changes
    return train(TrainingData(data_sets=(data_set,)), TrainOptions(**values), world=ALONE)


def of_kind(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def test_one_batch_is_learned_by_heart(new_data_set: Callable[..., DataSet], tmp_path: Path) -> None:
    data_set = new_data_set(train_blocks=((16,),), eval_blocks=(), num_mask_sets=1)  # every batch is the same one
    rows = run(data_set, tmp_path, model=model_of(64), batch_size=16, max_steps=150, learning_rate=3e-3, log_every=10)
    first, last = of_kind(rows, "train")[0], of_kind(rows, "train")[-1]
    assert first["mlm_loss"] > 3.5
    assert last["mlm_loss"] < 0.02
    assert last["nsp_loss"] < 0.02
    assert last["mlm_accuracy"] == last["nsp_accuracy"] == 1


LEARNABLE = {"train_blocks": ((500,) * 8,), "eval_blocks": ((500,),)}


@pytest.mark.slow
def test_next_sentences_are_learned_where_the_text_tells(new_data_set: Callable[..., DataSet], tmp_path: Path) -> None:
    """The counterpart of the next test: the same data with their own labels."""
    rows = run(
        new_data_set(**LEARNABLE), tmp_path, model=model_of(64), max_steps=300, learning_rate=4e-3, eval_every=300
    )
    assert of_kind(rows, "eval")[-1]["nsp_accuracy"] > 0.85


@pytest.mark.slow
def test_labels_drawn_at_random_stay_a_toss_of_a_coin(new_data_set: Callable[..., DataSet], tmp_path: Path) -> None:
    """A label that could be told from the text, the masks or the order of the samples would show here."""
    data_set = new_data_set(**LEARNABLE, random_labels=True)
    rows = run(data_set, tmp_path, model=model_of(64), max_steps=250, learning_rate=5e-3, eval_every=250)
    held_out = of_kind(rows, "eval")[-1]
    assert abs(held_out["nsp_accuracy"] - 0.5) < 4 * math.sqrt(0.25 / held_out["num_samples"])
    assert held_out["nsp_loss"] > 0.68
    assert held_out["mlm_loss"] < 3.5  # words are learned all the same
    # No sample is shown for the first time after step 125, and few can be learned by heart until then.
    fresh = [row["nsp_accuracy"] for row in of_kind(rows, "train")[:125]]
    assert abs(sum(fresh) / len(fresh) - 0.5) < 4 * math.sqrt(0.25 / (32 * len(fresh)))


@pytest.mark.slow
def test_compiled_model_has_the_same_curve(data_set: DataSet, tmp_path: Path) -> None:
    """Without dropout, step by step, MLM and NSP apart, and the norm of the gradient."""
    curves = [
        of_kind(run(data_set, tmp_path / str(compiled), compile=compiled, model=model_of(32), max_steps=30, learning_rate=2e-3), "train")
        for compiled in (False, True)
    ]  # fmt: skip
    for eager, compiled in zip(*curves, strict=True):
        for name in ("mlm_loss", "nsp_loss", "grad_norm"):
            assert compiled[name] == pytest.approx(eager[name], rel=2e-4), (eager["step"], name)
    assert curves[0][-1]["mlm_loss"] < curves[0][0]["mlm_loss"] - 0.5


@pytest.mark.slow
def test_dropout_of_the_compiled_model_is_distributed_as_that_of_the_eager_one(data_set: DataSet) -> None:
    """Compiled code draws other numbers, so what is compared is the loss of one batch over many draws: its mean and
    its spread, of which the first grows, and the second appears, with the share of values that are dropped."""
    data = TrainingData(data_sets=(data_set,))
    plan = data.make_plan(data.initial_state(seed=0, batch_size=32))
    loader = Loader(
        plan, data.open_split("train"), rank=0, world_size=1, cutting=data.make_cutting(micro_batch_size=32)
    )
    (batch,) = next(iter(loader.steps(0, 1))).micro_batches
    losses = []
    for compiled in (False, True):
        model = build_model(dataclasses.replace(model_of(32, dropout=0.3), initializer_range=0.3), seed=1)
        if compiled:
            model.compile(dynamic=True)
        drawn = []
        for seed in range(100):
            torch.manual_seed(seed)
            with torch.no_grad():
                outputs = model(batch)
            drawn.append(float(pretraining_sums(outputs, batch)[0]) / len(batch.mask_labels))
        losses.append(torch.tensor(drawn, dtype=torch.float64))
    eager, compiled_losses = losses
    error = (eager.var() / 100 + compiled_losses.var() / 100).sqrt()
    assert abs(eager.mean() - compiled_losses.mean()) < 4 * error
    assert 0.7 < compiled_losses.std() / eager.std() < 1.4
    assert eager.std() > 0.01 * eager.mean()


@pytest.mark.slow
def test_losses_are_those_of_a_plain_loop_over_transformers(data_set: DataSet, tmp_path: Path) -> None:
    """Same samples and masks, same initial weights, AdamW, schedule and clipping, each stated here once more."""
    steps, warmup, peak = 25, 5, 2e-3
    options = model_of(32)
    rows = run(
        data_set,
        tmp_path,
        model=options,
        max_steps=steps,
        warmup_steps=warmup,
        learning_rate=peak,
        pad_to_multiple=None,
    )
    data = TrainingData(data_sets=(data_set,))
    plan = data.make_plan(data.initial_state(seed=0, batch_size=32))
    cutting = data.make_cutting(micro_batch_size=32)
    loader = Loader(plan, data.open_split("train"), rank=0, world_size=1, cutting=cutting)
    theirs = HfBertForPreTraining(BertConfig(**hf_config(options, pad_token_id=0)))
    begin = build_model(options, seed=stage_key(0, "initial-weights"))
    missing, unexpected = theirs.load_state_dict(hf_weights(begin), strict=False)
    assert not unexpected
    assert all("decoder" in name or "position_ids" in name for name in missing)  # tied to what was loaded
    theirs.tie_weights()
    plain = [name for name, _ in theirs.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    groups = [
        {"params": [one for name, one in theirs.named_parameters() if name not in plain], "weight_decay": 0.01},
        {"params": [one for name, one in theirs.named_parameters() if name in plain], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.999), eps=1e-6)
    theirs.train()
    losses, norms = [], []
    for step, batches in enumerate(loader.steps(0, steps)):
        (batch,) = batches.micro_batches
        rate = peak * ((step + 1) / warmup if step < warmup else (steps - step) / (steps - warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = theirs(**batch.padded(pad_token_id=0)).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    trained = of_kind(rows, "train")
    assert [row["loss"] for row in trained] == pytest.approx(losses, rel=1e-4)
    assert [row["grad_norm"] for row in trained] == pytest.approx(norms, rel=1e-3)
    assert losses[-1] < losses[0] - 0.5
