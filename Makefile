# Every target makes the environment it needs; a fresh machine wants only Python 3.11 (or later) and make.
#
#   make up        start the cluster in run/, wait until it is ready      (UP="--nodes 3" for more)
#   make down      end every process of it
#   make test      lint, types and all tests
#   make check     lint, types and the tests that start no cluster
#   make bench     figures of starting, memory, requests and streams; make bench-konnectivity: tunnels beside their peers

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
SOURCE := wire certs miniapiserver minikubelet minicontroller konnectivity miniplane

# Compiling every module anew takes longer than starting the cluster.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up down status test check lint types bench clean

help:
	@sed -n 's/^#   //p' Makefile

up: $(VENV)/.runs
	@$(BIN)/miniplane up --state-dir run $(UP)

down: $(VENV)/.runs
	@$(BIN)/miniplane down --state-dir run

status: $(VENV)/.runs
	@$(BIN)/miniplane status --state-dir run

test: lint types
	$(BIN)/python -X dev -m pytest $(TESTS)

check: lint types
	$(BIN)/python -X dev -m pytest -m "not e2e and not upstream" $(TESTS)

lint: $(VENV)/.develops
	$(BIN)/ruff check $(SOURCE) tests

types: $(VENV)/.develops
	$(BIN)/mypy

# The figures of one cluster; bench-konnectivity and others by their module's name in bench/.
bench: bench-startup bench-api bench-streams

bench-%: $(VENV)/.develops
	$(BIN)/python -m bench.$* $(BENCH)

clean:
	@if [ -x $(BIN)/miniplane ]; then $(BIN)/miniplane down --state-dir run; fi
	rm -rf run $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
	find $(SOURCE) tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "miniplane needs Python 3.11 or later; PYTHON=/path/to/python names one" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.runs: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@$(BIN)/python -m compileall -q $(wildcard $(SOURCE))
	@touch $@

$(VENV)/.develops: $(VENV)/.runs
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,test]'
	@touch $@
