"""Builds of tests: small inputs written to a file, built in this process, and read again."""

import json
from collections import Counter
from pathlib import Path

import bertdata
from bertdata.blocks import Sample
from bertdata.build import build_serially
from bertdata.config import BuildOptions
from bertdata.launch import open_build


def write_jsonl(path: Path, texts, *, field: str = "text") -> Path:
    """Writes a record for each text, or list of sentences."""
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    return path


def build(out: Path, *inputs: Path, options: BuildOptions, **launch) -> Path:
    """Builds serially, and returns the folder; `launch` goes to `open_build`."""
    with open_build([str(path) for path in inputs], out=out, options=options, **launch) as work:
        assert work is not None
        build_serially(work)
    return out


def counts_of(folder: Path) -> Counter[str]:
    """What the manifest counted, by name."""
    return Counter(bertdata.open_data_set(folder).manifest.counts)


def samples_of(folder: Path) -> list[Sample]:
    """All samples of both splits, train first."""
    splits = {shard.split for shard in bertdata.open_data_set(folder).manifest.shards}
    return [sample for split in sorted(splits, reverse=True) for sample in bertdata.read_samples(folder, split=split)]
