"""The bet that the trainer rests on: how near to the peak a stack of layers comes on samples without padding.

Random tokens, no data, no optimizer: forward and backward pass of embeddings and layers in bf16 autocast, then with
heads and losses, as they are, compiled, and compiled in one CUDA graph. If this is far below a goal, no loader and no
loop will reach it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.gpu_measuring import Row, describe_error, measured_peak, peak_memory, timed
from trainer.attention import layout_of
from trainer.batch import Batch
from trainer.config import ModelOptions
from trainer.flops import training_flops
from trainer.metrics import pretraining_sums
from trainer.model import BertForPreTraining, build_model

VOCAB_SIZE = 30522
MODES = ("eager", "compiled", "CUDA graph")


def random_batch(max_seqlen: int, *, num_tokens: int, seed: int = 0) -> Batch:
    """Returns samples of random tokens: half of them as long as they can be, the others of any length.

    Args:
        max_seqlen: Tokens of a sample at most.
        num_tokens: Tokens of all, exactly.
        seed: Number that they are drawn from.
    """
    draw = torch.Generator().manual_seed(seed)
    count = 4 * num_tokens // max_seqlen + 1
    lengths = torch.where(
        torch.rand(count, generator=draw) < 0.5,
        max_seqlen,
        torch.randint(min(8, max_seqlen), max_seqlen + 1, (count,), generator=draw),
    )
    ends = lengths.cumsum(0)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), ends[ends < num_tokens], torch.tensor([num_tokens])])
    rows = torch.randperm(num_tokens, generator=draw)[: round(0.15 * num_tokens)].sort().values
    tokens = torch.randint(5, VOCAB_SIZE, (num_tokens,), generator=draw)
    return Batch(
        token_ids=tokens.int(),
        token_type_ids=torch.zeros(num_tokens, dtype=torch.int32),
        cu_seqlens=ends.int(),
        max_seqlen=max_seqlen,
        mask_rows=rows,
        mask_labels=tokens[rows],
        next_sentence_labels=torch.randint(0, 2, (len(ends) - 1,), generator=draw),
        label_forced=torch.zeros(len(ends) - 1, dtype=torch.bool),
        sample_ids=torch.arange(len(ends) - 1),
    )


def stack_loss(model: BertForPreTraining, batch: Batch) -> Tensor:
    """Returns a number that all hidden states take part in."""
    layout = layout_of(batch)
    hidden: Tensor = model.bert.encoder(model.bert.embeddings(batch, layout), layout)
    return hidden.float().square().mean()


def whole_loss(model: BertForPreTraining, batch: Batch) -> Tensor:
    """Returns the loss of both heads."""
    mlm_loss, nsp_loss, _ = pretraining_sums(model(batch), batch)
    return mlm_loss / len(batch.mask_labels) + nsp_loss / batch.num_samples


def graphed(step: Callable[[], None], model: BertForPreTraining) -> Callable[[], None]:
    """Returns what replays a step out of a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def rows(settings: dict[str, Any]) -> Iterator[Row]:
    """Yields a row for each way: `what`, `length`, `mode`, `tokens_per_second`, `mfu`, or why there is none.

    Args:
        settings: `device`, `model`, `num_tokens` of a micro-batch, `lengths`, `peak`, `backend` of torch.compile,
            `seconds` for each way, `minutes` for all.
    """
    device = torch.device(settings["device"])
    end = time.perf_counter() + 60 * settings["minutes"]
    options = ModelOptions.of_size(settings["model"], vocab_size=VOCAB_SIZE)
    model = build_model(options).to(device).train()
    flops = measured_peak(device, seconds=settings["seconds"] / 4)
    yield {"what": "one product of matrices", "tflops": flops / 1e12, "mfu": flops / settings["peak"]}
    for what, loss_of in (("layers", stack_loss), ("layers, heads, losses", whole_loss)):
        # Lengths differ in nothing that is compiled, so that the second one costs no compilation.
        compiled = torch.compile(loss_of, dynamic=True, backend=settings["backend"])
        for mode in MODES:
            for length in settings["lengths"]:
                row: Row = {"what": what, "length": length, "mode": mode}
                if time.perf_counter() > end:
                    yield row | {"skipped": "no time left"}
                elif mode == "CUDA graph" and device.type != "cuda":
                    yield row | {"skipped": "no GPU"}
                else:
                    one = loss_of if mode == "eager" else compiled
                    try:
                        yield row | _measure(model, one, row, settings=settings, device=device)
                    except Exception as error:  # the other ways are to be measured
                        yield row | {"error": describe_error(error)}
                model.zero_grad(set_to_none=True)


def _measure(
    model: BertForPreTraining,
    loss_of: Callable[[BertForPreTraining, Batch], Tensor],
    row: Row,
    *,
    settings: dict[str, Any],
    device: torch.device,
) -> Row:
    cpu_batch = random_batch(row["length"], num_tokens=settings["num_tokens"])
    batch = cpu_batch.to(device)

    def step() -> None:
        # Weights that were cast for a graph must be cast again in each replay.
        with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=row["mode"] == "eager"):
            loss = loss_of(model, batch)
        loss.backward()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run = graphed(step, model) if row["mode"] == "CUDA graph" else step
    timing = timed(run, device=device, seconds=settings["seconds"])
    flops = training_flops(
        model.options,
        num_tokens=len(batch.token_ids),
        squared_lengths=float(cpu_batch.cu_seqlens.diff().double().square().sum()),
        num_predictions=len(batch.mask_rows) if "heads" in row["what"] else 0,
    )
    return {
        "tokens_per_second": len(batch.token_ids) / timing.seconds,
        "mfu": flops / timing.seconds / settings["peak"],
        "memory_gb": peak_memory(device),
        "first_seconds": timing.first_seconds,
    }
