"""The walk of one document: from the record in the input to the samples that hold its text.

record -> plain text -> sentences -> key, tokens -> samples of the data set with that key -> which sentences each holds

All but the samples is made anew by the stages of the build, with the options that the manifest holds, and what does
not come out as at the build is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.alignment import Alignment, align
from bertdata.config import BuildOptions
from bertdata.data_set import DataSet
from bertdata.encoder import Encoder
from bertdata.finding import FoundRecord, find_record
from bertdata.fingerprint import library_versions
from bertdata.inspection import SampleReader, ShardSample
from bertdata.locating import Place, find_document
from bertdata.prepare import prepare_documents
from bertdata.sentences import has_letter, sentences_of, split_sentences
from bertdata.spans import offsets_of
from bertdata.spill import Documents, document_key
from bertdata.wordpiece import Vocabulary, load_tokenizer

__all__ = ["Walk", "WalkedSample", "WalkedSentence", "walk_document"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkedSentence:
    """A sentence of the document.

    Attributes:
        number: Its number, from 1 on.
        text: Its text.
        dropped: Why it was left out; empty where it was not.
        tokens: Its ids.
        pieces: Tokens of each piece; one, except of a sentence that was cut for being long.
    """

    number: int
    text: str
    dropped: str
    tokens: list[int]
    pieces: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkedSample:
    """A sample whose segment A is of the document, and which sentences it holds."""

    found: ShardSample
    alignment: Alignment


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """What became of a document; what comes after the stage that dropped it is empty.

    Attributes:
        record: The record in the input.
        language: Language by whose rules its text is split.
        sentences: All its sentences.
        key: The document's key, hexadecimal; its first 16 digits are what shards hold.
        places: Samples that hold its text.
        samples: Those of them whose segment A is of the document, in its order.
        sentence_names: Names of the sentences that segments are made of, by their place in an `Alignment`.
        why_not: Why there are no samples; empty where there are.
        notes: What else is to be known.
    """

    record: FoundRecord
    language: str = ""
    sentences: tuple[WalkedSentence, ...] = ()
    key: str = ""
    places: tuple[Place, ...] = ()
    samples: tuple[WalkedSample, ...] = ()
    sentence_names: tuple[str, ...] = ()
    why_not: str = ""
    notes: tuple[str, ...] = ()


def walk_document(data_set: DataSet, *, inputs: Sequence[str], name: str) -> Walk:
    """Follows one document from the input to its samples.

    Args:
        data_set: The data set.
        inputs: The input of its build: files, folders or glob patterns.
        name: What the document is called there, see `bertdata.finding.find_record`.

    Raises:
        InputError: There is no such record, or a file is damaged.
        ShardError: A block is damaged.
    """
    options = BuildOptions.from_json(data_set.manifest.options)
    record = find_record(inputs, name=name, options=options.read)
    if record.document is None:
        return Walk(record=record, why_not=record.dropped)
    document = record.document
    language, with_letters, _ = sentences_of(document, option=options.read.language)
    texts = document.sentences or split_sentences(document.text, language=language)
    key = document_key(with_letters)
    prepared, why_not = _prepare(data_set, with_letters, key, options=options)
    sentences = _sentences(texts, *prepared)
    places = () if record.dropped else tuple(find_document(data_set, int.from_bytes(key[:8], "big")))
    tokens = np.array([token for sentence in sentences for token in sentence.tokens], dtype=np.int64)
    sizes = [size for sentence in sentences for size in sentence.pieces]
    samples = _samples(data_set, places, tokens=tokens, offsets=offsets_of(np.array(sizes, dtype=np.int64)))
    if not places and not record.dropped and not why_not:
        why_not = _why_unknown(data_set, record)
    return Walk(
        record=record,
        language=language,
        sentences=tuple(sentences),
        key=key.hex(),
        places=places,
        samples=samples,
        sentence_names=tuple(_names(sentences)),
        why_not=record.dropped or ("" if places else why_not),
        notes=tuple(_notes(data_set, options, is_there=bool(places))),
    )


def _prepare(
    data_set: DataSet, texts: Sequence[str], key: bytes, *, options: BuildOptions
) -> tuple[tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64]], str]:
    """Tokenizes a document and cuts its long sentences.

    Returns:
        (ids [T], tokens of each text [S], where each sentence starts among the ids, those cut in pieces [P + 1]), and
        why the document is left out, or an empty string.
    """
    tokenizer = load_tokenizer(data_set.folder / "tokenizer.json")
    vocabulary = Vocabulary.of(tokenizer)
    ids, lengths = Encoder(tokenizer, vocabulary).encode(texts)
    kept = lengths[lengths > 0]
    offsets = offsets_of(kept)
    if not len(kept):
        return (ids, lengths, offsets), "no word is left of it: no sentence has a letter, or the tokenizer drops all"
    counts: Counter[str] = Counter()
    whole = Documents(
        keys=np.frombuffer(key, dtype=">u8").astype(np.uint64).reshape(1, 2),
        sentence_offsets=np.array([0, len(kept)]),
        token_offsets=offsets,
        tokens=ids,
    )
    prepared = prepare_documents(whole, counts, options=options, vocabulary=vocabulary)
    if len(prepared):
        return (ids, lengths, prepared.token_offsets), ""
    if counts["one_sentence_documents"]:
        return (ids, lengths, offsets), (
            f"it has one sentence, and --next-sentence {options.pairs.next_sentence} needs two to make a pair"
        )
    return (ids, lengths, offsets), "it was excluded from the build by its key"


def _sentences(
    texts: Sequence[str],
    ids: npt.NDArray[Any],
    lengths: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
) -> list[WalkedSentence]:
    sizes = iter(lengths.tolist())
    sentences = []
    stop = 0
    for number, text in enumerate(texts, start=1):
        is_wordless = not has_letter(text)
        start, stop = stop, stop + (0 if is_wordless else next(sizes))
        cuts = offsets[(offsets > start) & (offsets < stop)].tolist()
        sentences.append(
            WalkedSentence(
                number=number,
                text=text,
                dropped="no letter in it" if is_wordless else "" if stop > start else "no token of it",
                tokens=ids[start:stop].tolist(),
                pieces=tuple(np.diff([start, *cuts, stop]).tolist()) if stop > start else (),
            )
        )
    return sentences


def _names(sentences: Sequence[WalkedSentence]) -> list[str]:
    """Returns the names of what segments are made of: "7", or "7.1" and "7.2" for a sentence that was cut in two."""
    return [
        str(sentence.number) if len(sentence.pieces) == 1 else f"{sentence.number}.{piece}"
        for sentence in sentences
        for piece in range(1, len(sentence.pieces) + 1)
    ]


def _samples(
    data_set: DataSet, places: Sequence[Place], *, tokens: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]
) -> tuple[WalkedSample, ...]:
    """Reads the samples whose segment A is of the document, and finds its sentences in them."""
    reader = SampleReader(data_set)
    next_sentence = data_set.manifest.options["pairs"]["next_sentence"]
    samples = []
    for place in places:
        if place.role == "A":
            found = reader.read(place.row, place.sample)
            alignment = align(found.content, tokens=tokens, offsets=offsets, next_sentence=next_sentence)
            samples.append(WalkedSample(found=found, alignment=alignment))
    return tuple(sorted(samples, key=lambda sample: (sample.alignment.a.start, sample.alignment.a.stop)))


def _why_unknown(data_set: DataSet, record: FoundRecord) -> str:
    """Returns why a document may be missing that the same build would have kept."""
    manifest = data_set.manifest
    path = Path(record.path)
    sizes = [entry["bytes"] for entry in manifest.inputs if entry["name"] == path.name]
    if not sizes:
        names = ", ".join(str(entry["name"]) for entry in manifest.inputs[:5])
        return f"the build read no file named {path.name}, but {names}{', ...' if len(manifest.inputs) > 5 else ''}"
    if path.stat().st_size not in sizes:
        return f"{path.name} has {path.stat().st_size:,} bytes now; the one that the build read had {sizes[0]:,}"
    found = library_versions()
    others = [f"{name} {version}" for name, version in manifest.versions.items() if found.get(name) != version]
    if others:
        return f"its sentences may have been others at the build, which ran with {', '.join(others)}"
    return "no sample holds its key: the file, or a reader or filter of your own, has changed since the build"


def _notes(data_set: DataSet, options: BuildOptions, *, is_there: bool) -> list[str]:
    notes = []
    duplicates = data_set.manifest.counts.get("duplicates", 0)
    if is_there and duplicates:
        notes.append(
            f"the build dropped {duplicates:,} documents as copies of others; a copy has the same key, so where this "
            "is one, the samples are those of the one that was kept"
        )
    if options.shards.keep_duplicates:
        notes.append("with --keep-duplicates only the first copy of a text has this key; further ones have others")
    return notes
