"""The walk of a document as text for a terminal, a heading for each stage, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bertdata.alignment import Segment
from bertdata.inspection import describe_mask_set, describe_place, sample_to_json
from bertdata.painting import Painter, paint, printable, wrap
from bertdata.walk import Walk, WalkedSample, WalkedSentence

__all__ = ["describe_walk", "walk_to_json"]

_MAX_CHARS = 1200
_MAX_LINES = 20


def describe_walk(walk: Walk, *, painter: Painter, num_samples: int, full: bool) -> Iterator[str]:
    """Yields the stages of a walk as text.

    Args:
        walk: What became of the document.
        painter: The painter of the data set.
        num_samples: Samples to show in full at most.
        full: Shorten nothing else.
    """
    record = walk.record
    yield _section("Found", f"{record.where!r} in {record.path}")
    if record.raw is not None:
        yield _section(
            f"As it stands in the input: {_count(len(record.raw), 'character')}",
            _text(record.raw, full=full, width=painter.width),
        )
    if record.document is not None:
        text = record.document.text
        yield _section(f"Plain text: {_count(len(text), 'character')}", _text(text, full=full, width=painter.width))
        yield _describe_sentences(walk, painter=painter, full=full)
        key = f"{paint(walk.key[:16], 'name')}{walk.key[16:]}\n  (the first 16 digits are what shards hold)"
        yield _section("Key of the document", f"  {key}")
    if walk.why_not:
        yield _section("In no sample", f"  {walk.why_not}")
    else:
        yield _section(f"Samples: {_count(len(walk.places), 'sample')} with text of it", _describe_places(walk))
        yield _section(
            f"Pairs whose A is of it: {len(walk.samples):,}", _describe_pairs(walk, full=full, painter=painter)
        )
        yield f"{painter.legend()}\n"
        for sample in walk.samples[:num_samples]:
            yield _describe_sample(sample, walk.sentence_names, painter=painter)
        if len(walk.samples) > num_samples:
            yield f"{len(walk.samples) - num_samples:,} more samples; --num-samples shows more\n"
    for note in walk.notes:
        yield f"note: {note}"


def _section(heading: str, text: str) -> str:
    return f"{paint(heading, 'name')}\n{text}\n"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _join(lines: Sequence[str], *, num_left: int, noun: str) -> str:
    """Returns lines, and how much was left out after them."""
    left = [f"  ... {_count(num_left, f'more {noun}')}; --full shows all"] if num_left else []
    return "\n".join([*lines, *left])


def _text(text: str, *, full: bool, width: int | None) -> str:
    """Returns text behind bars, one for each of its lines, shortened."""
    shown = text if full else text[:_MAX_CHARS]
    lines = [wrap(line.split(" "), head="  | ", width=width) for line in printable(shown).rstrip("\n").split("\n")]
    return _join(lines, num_left=len(text) - len(shown), noun="character")


def _describe_sentences(walk: Walk, *, painter: Painter, full: bool) -> str:
    sentences = walk.sentences
    num_dropped = sum(bool(sentence.dropped) for sentence in sentences)
    num_cut = sum(len(sentence.pieces) > 1 for sentence in sentences)
    num_tokens = sum(len(sentence.tokens) for sentence in sentences)
    facts = [_count(len(sentences), "sentence"), _count(num_tokens, "token")]
    facts += [f"{num_dropped:,} dropped"] if num_dropped else []
    facts += [f"{num_cut:,} cut for being long"] if num_cut else []
    shown = sentences if full else sentences[:_MAX_LINES]
    lines = [_describe_sentence(sentence, painter=painter) for sentence in shown]
    text = _join(lines, num_left=len(sentences) - len(shown), noun="sentence")
    return _section(f"Sentences (language {walk.language}): {', '.join(facts)}", text)


def _describe_sentence(sentence: WalkedSentence, *, painter: Painter) -> str:
    """Returns number, tokens and text; after a sentence that was cut, how."""
    size = "dropped" if sentence.dropped else _count(len(sentence.tokens), "token")
    words = printable(sentence.text).split()
    if sentence.dropped:
        words.append(paint(f"({sentence.dropped})", "replaced"))
    if len(sentence.pieces) > 1:
        parts = ", ".join(f"{sentence.number}.{part} of {size}" for part, size in enumerate(sentence.pieces, start=1))
        words += [paint(word, "masked") for word in f"(cut: {parts} tokens)".split(" ")]
    return wrap(words, head=f"  {sentence.number:>5}  {size:>10}  ", width=painter.width)


def _describe_places(walk: Walk) -> str:
    """Returns a line for each shard: its blocks, and in how many samples the document is A or only B."""
    lines = []
    for shard in dict.fromkeys(place.shard for place in walk.places):
        places = [place for place in walk.places if place.shard == shard]
        roles = Counter(place.role for place in places)
        blocks = sorted({place.block for place in places})
        names = f"block {blocks[0]}" if len(blocks) == 1 else f"{len(blocks)} blocks from {blocks[0]} to {blocks[-1]}"
        lines += [
            f"  {shard}, {names}",
            f"    {_count(roles['A'], 'sample')} whose A is of this document",
            f"    {_count(roles['B'], 'sample')} of other documents that have it as a random B",
        ]
    return "\n".join(lines)


def _describe_pairs(walk: Walk, *, full: bool, painter: Painter) -> str:
    """Returns a row for each sample whose A is of the document, in its order: its sentences, label and place."""
    shown = walk.samples if full else walk.samples[:_MAX_LINES]
    is_one_shard = len({place.shard for place in walk.places}) == 1
    rows = [("sentences of A", "of B", "label", "place")]
    for sample in shown:
        found = sample.found
        segments = _describe_segments(sample, walk.sentence_names)
        label = painter.label_name(found.content) or ""
        shard = "" if is_one_shard else f"{found.shard}, "
        rows.append((*segments, label, f"{shard}block {found.block}, sample {found.sample}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  " + "  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
    return _join(lines, num_left=len(walk.samples) - len(shown), noun="pair")


def _describe_segments(sample: WalkedSample, names: Sequence[str]) -> tuple[str, str]:
    """Returns what A is made of, and what B is: "3-5 (cut: 2 front)", or B's document where it is another one."""
    segment_a, segment_b = (
        "" if segment is None else segment.name(names) + (f" ({segment.cuts})" if segment.cuts else "")
        for segment in (sample.alignment.a, sample.alignment.b)
    )
    content = sample.found.content
    if sample.alignment.b is None and 1 in content.segment_ids:
        segment_b = f"document {content.document_keys[1]:016x}"
    return segment_a, segment_b


def _describe_sample(sample: WalkedSample, names: Sequence[str], *, painter: Painter) -> str:
    """Returns a sample with its first mask set marked in the text, and what all sets predict."""
    found = sample.found
    segment_a, segment_b = _describe_segments(sample, names)
    made_of = f"A: sentence {segment_a}"
    if segment_b:
        made_of += f"; B: {'' if sample.alignment.b is None else 'sentence '}{segment_b}"
    lines = [describe_place(found), f"  made of    {made_of}", *painter.describe(found.content)]
    for number in range(len(found.mask_sets)):
        lines.append(f"  mask set   {describe_mask_set(found, painter=painter, number=number)}")
        predictions = painter.predictions(found.content, mask_set=number)
        lines.append(wrap(predictions, head=" " * 13, width=painter.width))
    return "\n".join(lines) + "\n"


def _segment_to_json(segment: Segment | None, names: Sequence[str]) -> dict[str, Any] | None:
    if segment is None:
        return None
    return {
        "first_sentence": names[segment.first],
        "last_sentence": names[segment.last],
        "tokens_cut_from_front": segment.front_cut,
        "tokens_cut_from_back": segment.back_cut,
        "start": segment.start,
        "stop": segment.stop,
    }


def walk_to_json(walk: Walk, *, painter: Painter) -> dict[str, Any]:
    """Returns a walk as values of JSON, with all samples."""
    document = walk.record.document
    return {
        "file": walk.record.path,
        "where": walk.record.where,
        "raw": walk.record.raw,
        "text": document.text if document is not None else None,
        "language": walk.language or None,
        "sentences": [
            {
                "number": sentence.number,
                "text": sentence.text,
                "dropped": sentence.dropped or None,
                "tokens": sentence.tokens,
                "pieces": list(sentence.pieces),
            }
            for sentence in walk.sentences
        ],
        "key": walk.key or None,
        "why_not": walk.why_not or None,
        "notes": list(walk.notes),
        "places": [
            {"shard": place.shard, "block": place.block, "sample": place.sample, "role": place.role}
            for place in walk.places
        ],
        "samples": [
            sample_to_json(sample.found, painter=painter)
            | {
                "segment_a": _segment_to_json(sample.alignment.a, walk.sentence_names),
                "segment_b": _segment_to_json(sample.alignment.b, walk.sentence_names),
            }
            for sample in walk.samples
        ],
    }
