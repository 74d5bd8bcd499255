from collections.abc import Callable
from typing import Any

import pytest

from bertdata.data_set import DataSet
from bertdata.errors import TrainingError
from trainer.config import MODEL_SIZES, ModelOptions, TrainOptions
from trainer.data import TrainingData
from trainer.presets import PRESETS, Phase, find_mismatches, find_phase
from trainer.schedule import learning_rate_at

MODEL = ModelOptions(vocab_size=9, num_hidden_layers=1, hidden_size=4, num_attention_heads=1, intermediate_size=8)

# As read in the sources that the presets name.
PUBLISHED: list[tuple[Any, ...]] = [
    # name, phase, size, tokens, batch, steps, rate, warm-up, beta2, decay, clipping, NSP, masks
    ("bert-base", 1, "base", 128, 256, 900_000, 1e-4, 10_000, 0.999, 0.01, 1.0, True, 0.15),
    ("bert-base", 2, "base", 512, 256, 100_000, 1e-4, 10_000, 0.999, 0.01, 1.0, True, 0.15),
    ("bert-large", 1, "large", 128, 256, 900_000, 1e-4, 10_000, 0.999, 0.01, 1.0, True, 0.15),
    ("bert-large", 2, "large", 512, 256, 100_000, 1e-4, 10_000, 0.999, 0.01, 1.0, True, 0.15),
    ("lamb-large", 1, "large", 128, 65_536, 7_038, 6e-3, 0.2843 * 7_038, 0.999, 0.01, 1.0, True, 0.15),
    ("lamb-large", 2, "large", 512, 32_768, 1_563, 4e-3, 0.128 * 1_563, 0.999, 0.01, 1.0, True, 0.15),
    ("academic-24h", 1, "large", 128, 4_096, 23_000, 1e-3, 0.06 * 23_000, 0.98, 0.01, 0.0, False, 0.15),
    ("mosaicbert-base", 1, "base", 128, 4_096, 286_720_000 // 4_096, 5e-4, 0.06 * 70_000, 0.98, 0.02, 0.0, False, 0.3),
]


def options_of(phase: Phase) -> TrainOptions:
    return TrainOptions(out="run", model=MODEL, micro_batch_size=1, init="run", **phase.settings)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row[0]}-{row[1]}")
def test_preset_has_the_published_figures(row: tuple[Any, ...]) -> None:
    name, number, size, tokens, batch, steps, rate, warmup, beta2, decay, clipping, nsp, masks = row
    preset, phase = find_phase(name, number)
    options = options_of(phase)
    assert (preset.size, phase.max_seq_length, preset.next_sentence) == (size, tokens, nsp)
    assert preset.masked_lm_prob == masks
    assert (options.batch_size, options.max_steps, options.learning_rate) == (batch, steps, rate)
    assert abs(options.warmup_steps - warmup) < 1
    assert (options.adam_beta1, options.adam_beta2, options.adam_epsilon) == (0.9, beta2, 1e-6)
    assert (options.weight_decay, options.max_grad_norm) == (decay, clipping)
    assert options.optimizer == ("lamb" if name == "lamb-large" else "adamw")
    assert options.bias_correction == (not name.startswith("bert-"))


def test_presets_say_where_they_are_from_and_leave_no_part_of_a_recipe_out() -> None:
    assert {(row[0], row[1]) for row in PUBLISHED} == {
        (name, number) for name, preset in PRESETS.items() for number in range(1, len(preset.phases) + 1)
    }
    every = {"batch_size", "max_steps", "learning_rate", "warmup_steps", "optimizer", "weight_decay", "max_grad_norm"}
    every |= {"adam_beta1", "adam_beta2", "adam_epsilon", "bias_correction"}
    every |= {"schedule_steps", "schedule_start", "decay_power", "decay_from", "decay_to"}
    for name, preset in PRESETS.items():
        assert preset.size in MODEL_SIZES
        assert "arXiv" in preset.source
        assert "/" in preset.source
        for number in range(1, len(preset.phases) + 1):
            settings = find_phase(name, number)[1].settings
            assert set(settings) - {"init_optimizer"} == every


@pytest.mark.parametrize("name", ["bert-base", "bert-large"])
def test_the_published_bert_has_one_schedule_over_both_phases(name: str) -> None:
    phases = [options_of(find_phase(name, number)[1]) for number in (1, 2)]
    last, first = learning_rate_at(899_999, phases[0]), learning_rate_at(0, phases[1])
    assert last == pytest.approx(1e-4 * 100_001 / 1_000_000)
    assert first == pytest.approx(1e-4 * 100_000 / 1_000_000)
    assert learning_rate_at(99_999, phases[1]) == pytest.approx(1e-10)
    assert learning_rate_at(10_000, phases[0]) == pytest.approx(1e-4 * 0.99)  # as Google's code has it


def test_lamb_begins_a_schedule_of_its_own_in_phase_2() -> None:
    phases = [options_of(find_phase("lamb-large", number)[1]) for number in (1, 2)]
    assert learning_rate_at(7_037, phases[0]) == pytest.approx(6e-3 * (1 / 7_038) ** 0.5)
    assert learning_rate_at(0, phases[1]) == pytest.approx(4e-3 / 200)
    assert max(learning_rate_at(step, phases[1]) for step in range(1_563)) == 4e-3


def test_mosaicbert_ends_at_a_share_of_its_rate() -> None:
    options = options_of(find_phase("mosaicbert-base", 1)[1])
    assert learning_rate_at(69_999, options) == pytest.approx(0.02 * 5e-4, rel=1e-2)
    # Their decay of 1e-5 a step follows the schedule but is not multiplied by the rate; ours is.
    assert options.learning_rate * options.weight_decay == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("name", "phase", "message"),
    [
        ("roberta", None, "--preset is 'roberta'; it may be bert-base, bert-large"),
        ("bert-base", 3, "--phase is 3; the preset bert-base has 2 phases"),
        ("academic-24h", 2, "has 1 phase$"),
    ],
)
def test_preset_or_phase_that_is_not_there_is_refused(name: str, phase: int | None, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        find_phase(name, phase)


def test_data_set_that_a_recipe_was_not_published_with_is_said(new_data_set: Callable[..., DataSet]) -> None:
    def mismatches(name: str, **options: Any) -> str:
        data = TrainingData(data_sets=(new_data_set(**options),))
        return "; ".join(find_mismatches(*find_phase(name, 1), data=data))

    assert mismatches("bert-base", max_seq_length=128) == ""
    assert mismatches("academic-24h", max_seq_length=128, next_sentence="none") == ""
    assert "up to 24 tokens, the recipe's 128 (bertdata build --max-seq-length 128)" in mismatches("bert-base")
    both = mismatches("mosaicbert-base", max_seq_length=128)
    assert "has next sentences, the recipe none (bertdata build --next-sentence none)" in both
    assert "masks 0.15 of the positions, the recipe 0.3 (bertdata build --masked-lm-prob 0.3)" in both
    assert "no next sentences, the recipe has" in mismatches("bert-base", next_sentence="none")
