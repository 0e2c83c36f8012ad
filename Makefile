# `make up` needs Python >= 3.11 and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Tests wait for processes more than they compute: more of them at once than a small machine has cores.
PYTEST_ARGS ?= -n 3 --dist loadfile
CHAOS_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help up demo test mutants chaos bench lint clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)/.installed ## start everything, until Ctrl-C
	@exec $(BIN)/model-gateway up

demo: $(VENV)/.installed ## send a whole and a streamed request, show costs and signatures
	@exec $(BIN)/model-gateway demo

test: $(VENV)/.installed-dev ## run every test against real servers
	@$(BIN)/python -m pytest --quiet --ignore=tests/mutants $(PYTEST_ARGS)

mutants: $(VENV)/.installed-dev ## put deliberate bugs into copies: the tests must catch them
	@$(BIN)/python -m pytest --quiet -n 2 tests/mutants

chaos: $(VENV)/.installed-dev ## the long form of the tests that kill things, for half an hour
	@CHAOS=full $(BIN)/python -m pytest --quiet $(CHAOS_ARGS) tests/chaos tests/isolation

bench: $(VENV)/.installed ## measure CPU, latency and throughput, for a minute and a half
	@$(BIN)/python -m benchmarks.gateway
	@$(BIN)/python -m benchmarks.transports

lint: $(VENV)/.installed-dev ## ruff, mypy, the import rules, dead code
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@report=$$($(BIN)/lint-imports 2>&1) || { echo "$$report"; exit 1; }
	@$(BIN)/vulture

clean: ## remove what make and the tests made; data in .gateway stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Making $(VENV) ..." >&2
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	else $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $(VENV) install pip; \
	fi || { rm -rf $(VENV); echo "This Python can't make environments: install python3-venv, or pip" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing what the gateway runs on ..." >&2
	@$(PIP) install --editable '.[embedded,insights,sdk]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing what the tests run on ..." >&2
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.installed
