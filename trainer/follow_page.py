"""The page that follows one document from its source to the loss: one file of HTML that needs nothing beside it.

walk of the document (bertdata.walk) -> a sample of it (follow_text)
    -> the numbers of a model (follow_answer, follow_trace) -> parts of the page (follow_parts) -> page
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertdata.data_set import DataSet
from bertdata.errors import InputError
from bertdata.page import render_page, write_page
from bertdata.painting import LABELS, Painter
from bertdata.walk import Walk, walk_document
from trainer.follow_answer import answer_sample, make_batch
from trainer.follow_model import LoadedModel, load_model
from trainer.follow_parts import ShownSample
from trainer.follow_text import choose_sample, excerpt_of_source, excerpt_of_text, is_wikitext, sentence_rows
from trainer.follow_trace import trace_sample
from trainer.run_facts import count_parameters

__all__ = ["make_page", "write_follow_page"]

_SECTIONS = {
    "source": "Source",
    "text": "Plain text",
    "sentences": "Sentences",
    "pair": "A pair",
    "tokens": "Tokens",
    "masks": "Hidden words",
    "embeddings": "Embeddings",
    "layers": "Layers",
    "words": "Words predicted",
    "next": "Next sentence",
    "loss": "Loss",
    "training": "Training",
}
_OTHER_DOCUMENT = "another document"


def write_follow_page(
    place: Path, *, data_set: DataSet, inputs: Sequence[str], document: str, out: Path, sample: int | None = None
) -> None:
    """Writes the page that follows one document.

    Args:
        place: Folder of a run or of an exported model.
        data_set: The data set.
        inputs: The input of its build: files, folders or glob patterns.
        document: What the document is called there, see `bertdata.finding.find_record`.
        out: The HTML file.
        sample: Which of the document's samples is followed, from 1 on; None for one that is easy to follow.

    Raises:
        TrainingError: There is no model, or it does not fit the data set.
        InputError: There is no such document, or it is in no sample.
        ConfigError: The document has no such sample.
        ShardError: A block is damaged.
        OutputError: The file cannot be written.
    """
    loaded = load_model(place, data_set=data_set)  # first: an input may take long to look through
    walk = walk_document(data_set, inputs=inputs, name=document)
    if not walk.samples:
        why = walk.why_not or "it is only the random B of other documents' samples"
        raise InputError(f"--document {document!r} is in no sample of {data_set.location}: {why}; choose another one")
    chosen = choose_sample(walk, sample)
    write_page(make_page(walk, chosen=chosen, loaded=loaded, data_set=data_set, model_name=str(place)), out)


def make_page(walk: Walk, *, chosen: int, loaded: LoadedModel, data_set: DataSet, model_name: str) -> str:
    """Returns the page as HTML; the same files give the same page.

    Args:
        walk: What became of the document.
        chosen: The place among its samples of the one to follow.
        loaded: The model.
        data_set: The data set.
        model_name: What the model is called.
    """
    walked, model, options = walk.samples[chosen], loaded.model, data_set.manifest.options
    found, content = walked.found, walked.found.content
    shown = ShownSample(walked=walked, painter=Painter.of(data_set), vocabulary=data_set.load_vocabulary())
    answers = [answer_sample(model, content, mask_set=place) for place in range(len(content.mask_sets))]
    trace = trace_sample(model, make_batch(content, mask_set=0))
    label_names = LABELS.get(options["pairs"]["next_sentence"])
    sections = {key: title for key, title in _SECTIONS.items() if key != "next" or model.next_sentence}
    if label_names is None:
        sections["pair"] = "A segment"
    return render_page(
        "trainer/follow.html.jinja",
        name=walk.record.where,
        walk=walk,
        file=Path(walk.record.path).name,
        is_wiki=is_wikitext(walk),
        other_document=_OTHER_DOCUMENT,
        model_name=model_name,
        model=model.options,
        num_parameters=count_parameters(model.options),
        step=loaded.step,
        warnings=[*loaded.warnings, *walk.notes],
        sections=sections,
        numbers={key: number for number, key in enumerate(sections, start=1)},
        pairs=options["pairs"],
        masks=options["masks"],
        is_stored=found.num_stored > 0,
        place=f"{found.shard}, block {found.block}, sample {found.sample}",
        source=excerpt_of_source(walk, walked),
        text=excerpt_of_text(walk, walked),
        sentences=sentence_rows(walk, walked),
        chosen=chosen,
        samples=_sample_rows(walk, label_names),
        segments=shown.segments(None),
        label_names=label_names,
        label_number=content.next_sentence_label,
        is_other_document=content.document_keys[0] != content.document_keys[1],
        cards=shown.cards(),
        num_tokens=len(content.tokens),
        mask_sets=shown.mask_sets(answers),
        embeddings=shown.embeddings(trace),
        probe=shown.probe(answers[0], trace, model=model),
        predictions=shown.predictions(answers[0]),
        answer=answers[0],
        has_next=model.next_sentence,
        unlearned_loss=math.log(model.options.vocab_size),
    )


def _sample_rows(walk: Walk, label_names: tuple[str, str] | None) -> list[dict[str, Any]]:
    """Returns what the list of the document's samples says of each."""
    rows = []
    for sample in walk.samples:
        content, alignment = sample.found.content, sample.alignment
        segment_b = _OTHER_DOCUMENT if 1 in content.segment_ids else ""
        rows.append(
            {
                "a": alignment.a.name(walk.sentence_names),
                "b": segment_b if alignment.b is None else alignment.b.name(walk.sentence_names),
                "label": label_names[content.next_sentence_label] if label_names else "",
                "num_tokens": len(content.tokens),
                "num_predictions": len(content.mask_sets[0][0]),
                "is_held_out": sample.found.shard.startswith("eval"),
            }
        )
    return rows
