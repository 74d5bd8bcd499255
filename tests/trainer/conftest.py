"""Fixtures of small data sets, and one thread for matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bertdata.data_set import DataSet
from tests.small_data_set import make_data_set

torch.set_num_threads(1)  # matrices are too small for more


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """160 training samples in 5 blocks of 2 shards, 41 held out, 3 mask sets."""
    return make_data_set(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def new_data_set(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DataSet]:
    """Returns a function that writes a data set of its own; it takes the options of `make_data_set`."""
    return lambda **options: make_data_set(tmp_path_factory.mktemp("shards"), **options)
