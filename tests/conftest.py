"""Fixtures that all tests share: small corpora, a tokenizer, and data sets built from them."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from bertdata.build import build_serially
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ShardOptions, TokenizerOptions
from bertdata.launch import open_build
from bertdata.wordpiece import new_bert_tokenizer
from tests.corpus import WORDS, article, iter_texts

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of several test processes wait for each other, spinning
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in its background
hypothesis.settings.register_profile("untimed", deadline=None)  # how fast things are is not a test's business
hypothesis.settings.load_profile("untimed")
os.environ.pop("COLUMNS", None)  # set where tests run in several processes; output in a pipe has no width

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def fetch_nothing_more() -> Iterator[None]:
    """Ends what a test left in the background, before it meets what the next one does to files."""
    yield
    for thread in threading.enumerate():
        target = getattr(thread, "_target", None)  # a thread that ends gives it up
        if thread.name == "prefetch" and target is not None:
            target.__self__.close()
            thread.join(timeout=10)


@pytest.fixture(autouse=True)
def leave_logging_as_it_was() -> Iterator[None]:
    """Undoes what a command does to loggers, so that the next test sees what is logged, and no more."""
    logger, root = logging.getLogger("bertdata"), logging.getLogger()
    before, root_level = (logger.handlers[:], logger.level, logger.propagate), root.level
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    root.setLevel(root_level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real text that lies beside the project, where it does."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder of real text does not lie beside the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small uncased tokenizer that knows most words of the test corpus, and spells the others."""
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", *".,;:!?()'\"-", *WORDS[:-15]]
    vocab += [f"{mark}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for mark in ("", "##")]
    numbered = {token: number for number, token in enumerate(dict.fromkeys(vocab))}
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(new_bert_tokenizer(numbered, lowercase=True, strip_accents=True).to_str())
    return path


@pytest.fixture(scope="session")
def jsonl_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 documents of 2 to 30 sentences."""
    path = tmp_path_factory.mktemp("jsonl") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in iter_texts(300)))
    return path


@pytest.fixture(scope="session")
def wiki_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MediaWiki dump of 300 articles, 20 redirects and 5 talk pages."""
    path = tmp_path_factory.mktemp("wiki") / "wiki.xml"
    pages = [article(f"Title {number}", text) for number, text in enumerate(iter_texts(300))]
    pages += [article(f"Old {number}", "#REDIRECT [[Title 1]]", redirect="Title 1") for number in range(20)]
    pages += [article(f"Talk:Title {number}", "I think so too.", namespace=1) for number in range(5)]
    path.write_text('<mediawiki version="0.11" xml:lang="en">\n' + "".join(pages) + "</mediawiki>\n")
    return path


@pytest.fixture(scope="session")
def small_options(tokenizer_file: Path) -> BuildOptions:
    """Options of a quick build: two mask sets, small blocks, several shards."""
    return BuildOptions(
        tokenizer=TokenizerOptions(path=str(tokenizer_file)),
        pairs=PairOptions(max_seq_length=64, dupe_factor=2),
        masks=MaskOptions(num_mask_sets=2),
        shards=ShardOptions(num_shards=3, block_size=100),
        max_seq_lengths=(64,),
    )


@pytest.fixture(scope="session")
def small_data_set(tmp_path_factory: pytest.TempPathFactory, jsonl_file: Path, small_options: BuildOptions) -> Path:
    """A finished data set of three training shards and one for evaluation. Tests must not write to it."""
    out = tmp_path_factory.mktemp("small") / "shards"
    with open_build([str(jsonl_file)], out=out, options=small_options) as work:
        assert work is not None
        build_serially(work)
    return out
