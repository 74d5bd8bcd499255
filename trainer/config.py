"""What a training run was asked to do: frozen options that check themselves and go through JSON into the checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bertdata.errors import TrainingError

__all__ = [
    "MODEL_SIZES",
    "CompileMode",
    "DecayFrom",
    "ModelOptions",
    "OptimizerName",
    "Precision",
    "TrainOptions",
    "load_model_options",
]

Precision = Literal["fp32", "bf16"]
OptimizerName = Literal["adamw", "lamb"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"]
DecayFrom = Literal["peak", "start"]

MODEL_SIZES = {  # layers, hidden size, attention heads (Devlin et al. 2018; Turc et al. 2019)
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise TrainingError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """The shape of a BERT, under the names of its published `config.json`.

    Attributes:
        vocab_size: Ids of the vocabulary.
        num_hidden_layers: Transformer layers.
        hidden_size: Width H of the hidden states.
        num_attention_heads: Heads of each attention; must divide `hidden_size`.
        intermediate_size: Width of the feed-forward layers.
        max_position_embeddings: Longest sample in tokens.
        type_vocab_size: Segment kinds; shards use two.
        hidden_dropout_prob: Dropout of embeddings and layer outputs. Attention weights have none, because
            variable-length attention has none.
        initializer_range: Standard deviation of the initial weights.
        layer_norm_eps: Added to variances in LayerNorm.
    """

    vocab_size: int
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        for name, least in {
            **dict.fromkeys(("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads"), 1),
            **dict.fromkeys(("intermediate_size", "max_position_embeddings"), 1),
            "type_vocab_size": 2,
        }.items():
            value = getattr(self, name)
            is_right = isinstance(value, int) and value >= least
            _check(is_right, f"the model's {name} is {value!r}; it must be a whole number from {least} on")
        for name in ("initializer_range", "layer_norm_eps"):
            value = getattr(self, name)
            is_right = isinstance(value, int | float) and 0 <= value < math.inf
            _check(is_right, f"the model's {name} is {value!r}; it must be a number from 0 on")
        _check(
            self.hidden_size % self.num_attention_heads == 0,
            f"the model's hidden_size {self.hidden_size} is not a multiple of its {self.num_attention_heads} attention "
            "heads; change one of the two",
        )
        _check(
            0 <= self.hidden_dropout_prob < 1,
            f"--hidden-dropout is {self.hidden_dropout_prob}; it must be from 0 to below 1",
        )

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the word embeddings: `vocab_size` rounded up to 64, which matrix units like."""
        return -(-self.vocab_size // 64) * 64

    @classmethod
    def of_size(cls, size: str, *, vocab_size: int, hidden_dropout_prob: float = 0.1) -> ModelOptions:
        """Returns one of the published sizes, see `MODEL_SIZES`."""
        layers, hidden_size, heads = MODEL_SIZES[size]
        return cls(
            vocab_size=vocab_size,
            num_hidden_layers=layers,
            hidden_size=hidden_size,
            num_attention_heads=heads,
            intermediate_size=4 * hidden_size,
            hidden_dropout_prob=hidden_dropout_prob,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the options as a dictionary of JSON values."""
        return dataclasses.asdict(self)


def load_model_options(
    path: Path, *, vocab_size: int, hidden_dropout_prob: float, option: str = "--config"
) -> ModelOptions:
    """Reads the shape of a model from a `config.json` as transformers writes it.

    Args:
        path: The file, or a folder that holds one.
        vocab_size: Ids of the data set's tokenizer; the model gets this many, whatever the file says.
        hidden_dropout_prob: Dropout to train with; the file's own, and its attention dropout, are not used.
        option: What named the file, for messages.

    Raises:
        TrainingError: The file cannot be read or describes something else than BERT as published.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{option} {path} cannot be read ({error}); give a config.json of a BERT") from error
    _check(isinstance(values, dict), f"{option} {path} holds no JSON object; give a config.json of a BERT")
    allowed: dict[str, tuple[Any, ...]] = {
        "model_type": ("bert", None),  # the first configurations do not name it
        "hidden_act": ("gelu", None),
        "position_embedding_type": ("absolute", None),
        "is_decoder": (False, None),
        "tie_word_embeddings": (True, None),
    }
    for name, choices in allowed.items():
        _check(
            values.get(name) in choices,
            f"{option} {path}: {name} is {values.get(name)!r}; this trainer builds BERT as published, with {name} "
            f"{choices[0]!r}",
        )
    taken = {field.name for field in dataclasses.fields(ModelOptions)}
    shape = {name: value for name, value in values.items() if name in taken}
    shape |= {"vocab_size": vocab_size, "hidden_dropout_prob": hidden_dropout_prob}
    try:
        return ModelOptions(**shape)
    except (TypeError, TrainingError) as error:  # one that is missing, or is none of a model
        raise TrainingError(f"{option} {path} describes no model: {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """Everything that a run does, with nothing left to choose; see `trainer.defaults` for how it is chosen.

    Attributes:
        out: Folder of the run: checkpoints, metrics and the exported model.
        model: The shape of the model.
        batch_size: Samples of a global batch, over all processes.
        micro_batch_size: Samples that one process computes at a time.
        max_steps: Optimizer steps of the whole run.
        learning_rate: Highest learning rate, reached at the end of the warm-up.
        warmup_steps: Steps of linear warm-up.
        optimizer: "adamw", or "lamb" for large batches.
        weight_decay: Decoupled decay of everything but biases and LayerNorm.
        adam_beta1: Decay of the running mean of gradients.
        adam_beta2: Decay of the running mean of their squares.
        adam_epsilon: Added to the square root of the latter.
        bias_correction: Whether running means are corrected for having begun at 0; the published BERT's are not.
        schedule_steps: Steps, from the first of all phases, at which the decay of the learning rate ends; None for the
            end of this run.
        schedule_start: Steps of earlier phases, which the schedule covers, too.
        decay_power: Power of the decay, see `trainer.schedule.rate_at`; 1 is linear.
        decay_from: Where the decay is counted from: "peak", the end of the warm-up, or "start", the first step.
        decay_to: Share of the highest rate that the decay ends at.
        max_grad_norm: Global norm that gradients are clipped to; 0 for no clipping.
        preset: Name of the recipe that values were taken from; None for no preset.
        phase: Phase of that recipe; None where it has one only.
        init: Run or exported folder that the weights come from; None for new ones.
        init_optimizer: Whether the optimizer's state comes from there, too.
        activation_checkpointing: Whether activations are computed again in the backward pass instead of kept.
        precision: "fp32", or "bf16" for bfloat16 autocast.
        compile: Whether to run the model through torch.compile.
        compile_mode: Its mode: "reduce-overhead" is with CUDA graphs and wants fixed shapes,
            "max-autotune-no-cudagraphs" tries out kernels, which takes minutes.
        next_sentence: Whether the NSP loss is trained; False on shards built with --next-sentence none.
        eval_every: Steps between evaluations; None for the end of every epoch. One always follows the last step.
        eval_samples: Held-out samples to evaluate at most; None for all.
        save_every: Steps between checkpoints. One always follows the last step.
        keep: Newest checkpoints that are kept.
        log_every: Steps that a line of metrics sums up.
        tensorboard: Whether the metrics go to TensorBoard, too.
        num_loader_workers: Threads that prepare batches ahead; 0 for none.
        window_blocks: Blocks whose samples are mixed in a lane, see `trainer.order.Order`; None to go by the shards.
        shuffle_shards: Shards that are shuffled together, see `trainer.order.Order`; None for all.
        pad_to_multiple: Multiple that batches are padded to, for compiled graphs; None for no padding.
        skip_bad_blocks: Whether to go on without damaged blocks.
        seed: Number that all draws of the run are derived from.
    """

    out: str
    model: ModelOptions
    batch_size: int
    micro_batch_size: int
    max_steps: int
    learning_rate: float
    warmup_steps: int
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-6
    bias_correction: bool = True
    schedule_steps: int | None = None
    schedule_start: int = 0
    decay_power: float = 1.0
    decay_from: DecayFrom = "peak"
    decay_to: float = 0.0
    max_grad_norm: float = 1.0
    preset: str | None = None
    phase: int | None = None
    init: str | None = None
    init_optimizer: bool = False
    activation_checkpointing: bool = False
    precision: Precision = "fp32"
    compile: bool = False
    compile_mode: CompileMode = "default"
    next_sentence: bool = True
    eval_every: int | None = None
    eval_samples: int | None = None
    save_every: int = 1000
    keep: int = 3
    log_every: int = 10
    tensorboard: bool = False
    num_loader_workers: int = 0
    window_blocks: int | None = None
    shuffle_shards: int | None = None
    pad_to_multiple: int | None = None
    skip_bad_blocks: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one = ("batch_size", "micro_batch_size", "max_steps", "save_every", "keep", "log_every")
        optional_ones = (
            *("eval_every", "eval_samples", "window_blocks", "shuffle_shards", "pad_to_multiple"),
            *("schedule_steps", "phase"),
        )
        for name in (*at_least_one, *optional_ones):
            value = getattr(self, name)
            optional = name not in at_least_one
            _check(
                (optional and value is None) or value >= 1,
                f"--{name.replace('_', '-')} is {value}; it must be at least 1",
            )
        for name in ("warmup_steps", "weight_decay", "num_loader_workers", "schedule_start", "max_grad_norm"):
            value = getattr(self, name)
            _check(value >= 0, f"--{name.replace('_', '-')} is {value}; it must be 0 or more")
        for name in ("learning_rate", "adam_epsilon", "decay_power"):
            value = getattr(self, name)
            _check(value > 0, f"--{name.replace('_', '-')} is {value}; it must be above 0")
        for name in ("adam_beta1", "adam_beta2"):
            value = getattr(self, name)
            _check(0 <= value < 1, f"--{name.replace('_', '-')} is {value}; it must be from 0 to below 1")
        _check(0 <= self.decay_to <= 1, f"--decay-to is {self.decay_to}; it must be from 0 to 1")
        self._check_schedule()
        _check(0 <= self.seed < 1 << 64, f"--seed is {self.seed}; it must be between 0 and 2**64 - 1")

    def _check_schedule(self) -> None:
        end = self.schedule_start + self.max_steps
        _check(
            self.schedule_steps is None or end <= self.schedule_steps,
            f"--schedule-steps is {self.schedule_steps}, but the run goes on to step {end}"
            + (f", {self.schedule_start} of earlier phases included" if self.schedule_start else "")
            + "; give more of them, or a smaller --max-steps",
        )
        _check(
            self.warmup_steps <= (self.schedule_steps or end),
            f"--warmup-steps is {self.warmup_steps}, more than the {self.schedule_steps or end} steps that the rate "
            "rises and falls in; give fewer",
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the options as nested dictionaries of JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainOptions:
        """Returns the options that `to_json` wrote."""
        return cls(**(values | {"model": ModelOptions(**values["model"])}))
