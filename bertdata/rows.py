"""Samples as rows of a table: the columns of an export, made of whole blocks.

With all mask sets, the samples as they are stored:

    tokens               list<uint16 or uint32>    [CLS] A [SEP] B [SEP]
    segment_b            P                         where segment B starts; the sample's length where there is no B
    next_sentence_label  uint8                     0 IsNext, 1 NotNext
    document_keys        fixed_size_list<uint64>   first 64 bits of the keys of A's and B's documents
    mask_positions       list<list<P>>             of each mask set, the positions that are predicted
    mask_tokens          list<list<as tokens>>     what stands there in the model's input

    label_forced         uint8                     1 where the label was not drawn; of `--next-sentence google` only,
                                                   null where the shards do not say

With one mask set, what `transformers.BertForPreTraining` takes once it is padded:

    input_ids            list<int32>               the sample with the set's tokens put in
    token_type_ids       list<int8>                0 for [CLS] A [SEP], 1 for B [SEP]
    labels               list<int32>               the sample's own token where it is predicted, else -100
    next_sentence_label  uint8
    document_keys        fixed_size_list<uint64>
    label_forced         uint8                     of `--next-sentence google` only

There is no `attention_mask`: it would be all ones, and whoever pads a batch makes it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bertdata.manifest import Manifest
from bertdata.shards import FORCED, Block, position_dtype
from bertdata.spans import gather_spans, offsets_of

__all__ = ["MARK", "export_schema", "to_record_batch"]

MARK = b"bertdata_export"  # key of the file's metadata that says of which export it is
_IGNORED = -100  # the label that torch's cross entropy passes over


def export_schema(manifest: Manifest, *, mask_set: int | None) -> pa.Schema:
    """Returns the columns of an export, with the export's mark in the metadata.

    Args:
        manifest: Of the data set.
        mask_set: Number of the mask set; None for all.
    """
    options = manifest.options
    tokens = pa.from_numpy_dtype(manifest.tokenizer.token_dtype)
    positions = pa.from_numpy_dtype(position_dtype(options["pairs"]["max_seq_length"]))
    shared = [("next_sentence_label", pa.uint8()), ("document_keys", pa.list_(pa.uint64(), 2))]
    if mask_set is None:
        fields = [("tokens", pa.list_(tokens)), ("segment_b", positions), *shared]
        fields += [("mask_positions", pa.list_(pa.list_(positions))), ("mask_tokens", pa.list_(pa.list_(tokens)))]
    else:
        fields = [("input_ids", pa.list_(pa.int32())), ("token_type_ids", pa.list_(pa.int8()))]
        fields += [("labels", pa.list_(pa.int32())), *shared]
    if options["pairs"]["next_sentence"] == "google":
        fields.append((FORCED, pa.uint8()))
    # Masks that are drawn here, not stored, follow from the options and not from the shards.
    drawn_by = {"masks": options["masks"], "next_sentence": options["pairs"]["next_sentence"], "seed": options["seed"]}
    mark = {
        "data_set": manifest.fingerprint,
        "mask_set": "all" if mask_set is None else mask_set,
        "drawn_by": None if options["masks"]["num_mask_sets"] else drawn_by,
    }
    return pa.schema(fields, metadata={MARK: json.dumps(mark, sort_keys=True).encode()})


def to_record_batch(block: Block, *, schema: pa.Schema, mask_set: int | None) -> pa.RecordBatch:
    """Returns the samples of a block as rows.

    Args:
        block: N samples.
        schema: From `export_schema`.
        mask_set: Which of the block's mask sets; None for all.
    """
    columns = _stored_columns(block) if mask_set is None else _model_columns(block, mask_set=mask_set)
    columns["next_sentence_label"] = pa.array(block.next_sentence_label)
    columns["document_keys"] = pa.FixedSizeListArray.from_arrays(pa.array(block.document_keys.ravel()), 2)
    forced = block.label_forced
    columns[FORCED] = pa.nulls(block.num_samples, pa.uint8()) if forced is None else pa.array(forced)
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _lists(offsets: npt.NDArray[np.integer[Any]], values: Any) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _stored_columns(block: Block) -> dict[str, pa.Array]:
    num_samples, num_sets = block.num_predictions.shape
    set_offsets = offsets_of(block.num_predictions.ravel())
    sample_offsets = np.arange(num_samples + 1) * num_sets
    return {
        "tokens": _lists(block.token_offsets, block.tokens),
        "segment_b": pa.array(block.segment_b),
        "mask_positions": _lists(sample_offsets, _lists(set_offsets, block.mask_positions)),
        "mask_tokens": _lists(sample_offsets, _lists(set_offsets, block.mask_tokens)),
    }


def _model_columns(block: Block, *, mask_set: int) -> dict[str, pa.Array]:
    starts = block.token_offsets[:-1].astype(np.int64)
    num_predictions = block.num_predictions[:, mask_set].astype(np.int64)
    set_starts = offsets_of(block.num_predictions.ravel())[:-1].reshape(block.num_predictions.shape)[:, mask_set]
    predictions, _ = gather_spans(set_starts, set_starts + num_predictions)
    predicted = np.repeat(starts, num_predictions) + block.mask_positions[predictions]
    input_ids = block.tokens.astype(np.int32)
    labels = np.full(len(input_ids), _IGNORED, dtype=np.int32)
    labels[predicted] = input_ids[predicted]
    input_ids[predicted] = block.mask_tokens[predictions]
    positions = np.arange(len(input_ids)) - np.repeat(starts, block.lengths)
    token_type_ids = (positions >= np.repeat(block.segment_b, block.lengths)).astype(np.int8)
    return {
        "input_ids": _lists(block.token_offsets, input_ids),
        "token_type_ids": _lists(block.token_offsets, token_type_ids),
        "labels": _lists(block.token_offsets, labels),
    }
