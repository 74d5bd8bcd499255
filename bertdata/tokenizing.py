"""Tokenizing: the documents of a portion, to sentences, to token ids, to runs."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.documents import Reject
from bertdata.encoder import Encoder
from bertdata.errors import OutputError, TokenizerError
from bertdata.meter import count
from bertdata.rejects import iter_checked_documents
from bertdata.runs import Run, RunWriter, run_name
from bertdata.sentences import sentences_of
from bertdata.spill import document_key
from bertdata.wordpiece import Vocabulary, parse_tokenizer
from bertdata.work import Work, portion_record

__all__ = ["BATCH_CHARS", "load_encoder", "make_encoder", "tokenize_portion"]

BATCH_CHARS = 8 << 20  # of text that is tokenized at once; from here on the encoder gets no faster


@functools.lru_cache(maxsize=2)
def make_encoder(tokenizer_json: bytes) -> tuple[Encoder, Vocabulary]:
    """Returns the encoder of the tokenizer with these bytes, and its vocabulary."""
    tokenizer = parse_tokenizer(tokenizer_json, where="tokenizer.json")
    vocabulary = Vocabulary.of(tokenizer)
    return Encoder(tokenizer, vocabulary), vocabulary


def load_encoder(work: Work) -> tuple[Encoder, Vocabulary]:
    """Returns the encoder of a build and its vocabulary, made once per process.

    Raises:
        OutputError: The tokenizer in the work folder is damaged.
    """
    try:
        return make_encoder(work.folder.read("tokenizer.json"))
    except TokenizerError as error:
        where = f"{work.folder.location}/tokenizer.json"
        raise OutputError(f"{where} is damaged ({error}); run the same command with --overwrite") from error


def _has_runs(work: Work, record: dict[str, Any]) -> bool:
    """Returns whether the runs of a portion are there as they were written."""
    folder = work.runs_folder
    found = [Run(*run) for run in record["runs"]]
    sizes = {run_name(run.portion, run.number): run.num_bytes for run in found}
    sizes |= {run.bins_name: run.bins_bytes for run in found}
    return all(folder.size(name) == num_bytes for name, num_bytes in sizes.items())


def tokenize_portion(work: Work, number: int) -> int:
    """Writes the tokenized documents of one portion as runs; returns the portion's number."""
    name = portion_record(number)
    if work.has(name) and _has_runs(work, work.read(name)):
        return number
    encoder, vocabulary = load_encoder(work)
    counts: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    rejects: list[Reject] = []
    runs = RunWriter(work.runs_folder, portion=number, dtype=vocabulary.dtype)
    batch: list[list[str]] = []
    batched = 0
    options = work.options.read
    portion, keep_in = work.portions[number], work.out_folder
    for document in iter_checked_documents(portion, options=options, counts=counts, rejects=rejects, keep_in=keep_in):
        language, sentences, num_left_out = sentences_of(document, option=options.language)
        languages[language] += 1
        batch.append(sentences)
        counts["sentences_without_letters"] += num_left_out
        batched += len(document.text)
        if batched >= BATCH_CHARS:
            _spill(batch, runs, counts, encoder=encoder, vocabulary=vocabulary)
            batch, batched = [], 0
    _spill(batch, runs, counts, encoder=encoder, vocabulary=vocabulary)
    record = {
        "counts": counts,
        "languages": languages,
        "runs": runs.close(),
        "rejects": [dataclasses.asdict(reject) for reject in rejects],
    }
    work.write(name, record)
    count(portions=1)
    return number


def _encode(sentences: list[str], *, encoder: Encoder) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Encodes sentences like `Encoder.encode`, part by part: a document may be much larger than a batch."""
    ends = np.cumsum(np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences)))
    cuts = np.searchsorted(ends, np.arange(BATCH_CHARS, int(ends[-1]) if len(ends) else 0, BATCH_CHARS)).tolist()
    bounds = sorted({0, *cuts, len(sentences)})
    parts = [encoder.encode(sentences[start:stop]) for start, stop in itertools.pairwise(bounds)]
    if len(parts) == 1:
        return parts[0]
    ids, lengths = zip(*(parts or [encoder.encode([])]), strict=True)
    return np.concatenate(ids), np.concatenate(lengths)


def _spill(
    batch: list[list[str]], runs: RunWriter, counts: Counter[str], *, encoder: Encoder, vocabulary: Vocabulary
) -> None:
    """Tokenizes some documents and adds them to the runs; sentences without a token are dropped and counted."""
    ids, lengths = _encode([sentence for sentences in batch for sentence in sentences], encoder=encoder)
    counts["tokens"] += len(ids)
    counts["unknown_tokens"] += int((ids == vocabulary.roles["unk"]).sum())
    counts["sentences"] += int((lengths > 0).sum())
    counts["sentences_without_tokens"] += int((lengths == 0).sum())
    count(sentences=int((lengths > 0).sum()), tokens=len(ids))
    sentence = token = 0
    for sentences in batch:
        num_tokens = lengths[sentence : sentence + len(sentences)]
        kept = num_tokens[num_tokens > 0]
        sentence += len(sentences)
        stop = token + int(kept.sum())
        if len(kept):
            counts["documents_under_3_sentences"] += len(kept) < 3
            runs.add(document_key(sentences), tokens=ids[token:stop], num_tokens=kept)
        else:
            counts["documents_without_tokens"] += 1
        token = stop
