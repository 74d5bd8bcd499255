"""Modules keep to what they say: what one takes of another is public there, and every Python that is supported reads them."""

import ast
import importlib

import pytest

from tests.environments import ROOT

PACKAGES = ("bertdata", "pipelines", "trainer")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]


def parse(path):
    return ast.parse(path.read_text(), filename=str(path), feature_version=(3, 10))


def public_names(module):
    """Returns `__all__`, or of a module that is a list of rules, without one, what has no underscore."""
    return getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])


@pytest.mark.parametrize("package", PACKAGES)
def test_names_that_modules_take_of_each_other_are_public(package):
    taken = {
        (node.module, alias.name)
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{package}.")
        for alias in node.names
    }
    assert len(taken) > 10
    hidden = {(module, name) for module, name in taken if name not in public_names(importlib.import_module(module))}
    assert hidden == set()


def test_names_that_are_public_are_there():
    for path in MODULES:
        if path.stem != "__main__":
            module = importlib.import_module(f"{path.parent.name}.{path.stem}".removesuffix(".__init__"))
            assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == [], path.name


def test_examples_and_tests_are_written_for_the_oldest_python_too():
    for folder in ("examples", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            parse(path)
