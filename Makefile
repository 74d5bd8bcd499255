# The project's own commands. `make quickstart` and `make test` need nothing but Python >= 3.10 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: setup quickstart test test-slow package lint clean

setup: $(READY)

# torch first: its pinned version has a build without CUDA on machines that offer one. Nothing is compiled beforehand:
# most modules of these packages are never imported, and Python compiles the others once, when they are. That it keeps
# what it has compiled must not be turned off, as images of containers do: torch and transformers take seconds each time.
unexport PYTHONDONTWRITEBYTECODE
$(READY): pyproject.toml constraints.txt
	@echo "installing torch, Apache Beam, transformers and the rest into $(VENV): some minutes, about 1.8 GB"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

quickstart: $(READY)
	$(BIN)/python examples/quickstart/run.py --out quickstart

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile --durations 10

# The slow group installs the wheel beside what is installed here; this one fetches each extra from the index (minutes).
package: $(READY)
	BERTDATA_TEST_INSTALLS=index $(BIN)/python -m pytest -m slow tests/test_packaging.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info quickstart
