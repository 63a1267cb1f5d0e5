# Everything starts from a fresh machine with Python >= 3.11 and make:
#   make demo   environment, then the main job on an input it makes
#   make test   environment, then lint, types, import contracts and the whole test suite
#   make docs   environment, then the documentation in site/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Elsewhere, a machine without a GPU gets the CPU build of torch with
#   make test PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint types contracts pytest docs weights benchmark clean

demo: $(VENV)/installed
	$(BIN)/l1bsr-geo demo demo

test: lint types contracts pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

contracts: $(VENV)/installed
	$(BIN)/lint-imports

# a process for each core, a file at a time, each with a thread of its own for torch
pytest: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not benchmark" -n auto --dist loadfile

# without warnings and without a network; the test suite does the same
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# trains one of the shipped networks again: make weights NAME=dsa METHOD=dsa DATA=folder-of-photographs
weights: $(VENV)/installed
	$(BIN)/l1bsr-geo train $(METHOD) l1bsr_geo/models/weights/$(NAME).yaml --data $(DATA) --out runs/$(NAME)

benchmark: $(VENV)/installed
	$(BIN)/python tests/benchmarks/run.py

# the stamp is made anew when what it depends on changes
$(VENV)/installed: pyproject.toml .ci/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) demo site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
