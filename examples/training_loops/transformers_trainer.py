"""Pre-trains a small BERT with transformers.Trainer, to copy and change.

    python examples/training_loops/transformers_trainer.py --shards shards/ --out trained/
    torchrun --nproc-per-node 2 examples/training_loops/transformers_trainer.py --shards shards/ --out trained/

The same command goes on where it was killed, with the same losses to the last bit on a CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForPreTraining,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from trainer import PreTrainingData

DATA_STATE = "data_state.json"


class PreTrainingTrainer(Trainer):
    """A Trainer that takes its batches as the data set makes them."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Returns the data set, which already gives each process its own part of every batch.

        So it must not go through `accelerator.prepare`, which would divide the batches once more and read one ahead.
        A DataLoader draws a number when it begins; without a generator of its own, it would do so from the one of
        dropout, which a run that was continued would see.
        """
        return DataLoader(self.train_dataset, batch_size=None, generator=torch.Generator())


class SaveDataState(TrainerCallback):
    """Puts the state of the data set into each checkpoint."""

    def __init__(self, data: PreTrainingData) -> None:
        self.data = data

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Counts by the steps of the Trainer, since a data loader may have taken more batches than were trained on."""
        if state.is_world_process_zero:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / DATA_STATE
            path.with_suffix(".tmp").write_text(json.dumps(self.data.state_dict(step=state.global_step)))
            path.with_suffix(".tmp").replace(path)


def find_checkpoint(out: Path) -> Path | None:
    """Returns the newest whole checkpoint. The state of the data is written last: one without it is not whole."""
    found = [path.parent for path in out.glob(f"checkpoint-*/{DATA_STATE}")]
    return max(found, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


@click.command(context_settings={"show_default": True})
@click.option("--shards", required=True, help="Folder that `bertdata build` wrote.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for checkpoints.")
@click.option("--batch-size", default=32, help="Samples of a step, over all processes.")
@click.option("--micro-batch-size", type=int, help="Samples that a process computes at a time. [default: all]")
@click.option("--max-steps", default=200, help="Steps of the whole run.")
@click.option("--save-every", default=50, help="Steps between checkpoints.")
@click.option("--log-every", default=10, help="Steps between lines of the log.")
def main(
    shards: str,
    out: Path,
    batch_size: int,
    micro_batch_size: int | None,
    max_steps: int,
    save_every: int,
    log_every: int,
) -> None:
    """Pre-trains a small BERT."""
    args = TrainingArguments(  # first, since it finds the other processes
        output_dir=str(out),
        max_steps=max_steps,
        learning_rate=1e-3,
        save_steps=save_every,
        save_total_limit=2,
        logging_steps=log_every,
        remove_unused_columns=False,
        ignore_data_skip=True,  # the data set begins where its state says
        report_to="none",
        disable_tqdm=True,
    )
    share = batch_size // args.world_size
    micro_batch_size = min(micro_batch_size or share, share)
    if share % micro_batch_size:
        raise click.UsageError(f"--micro-batch-size must divide the {share} samples that each process has in a step")
    args.per_device_train_batch_size = micro_batch_size
    args.gradient_accumulation_steps = share // micro_batch_size

    data = PreTrainingData(shards, batch_size=batch_size, micro_batch_size=micro_batch_size, padded=True, num_workers=1)
    set_seed(args.seed)
    config = BertConfig(
        vocab_size=data.vocab_size,
        max_position_embeddings=data.max_seq_length,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
    )
    model = BertForPreTraining(config)
    trainer = PreTrainingTrainer(model=model, args=args, train_dataset=data, callbacks=[SaveDataState(data)])
    # BERT's forward takes any argument, which the Trainer takes for a loss that is divided by the batches of a step.
    trainer.model_accepts_loss_kwargs = False
    checkpoint = find_checkpoint(out)
    if checkpoint is not None:
        data.load_state_dict(json.loads((checkpoint / DATA_STATE).read_text()))
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


if __name__ == "__main__":
    main()
