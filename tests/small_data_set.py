"""A small data set with something to learn: each segment keeps to the words of one topic."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from bertdata.config import BuildOptions, MaskOptions, PairOptions
from bertdata.data_set import DataSet, open_data_set
from bertdata.index import write_index
from bertdata.manifest import Manifest, ShardEntry, TokenizerInfo, write_manifest
from bertdata.masking import draw_masks
from bertdata.shards import Block, block_name, open_shard, position_dtype, shard_name
from bertdata.storage import LocalFolder
from bertdata.wordpiece import Vocabulary, new_bert_tokenizer, tokenizer_config

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NUM_WORDS = 115  # 120 ids: not a multiple of 64
NUM_TOPICS = 5


def _sample(generator: np.random.Generator, *, max_seq_length: int, next_sentence: str) -> tuple[list[int], int, int]:
    """Returns tokens, start of segment B and label of one sample."""
    cls, sep = 2, 3
    first_topic, second_topic = generator.permutation(NUM_TOPICS)[:2]

    def words(topic: int, limit: int) -> list[int]:
        numbers = NUM_WORDS // NUM_TOPICS * generator.random(generator.integers(2, limit + 1)) ** 4  # few are frequent
        return [len(SPECIALS) + int(number) * NUM_TOPICS + int(topic) for number in numbers]

    if next_sentence == "none":
        tokens = [cls, *words(first_topic, max_seq_length - 2), sep]
        return tokens, len(tokens), 0
    label = int(generator.integers(0, 2))
    limit = (max_seq_length - 3) // 2
    first = [cls, *words(first_topic, limit), sep]
    return [*first, *words(second_topic if label else first_topic, limit), sep], len(first), label


def make_block(
    seed: int, num_samples: int, *, options: BuildOptions, vocabulary: Vocabulary, random_labels: bool = False
) -> Block:
    generator = np.random.default_rng(seed)
    pairs = options.pairs
    samples = [
        _sample(generator, max_seq_length=pairs.max_seq_length, next_sentence=pairs.next_sentence)
        for _ in range(num_samples)
    ]
    labels = [label for _, _, label in samples]
    if random_labels:
        labels = np.random.default_rng([seed, 1]).integers(0, 2, num_samples).tolist()
    dtype = position_dtype(pairs.max_seq_length)
    block = Block(
        tokens=np.array([token for tokens, _, _ in samples for token in tokens], dtype=vocabulary.dtype),
        token_offsets=np.cumsum([0] + [len(tokens) for tokens, _, _ in samples]).astype(np.uint32),
        segment_b=np.array([segment_b for _, segment_b, _ in samples], dtype=dtype),
        next_sentence_label=np.array(labels, dtype=np.uint8),
        document_keys=generator.integers(0, 1 << 60, size=(num_samples, 2)).astype(np.uint64),
        num_predictions=np.zeros((num_samples, 0), dtype=dtype),
        mask_positions=np.zeros(0, dtype=dtype),
        mask_tokens=np.zeros(0, dtype=vocabulary.dtype),
    )
    if pairs.next_sentence == "google":
        forced = block.next_sentence_label * (generator.random(num_samples) < 0.4)
        block = dataclasses.replace(block, label_forced=forced.astype(np.uint8))
    sets = range(options.masks.num_mask_sets)
    if not sets:
        return block
    counts, positions, tokens = draw_masks(block, options=options, vocabulary=vocabulary, sets=sets)
    return dataclasses.replace(block, num_predictions=counts, mask_positions=positions, mask_tokens=tokens)


def make_data_set(
    folder: Path,
    *,
    train_blocks: tuple[tuple[int, ...], ...] = ((40, 40, 13), (40, 27)),
    eval_blocks: tuple[tuple[int, ...], ...] = ((30, 11),),
    num_mask_sets: int = 3,
    max_seq_length: int = 24,
    next_sentence: str = "balanced",
    seed: int = 0,
    random_labels: bool = False,
) -> DataSet:
    """Writes a data set whose shards have blocks of the given sizes.

    Labels are told by the topics of A and B, or drawn independently of the text with `random_labels`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"word{number}" for number in range(NUM_WORDS)]
    tokenizer = new_bert_tokenizer(
        {text: number for number, text in enumerate((*SPECIALS, *words))}, lowercase=True, strip_accents=True
    )
    vocabulary = Vocabulary.of(tokenizer)
    options = BuildOptions(
        pairs=PairOptions(max_seq_length=max_seq_length, next_sentence=next_sentence),  # type: ignore[arg-type]
        masks=MaskOptions(num_mask_sets=num_mask_sets),
        max_seq_lengths=(max_seq_length,),
    )
    shards, entries = [], []
    block_seed = seed
    for split, shard_blocks in (("train", train_blocks), ("eval", eval_blocks)):
        for number, sizes in enumerate(shard_blocks):
            path = folder / shard_name(split, number, len(shard_blocks))
            with open_shard(LocalFolder(path.parent), path.name) as writer:
                for block_number, size in enumerate(sizes):
                    block_seed += 1
                    block = make_block(
                        block_seed, size, options=options, vocabulary=vocabulary, random_labels=random_labels
                    )
                    writer.add(block, name=block_name(split, number, block_number))
            entries.append(writer.entries)
            shards.append(
                ShardEntry(
                    name=path.name,
                    split=split,
                    num_samples=sum(sizes),
                    num_blocks=len(sizes),
                    num_tokens=sum(entry.num_tokens for entry in writer.entries),
                    num_bytes=path.stat().st_size,
                    sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                )
            )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(tokenizer)))
    write_index(folder, entries)
    write_manifest(
        folder,
        Manifest(
            format_version=1,
            build="test",
            options=options.to_json(),
            tokenizer=TokenizerInfo(
                sha256=hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
                vocab_size=vocabulary.size,
                token_dtype=str(vocabulary.dtype),
                roles=vocabulary.roles,
                lowercase=True,
                trained=False,
            ),
            languages={},
            versions={},
            inputs=[],
            counts={},
            shards=tuple(shards),
            files={},
        ),
    )
    return open_data_set(folder)
