"""bertdata: from a raw corpus to shards on which a BERT is pre-trained.

for sample in bertdata.read_samples("shards/"):
    sample.tokens, sample.segment_ids, sample.next_sentence_label, sample.mask_sets
"""

from bertdata.blocks import Sample
from bertdata.cache_options import CacheOptions
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ReadOptions, ShardOptions, TokenizerOptions
from bertdata.data_set import DataSet, open_data_set
from bertdata.documents import Document
from bertdata.errors import (
    BertDataError,
    ChangedInputError,
    ConfigError,
    DownloadError,
    InputError,
    OutputError,
    ShardError,
    TokenizerError,
    TrainingError,
)
from bertdata.hooks import Filter, Reader
from bertdata.manifest import Manifest
from bertdata.reading import read_samples
from bertdata.shard_reading import iter_blocks, read_block
from bertdata.shards import Block

__all__ = [
    "BertDataError",
    "Block",
    "BuildOptions",
    "CacheOptions",
    "ChangedInputError",
    "ConfigError",
    "DataSet",
    "Document",
    "DownloadError",
    "Filter",
    "InputError",
    "Manifest",
    "MaskOptions",
    "OutputError",
    "PairOptions",
    "ReadOptions",
    "Reader",
    "Sample",
    "ShardError",
    "ShardOptions",
    "TokenizerError",
    "TokenizerOptions",
    "TrainingError",
    "iter_blocks",
    "open_data_set",
    "read_block",
    "read_samples",
]
