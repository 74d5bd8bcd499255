"""What may import what: a GPU node needs no Beam, a Beam worker no torch, and reading shards needs neither."""

import pkgutil
import subprocess
import sys

import pytest

HEAVY = ("apache_beam", "torch", "transformers", "sentencex", "datasets", "webdataset", "pipelines")


def modules_of(package):
    found = __import__(package)
    return [
        package,
        *(f"{package}.{module.name}" for module in pkgutil.iter_modules(found.__path__) if module.name != "__main__"),
    ]


def loaded_after_importing(*modules, names=HEAVY):
    code = f"import sys, {', '.join(modules)}; print(*[name for name in {names!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("package", "allowed"), [("bertdata", set()), ("pipelines", {"apache_beam", "pipelines"}), ("trainer", {"torch"})]
)
def test_package_imports_only_what_it_may(package, allowed):
    assert set(loaded_after_importing(*modules_of(package))) <= allowed


def test_only_the_report_imports_what_draws_it():
    drawing = {f"bertdata.{name}" for name in ("report", "plots", "figures", "page")}
    drawing |= {f"trainer.{name}" for name in ("report", "run_figures", "run_plots", "follow_page")}
    modules = [name for package in ("bertdata", "trainer") for name in modules_of(package) if name not in drawing]
    assert loaded_after_importing(*modules, names=("jinja2", "matplotlib")) == []


def test_page_about_a_run_needs_no_torch():
    assert loaded_after_importing("trainer.cli", "trainer.report") == []
