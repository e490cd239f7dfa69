PYTHON ?= python3
PYTHONS ?= $(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
# The profile of the random tests: `make test-long PROFILE=default` draws new set-ups.
PROFILE ?= ci
PYTEST := -m pytest --hypothesis-profile=$(PROFILE)
NUMERICAL := tests/solvers tests/boon tests/probconserv
# Settings of `make test-processors` in place of those of tests/processors.py: SETTINGS="MKL_CBWR=AVX2".
SETTINGS ?=

.PHONY: demo test test-processors test-perturbed test-long test-slow test-gpu test-oldest wheel-check check docs documents install clean

demo: $(VENV)/.installed
	$(BIN)/python -m experiments demo

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) --numprocesses 2 --dist loadgroup --no-loadscope-reorder

test-processors: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.processors $(SETTINGS) $(PYTEST) $(NUMERICAL) --numprocesses 2 --dist loadgroup --no-loadscope-reorder

test-perturbed: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) $(NUMERICAL) --perturb --numprocesses 2 --dist loadgroup --no-loadscope-reorder

test-long: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m 'long and not slow and not gpu' --numprocesses 2 --dist loadgroup --no-loadscope-reorder

test-slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m slow --numprocesses 2 --dist loadgroup

test-gpu: $(VENV)/.installed-dev
	$(BIN)/python $(PYTEST) -m gpu

test-oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(PYTEST) --numprocesses 2 --dist loadgroup --no-loadscope-reorder

wheel-check: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.wheel $(PYTHONS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

documents: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.documents
	$(BIN)/python -m docs.drawings

install: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; call make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[experiments]'
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed

# The lowest versions that pyproject.toml allows, and the tools of the tests beside them.
$(OLDEST)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST) --resolution lowest-direct --editable '.[experiments]'
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST) --editable '.[test]'
	$(OLDEST)/bin/uv pip list --quiet --python $(OLDEST)
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) .pytest_cache .ruff_cache .hypothesis
