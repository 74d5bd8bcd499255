"""What tests of several examples share."""

import importlib
import sys
from pathlib import Path

import pytest

FINETUNE = Path(__file__).parents[2] / "examples" / "finetune"


@pytest.fixture(scope="module")
def scripts():
    """The modules of examples/finetune/ by name, found as when one of them is run."""
    names = [path.stem for path in FINETUNE.glob("*.py")]
    before = [*sys.path]
    sys.path.insert(0, str(FINETUNE))
    yield {name: importlib.import_module(name) for name in names}
    sys.path[:] = before
    for name in (*names, "make_corpus"):
        sys.modules.pop(name, None)
