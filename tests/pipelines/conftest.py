"""Fixtures of the pipeline's tests: what the serial loop, the oracle of every other way to run a build, makes."""

import dataclasses

import pytest

from bertdata.build import build_serially
from bertdata.config import TokenizerOptions
from bertdata.launch import open_build
from tests.bertdata.test_build import digests


@pytest.fixture(scope="session")
def trained(small_options):
    """Options that train a vocabulary, so that every stage runs."""
    return dataclasses.replace(small_options, tokenizer=TokenizerOptions(vocab_size=300))


@pytest.fixture(scope="session")
def serial(tmp_path_factory, wiki_file, trained):
    """Digests of what the serial loop builds."""
    out = tmp_path_factory.mktemp("serial") / "shards"
    with open_build([str(wiki_file)], out=out, options=trained) as work:
        build_serially(work)
    return digests(out)
