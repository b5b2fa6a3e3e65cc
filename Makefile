# make quickstart: the whole pipeline on the embedded cohort; make test: lint and all tests.
# Both start from nothing but Python 3.11 or 3.12.
SUPPORTED := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
# The first that runs: a version manager may put names on the path that lead nowhere.
PYTHON ?= $(shell for name in python3.11 python3.12 python3 python; do \
  $$name -c '$(SUPPORTED)' 2>/dev/null && { command -v $$name; break; }; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint clean

quickstart: $(VENV)/installed
	$(BIN)/python launch/main.py --config=configs/pipeline.py --workdir=runs/quickstart

test: lint
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null \
	  || { echo "endoclip_jax needs Python 3.11 or 3.12: name one with make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/installed: setup.py constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache
