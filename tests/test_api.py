"""The public names of `bertdata` and `trainer`: complete, documented, and there without torch until one needs it."""

import inspect
import pkgutil
import re

import pytest

import bertdata
import trainer
from bertdata import errors
from tests.test_imports import loaded_after_importing

PUBLIC = {
    f"{package.__name__}.{name}": getattr(package, name) for package in (bertdata, trainer) for name in package.__all__
}


def parameters_of(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def sections_of(documented):
    """Returns the names that are described under Args and Attributes, those of base classes too."""
    kinds = documented.__mro__[:-1] if inspect.isclass(documented) else [documented]
    found = set()
    for kind in kinds:
        for section in re.findall(
            r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", inspect.cleandoc(kind.__doc__ or ""), re.M
        ):
            found.update(re.findall(r"^    (\w+):", section, re.M))
    return found


@pytest.mark.parametrize("package", [bertdata, trainer], ids=lambda package: package.__name__)
def test_public_names_are_sorted_and_there(package):
    assert sorted(package.__all__) == package.__all__
    assert set(package.__all__) <= set(dir(package))
    assert not hasattr(package, "no_such_name")


@pytest.mark.parametrize("package", [bertdata, trainer], ids=lambda package: package.__name__)
def test_no_module_hides_a_public_name(package):
    """A module that is imported becomes an attribute of its package, in place of what has the same name there."""
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert modules.isdisjoint(package.__all__)


def test_every_error_is_public():
    assert set(errors.__all__) <= set(bertdata.__all__)


def test_names_of_trainer_load_torch_when_they_are_used_only():
    assert loaded_after_importing("trainer", "bertdata") == []
    assert loaded_after_importing("trainer.config") == []
    assert "torch" in loaded_after_importing("trainer.model")


def test_types_of_trainer_are_those_that_it_gives():
    """The names that type checkers see, under TYPE_CHECKING, are those that are there when the program runs."""
    source = inspect.getsource(trainer)
    checked = re.findall(r"^    from trainer\.(\w+) import (.+)$", source, re.M)
    assert {name: module for module, names in checked for name in names.split(", ")} == trainer._MODULES
    assert set(trainer._MODULES) == set(trainer.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_object_says_what_it_is_and_takes(name):
    public = PUBLIC[name]
    assert inspect.getdoc(public), "it has no docstring"
    if inspect.isclass(public) and (issubclass(public, Exception) or getattr(public, "_is_protocol", False)):
        return
    assert set(parameters_of(public)) <= sections_of(public)
    methods = inspect.getmembers(public, inspect.isroutine) if inspect.isclass(public) else []
    own = [method for method, value in methods if method in vars(public) and not method.startswith("_")]
    assert [method for method in own if not inspect.getdoc(getattr(public, method))] == []
