"""What the tests of `bert-train follow` share: a small wiki, data sets built of it, and a model for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bertdata.config import BuildOptions
from bertdata.data_set import DataSet, open_data_set
from tests.bertdata.small_builds import build
from tests.corpus import article, iter_texts
from trainer.config import ModelOptions
from trainer.export import export_model
from trainer.model import BertForPreTraining, build_model

TITLE = "The <river> & town"
SOURCE = (
    "{{Infobox|town|stone}}\n'''The river''' of the [[town|old town]] keeps the miller. "
    "The <b>baker</b> sells bread to the fisher & the old miller in the town.<ref>A letter</ref> "
    "A [[fisher]] mends the boat in the early morning by the quiet bridge. The bridge counts the boats! 1984!\n\n"
    "== Market ==\nThe market opens early on the green field with bread and apple and candle. "
    "In winter the old bridge carries the great wheel. The lantern finds the door of the tower."
)
SOME_TEXTS = list(iter_texts(14))


def write_wiki(folder: Path) -> Path:
    """Writes a dump of fifteen articles; one has markup, and letters that HTML escapes."""
    pages = [article(TITLE, SOURCE)]
    pages += [article(f"Title {number}", text) for number, text in enumerate(SOME_TEXTS)]
    pages.append(article("One sentence", "The town has a small bridge over the river and a market."))
    path = folder / "wiki.xml"
    path.write_text('<mediawiki version="0.11" xml:lang="en">\n' + "".join(pages) + "</mediawiki>\n")
    return path


def build_wiki(
    folder: Path, wiki: Path, options: BuildOptions, *, next_sentence: str = "balanced", num_mask_sets: int = 3
) -> DataSet:
    """Builds a data set of a dump: samples of up to 48 tokens, one shard and one held out."""
    options = dataclasses.replace(
        options,
        pairs=dataclasses.replace(options.pairs, max_seq_length=48, next_sentence=next_sentence),
        masks=dataclasses.replace(options.masks, num_mask_sets=num_mask_sets),
        shards=dataclasses.replace(options.shards, num_shards=1, eval_fraction=0.1),
        max_seq_lengths=(48,),
    )
    return open_data_set(build(folder / next_sentence, wiki, options=options))


def make_model(data_set: DataSet, *, num_layers: int = 3) -> BertForPreTraining:
    """Returns a model of random weights, larger than published so that differences show."""
    options = ModelOptions(
        vocab_size=data_set.manifest.tokenizer.vocab_size,
        num_hidden_layers=num_layers,
        hidden_size=48,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return build_model(options, seed=5).eval()


def export(model: BertForPreTraining, folder: Path, *, data_set: DataSet) -> Path:
    """Writes the model as a folder for transformers."""
    pad_token_id = data_set.manifest.tokenizer.roles["pad"]
    export_model(model, folder, tokenizer_folder=data_set.folder, pad_token_id=pad_token_id)
    return folder
