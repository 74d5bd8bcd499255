"""Pre-trains a small transformers.BertForPreTraining in a loop of one's own, to copy and change.

    python examples/training_loops/plain_pytorch.py --shards shards/ --out plain/

The same command goes on where it was killed, with the same losses to the last bit on a CPU.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click
import torch
from transformers import BertConfig, BertForPreTraining

from trainer import PreTrainingData


@click.command(context_settings={"show_default": True})
@click.option("--shards", required=True, help="Folder that `bertdata build` wrote.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the checkpoint.")
@click.option("--batch-size", default=32, help="Samples of a step.")
@click.option("--max-steps", default=200, help="Steps of the whole run.")
@click.option("--save-every", default=50, help="Steps between checkpoints.")
@click.option("--log-every", default=10, help="Steps between lines of output.")
def main(shards: str, out: Path, batch_size: int, max_steps: int, save_every: int, log_every: int) -> None:
    """Pre-trains a small BERT."""
    torch.manual_seed(0)
    data = PreTrainingData(shards, batch_size=batch_size, padded=True, num_workers=1)
    config = BertConfig(
        vocab_size=data.vocab_size,
        max_position_embeddings=data.max_seq_length,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
    )
    model = BertForPreTraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step, path = 0, out / "checkpoint.pt"
    if path.exists():
        saved = torch.load(path)
        step = saved["step"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        data.load_state_dict(saved["data"])
        torch.set_rng_state(saved["random"])  # dropout goes on too

    for batch in islice(data, max_steps - step):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % log_every == 0:
            click.echo(f"step {step:>5}  loss {loss.item():.4f}")
        if step % save_every == 0 or step == max_steps:
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "data": data.state_dict()}
            save(states | {"step": step, "random": torch.get_rng_state()}, path)


def save(checkpoint: dict[str, object], path: Path) -> None:
    """Writes a checkpoint that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


if __name__ == "__main__":
    main()
