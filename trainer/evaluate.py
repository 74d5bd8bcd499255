"""How well a model predicts the held-out samples: mask set 0 of each, the same in every run and epoch.

The samples are cut into chunks that depend on their number and the model alone, and the chunks are dealt out:

    chunk              0   1   2   3   4   5   6
    of three ranks     0   1   2   0   1   2   0       what each sums up goes into a row of its own
    of one             0   0   0   0   0   0   0

So the model sees the same micro-batches for any number of processes, and sums are added in the order of the chunks: on
one kind of device no digit of the result depends on how many processes share the work. Another size of micro-batches
changes it by what rounding in the model's precision does.

An evaluation tells, each name absent where there is nothing that it could be the mean of:

    mlm_loss, mlm_accuracy          mean over all predicted positions of the samples
    mlm_perplexity                  exp(mlm_loss)
    mlm_accuracy_mask               where the model sees [MASK],
    mlm_accuracy_random             another token than the one that it is asked for,
    mlm_accuracy_kept               and this very token; a random one that happens to be it, 1 in V, counts here
    mlm_baseline                    accuracy of always predicting the most frequent label
    nsp_loss, nsp_accuracy          mean over the samples, where next sentences are predicted
    nsp_accuracy_forced, ..._free   of labels that were not drawn (`bertdata.shards`), and of the others; only where
                                    some are known to be forced
    nsp_accuracy_by_lengths         what the lengths of A and B alone would give, both labels weighing the same; see
                                    `bertdata.diagnostics.guess_labels_by_length`. Only of 1,000 samples or more
    loss                            mlm_loss + nsp_loss
    num_samples, num_predictions    what all this is the mean of
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.batch import IGNORED, Batch
from trainer.cutting import Cutting, cut_step
from trainer.distributed import World
from trainer.held_out import SUMS, HeldOutCounts, evaluation_chunks
from trainer.model import Outputs
from trainer.reader import BlockReader

__all__ = ["evaluate"]

_TOKENS_AT_ONCE = {"cuda": 16384}
"""Tokens of a micro-batch: no gradients are kept, so that this fits wherever training does. 4096 on other devices."""


@torch.no_grad()  # and not inference_mode: what the model may keep for later calls must also do for training
def evaluate(
    model: nn.Module,
    reader: BlockReader,
    *,
    world: World,
    cutting: Cutting,
    max_samples: int | None,
    next_sentence: bool,
    vocab_size: int,
    autocast: AbstractContextManager[object],
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, float] | None:
    """Returns losses and accuracies on the held-out samples, the same for every number of processes.

    Args:
        model: The model; its training mode is restored afterwards.
        reader: Reads the held-out split.
        world: The processes that share the work.
        cutting: How samples become micro-batches; they may be smaller.
        max_samples: Samples to evaluate at most; None for all.
        next_sentence: Whether next sentences are predicted.
        vocab_size: Ids of the vocabulary.
        autocast: Context that sets the precision.
        should_stop: Whether this process is to give up, asked before each micro-batch; the processes need not answer
            alike. All give up where one does.
        on_progress: Is told the share that this process has done of what is its own, from 0 on.

    Returns:
        See the module; all are finite but for the losses of a model that is not. None where it was given up.

    Raises:
        ShardError: A block is damaged, and such blocks are not left out.
    """
    cutting = _smaller(cutting, device_type=world.device.type)
    assert cutting.micro_batch_size is not None
    sizes = [table.num_samples for table in reader.tables]
    chunks = evaluation_chunks(sizes, max_samples=max_samples, micro_batch_size=cutting.micro_batch_size)
    seen = HeldOutCounts(reader, vocab_size=vocab_size)
    sums = torch.zeros(len(chunks), len(SUMS), dtype=torch.float64, device=world.device)
    is_stopped = False
    training = model.training
    model.eval()
    try:
        for number in range(world.rank, len(chunks), world.size):
            if on_progress is not None:
                on_progress(number / len(chunks))
            shown, sample_ids = reader.show(chunks[number], mask_set=0)
            if len(sample_ids) == 0:  # all of them damaged
                continue
            seen.add(shown, sample_ids)
            for batch in cut_step(shown, sample_ids, 0, len(sample_ids), cutting=cutting).micro_batches:
                is_stopped = should_stop is not None and should_stop()
                if is_stopped:
                    break
                batch = batch.to(world.device)
                # Not compiled for one sample: that would take a graph of its own.
                forward = model if batch.num_samples > 1 else model.forward
                with autocast:
                    outputs = forward(batch)
                sums[number] += _sums_of(outputs, batch, mask_token=reader.tokenizer.roles["mask"])
            if is_stopped:
                break
    finally:
        model.train(training)
    if should_stop is not None and world.agree_to_stop(is_stopped):
        return None
    # A row is that of one process, and zeros in the others: their sum rounds nothing. Counts are integers.
    totals = world.sum(sums.cpu()).sum(0).tolist()
    return seen.summed(world).results(dict(zip(SUMS, totals, strict=True)), next_sentence=next_sentence)


def _smaller(cutting: Cutting, *, device_type: str) -> Cutting:
    """Returns a cutting whose micro-batches are no larger than it takes to keep the device busy.

    A run's own grow and shrink with the number of its processes.
    """
    size = max(1, _TOKENS_AT_ONCE.get(device_type, 4096) // cutting.max_seq_length)
    return dataclasses.replace(cutting, micro_batch_size=min(size, cutting.micro_batch_size or size))


def _sums_of(outputs: Outputs, batch: Batch, *, mask_token: int) -> Tensor:
    """Returns `SUMS` of a batch: float64 [7]. Nothing here waits for the device."""
    labels, shown = batch.mask_labels, batch.token_ids[batch.mask_rows]
    logits = outputs.mlm_logits.to(torch.promote_types(outputs.mlm_logits.dtype, torch.float32))
    losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
    # Of several ids with the highest score, half precision has them often, the lowest counts and no other.
    is_right = logits.argmax(-1) == labels
    is_mask, is_label = shown == mask_token, shown == labels
    sums = [losses.double().sum(), (is_right & is_mask).sum()]
    sums += [(is_right & ~is_mask & ~is_label).sum(), (is_right & is_label).sum()]
    if outputs.nsp_logits is None:
        sums += [losses.new_zeros(())] * 3
    else:
        nsp_logits = outputs.nsp_logits.to(logits.dtype)
        is_right = nsp_logits.argmax(-1) == batch.next_sentence_labels
        losses = F.cross_entropy(nsp_logits, batch.next_sentence_labels, reduction="none")
        sums += [losses.double().sum(), is_right.sum(), (is_right & batch.label_forced).sum()]
    return torch.stack([value.double() for value in sums])
