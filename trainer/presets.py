"""Published recipes by name: the options that they set, phase by phase, and what of them is not the trainer's.

Every figure was read in the source that its preset names. A preset sets options and nothing else: one that is given
comes before it, and what it asks of the data set is compared with the shards, and said where it differs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertdata.errors import TrainingError

if TYPE_CHECKING:
    from trainer.data import TrainingData

__all__ = ["PRESETS", "Phase", "Preset", "find_mismatches", "find_phase"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A run of a recipe.

    Attributes:
        max_seq_length: Longest sample of its shards, in tokens.
        settings: Values for fields of `trainer.config.TrainOptions`.
        needs_weights: Whether it begins with the weights of the phase before.
        continues_schedule: Whether it goes on in the schedule of the phase before, at the step where that ended.
    """

    max_seq_length: int
    settings: dict[str, Any]
    needs_weights: bool = False
    continues_schedule: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A recipe.

    Attributes:
        title: What it is, for the message at the start.
        size: Name of the model's size, see `trainer.config.MODEL_SIZES`.
        phases: Its runs, in their order.
        source: Paper, and the files that the figures are from.
        next_sentence: Whether its shards have next sentences.
        masked_lm_prob: Share of positions that its shards mask.
        settings: Values that all phases share.
        differences: What its authors did and this trainer does not.
    """

    title: str
    size: str
    phases: tuple[Phase, ...]
    source: str
    next_sentence: bool = True
    masked_lm_prob: float = 0.15
    settings: dict[str, Any] = field(default_factory=dict)
    differences: tuple[str, ...] = ()


_ATTENTION_DROPOUT = "attention weights have no dropout here, 0.1 there"

_COMMON: dict[str, Any] = {
    "optimizer": "adamw",
    "decay_power": 1.0,
    "decay_from": "peak",
    "decay_to": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-6,
    "bias_correction": True,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
}
"""What a recipe below does not say itself, it has in common with this; no recipe leaves one of these to chance."""

_DEVLIN_PHASES = (
    Phase(max_seq_length=128, settings={"max_steps": 900_000, "schedule_start": 0}),
    Phase(
        max_seq_length=512,
        settings={"max_steps": 100_000, "schedule_start": 900_000, "init_optimizer": True},
        needs_weights=True,
        continues_schedule=True,
    ),
)
_DEVLIN = _COMMON | {
    "batch_size": 256,
    "learning_rate": 1e-4,
    "warmup_steps": 10_000,
    "schedule_steps": 1_000_000,
    "decay_from": "start",
    "bias_correction": False,
}
_DEVLIN_SOURCE = (
    "Devlin et al. 2018 (arXiv 1810.04805), appendix A.2; google-research/bert, optimization.py (optimizer, decay "
    "counted from step 0, clipping) and README.md (phases)"
)

PRESETS: dict[str, Preset] = {
    "bert-base": Preset(
        title="BERT-base as published",
        size="base",
        phases=_DEVLIN_PHASES,
        source=_DEVLIN_SOURCE,
        settings=_DEVLIN,
        differences=(_ATTENTION_DROPOUT,),
    ),
    "bert-large": Preset(
        title="BERT-large as published",
        size="large",
        phases=_DEVLIN_PHASES,
        source=_DEVLIN_SOURCE,
        settings=_DEVLIN,
        differences=(_ATTENTION_DROPOUT,),
    ),
    "lamb-large": Preset(
        title="BERT-large with LAMB, NVIDIA's DeepLearningExamples",
        size="large",
        phases=(
            Phase(
                max_seq_length=128,
                settings={
                    "batch_size": 65_536,  # 8 GPUs times 8,192
                    "max_steps": 7_038,
                    "learning_rate": 6e-3,
                    "warmup_steps": 2_000,  # a share of 0.2843
                    "schedule_steps": 7_038,
                    "schedule_start": 0,
                },
            ),
            Phase(
                max_seq_length=512,
                needs_weights=True,
                settings={
                    "batch_size": 32_768,
                    "max_steps": 1_563,
                    "learning_rate": 4e-3,
                    "warmup_steps": 200,  # a share of 0.128
                    "schedule_steps": 1_563,
                    "schedule_start": 0,
                    "init_optimizer": True,
                },
            ),
        ),
        source=(
            "NVIDIA/DeepLearningExamples, PyTorch/LanguageModeling/BERT: scripts/configs/pretrain_config.sh "
            "(dgxa100_8gpu_fp16), run_pretraining.py, schedulers.py (PolyWarmUpScheduler), "
            "lamb_amp_opt/fused_lamb/fused_lamb.py (betas, epsilon, clipping); You et al. 2020 (arXiv 1904.00962)"
        ),
        settings=_COMMON | {"optimizer": "lamb", "decay_power": 0.5, "decay_from": "start"},
        differences=(
            _ATTENTION_DROPOUT,
            "phase 2 keeps the optimizer's step count, which begins anew there",
            "their samples have at most 20 predictions at 128 tokens and 80 at 512 (--max-predictions-per-seq)",
        ),
    ),
    "academic-24h": Preset(
        title="BERT-large in a day on eight small GPUs, Izsak et al. 2021",
        size="large",
        phases=(
            Phase(
                max_seq_length=128,
                settings={
                    "max_steps": 23_000,
                    "warmup_steps": 1_380,  # a share of 0.06
                    "schedule_steps": 23_000,
                    "schedule_start": 0,
                },
            ),
        ),
        source=(
            "Izsak, Berchansky and Levy 2021 (arXiv 2104.07705); IntelLabs/academic-budget-bert, README.md (the "
            "command of the best configuration), pretraining/schedules.py, issue 18 (22,000 to 23,000 steps in the day)"
        ),
        next_sentence=False,
        settings=_COMMON | {"batch_size": 4_096, "learning_rate": 1e-3, "adam_beta2": 0.98, "max_grad_norm": 0.0},
        differences=(
            _ATTENTION_DROPOUT,
            "LayerNorm comes before each sublayer there (pre-LN), after it here, as published by Devlin et al.: at "
            "this rate and without clipping a large post-LN model may diverge; then lower --learning-rate, or give "
            "--max-grad-norm 1",
            "the rate follows the clock there, 24 hours, and the steps here",
        ),
    ),
    "mosaicbert-base": Preset(
        title="MosaicBERT-base, Portes et al. 2023",
        size="base",
        phases=(
            Phase(
                max_seq_length=128,
                settings={
                    "max_steps": 70_000,
                    "warmup_steps": 4_200,  # a share of 0.06
                    "schedule_steps": 70_000,
                    "schedule_start": 0,
                },
            ),
        ),
        source=(
            "Portes et al. 2023 (arXiv 2312.17482); mosaicml/examples, "
            "examples/benchmarks/bert/yamls/main/mosaic-bert-base-uncased.yaml; mosaicml/composer, "
            "optim/decoupled_weight_decay.py and optim/scheduler.py"
        ),
        next_sentence=False,
        masked_lm_prob=0.3,
        settings=_COMMON
        | {
            "batch_size": 4_096,
            "learning_rate": 5e-4,
            "decay_to": 0.02,
            "adam_beta2": 0.98,
            "weight_decay": 0.02,  # 1e-5 a step at the peak, not times the rate: 1e-5 / 5e-4
            "max_grad_norm": 0.0,
        },
        differences=(
            "the model is BERT as published, not theirs (ALiBi, gated linear units)",
            "biases and LayerNorm do not decay here",
        ),
    ),
}


def find_phase(name: str, phase: int | None) -> tuple[Preset, Phase]:
    """Returns a preset, and one of its phases with the values that all share.

    Args:
        name: Name of the preset.
        phase: Number of the phase, from 1; None for the first.

    Raises:
        TrainingError: There is no such preset, or no such phase of it.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise TrainingError(f"--preset is {name!r}; it may be {', '.join(PRESETS)}")
    number = phase or 1
    if number > len(preset.phases):
        raise TrainingError(f"--phase is {number}; the preset {name} has {_count(len(preset.phases), 'phase')}")
    found = preset.phases[number - 1]
    return preset, dataclasses.replace(found, settings=preset.settings | found.settings)


def find_mismatches(preset: Preset, phase: Phase, *, data: TrainingData) -> list[str]:
    """Returns in what the data set is not what a preset was published with, and how to build what is."""
    found = []
    if data.max_seq_length != phase.max_seq_length:
        found.append(
            f"the data set's samples have up to {data.max_seq_length} tokens, the recipe's {phase.max_seq_length} "
            f"(bertdata build --max-seq-length {phase.max_seq_length})"
        )
    if data.has_next_sentence and not preset.next_sentence:
        found.append("the data set has next sentences, the recipe none (bertdata build --next-sentence none)")
    if not data.has_next_sentence and preset.next_sentence:
        found.append("the data set has no next sentences, the recipe has (bertdata build --next-sentence google)")
    shares = sorted({options.masks.masked_lm_prob for options in data.options})
    if shares != [preset.masked_lm_prob]:
        found.append(
            f"the data set masks {', '.join(f'{share:g}' for share in shares)} of the positions, the recipe "
            f"{preset.masked_lm_prob:g} (bertdata build --masked-lm-prob {preset.masked_lm_prob:g})"
        )
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"
