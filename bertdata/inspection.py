"""A look at samples as text: segments, label, and what one mask set hides."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Tokenizer

from bertdata.blocks import Sample, iter_samples
from bertdata.errors import ConfigError, ShardError
from bertdata.manifest import DataSet
from bertdata.wordpiece import load_tokenizer

__all__ = ["describe_sample", "iter_descriptions"]

LABELS = {"balanced": ("IsNext", "NotNext"), "google": ("IsNext", "NotNext"), "sop": ("in order", "swapped")}


def describe_sample(sample: Sample, *, tokenizer: Tokenizer, next_sentence: str, mask_set: int) -> str:
    """Returns a sample as text.

    Predicted positions stand in the text as «what the model sees|label», for example «[MASK]|cat».

    Args:
        sample: The sample.
        tokenizer: The tokenizer of its ids.
        next_sentence: The mode in which it was built.
        mask_set: Which mask set is marked; none where the sample has no mask sets.
    """
    pieces = [str(tokenizer.id_to_token(token)) for token in sample.tokens]
    marked = list(pieces)
    predictions = []
    if sample.mask_sets:
        positions, shown = sample.mask_sets[mask_set]
        for position, token in zip(positions, shown, strict=True):
            marked[position] = f"«{tokenizer.id_to_token(token)}|{pieces[position]}»"
            predictions.append(f"{position}: {pieces[position]}")
    boundary = sample.segment_ids.index(1) if 1 in sample.segment_ids else len(pieces)
    key_a, key_b = sample.document_keys
    lines = [f"  A  {' '.join(marked[:boundary])}"]
    if boundary < len(pieces):
        lines.append(f"  B  {' '.join(marked[boundary:])}")
        lines.append(f"  label      {sample.next_sentence_label} {LABELS[next_sentence][sample.next_sentence_label]}")
    lines.append(f"  documents  {key_a:016x} {key_b:016x}")
    if sample.mask_sets:
        lines.append(f"  mask set   {mask_set} of {len(sample.mask_sets)}: {', '.join(predictions)}")
    return "\n".join(lines)


def iter_descriptions(data_set: DataSet, *, split: str, num_samples: int, mask_set: int) -> Iterator[str]:
    """Yields the first samples of a split as text.

    Raises:
        ShardError: The split has no samples, or a block is damaged.
        ConfigError: There is no mask set of that number.
    """
    options = data_set.manifest.options
    num_sets = options["masks"]["num_mask_sets"]
    if num_sets and not 0 <= mask_set < num_sets:
        raise ConfigError(f"--mask-set is {mask_set}; this data set has the sets 0 to {num_sets - 1}")
    blocks = data_set.blocks(split)
    if not len(blocks):
        raise ShardError(f"{data_set.folder} has no {split} samples")
    tokenizer = load_tokenizer(data_set.folder / "tokenizer.json")
    left = num_samples
    for row in range(len(blocks)):
        shard = data_set.manifest.shards[int(blocks.shard[row])].name
        for number, sample in enumerate(iter_samples(data_set.read(blocks, row))):
            if left == 0:
                return
            left -= 1
            text = describe_sample(
                sample, tokenizer=tokenizer, next_sentence=options["pairs"]["next_sentence"], mask_set=mask_set
            )
            yield f"{shard}, block {row}, sample {number}: {len(sample.tokens)} tokens\n{text}\n"
