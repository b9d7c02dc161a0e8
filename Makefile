# Each target first creates .venv if it is missing, and installs again when pyproject.toml or constraints.txt change.
#   make PYTHON=python3.12 test         with another Python; constraints.txt was resolved for 3.11
#   make CONSTRAINTS=newest.txt test    with other versions
#   make PYTEST="-k simulate" test      with arguments for pytest

PYTHON ?= python3
PYTEST ?=
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
INSTALL := PIP_BUILD_CONSTRAINT=$(CONSTRAINTS) $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)
OLD_PYTHON := "lucidcell needs Python 3.11 or newer and $(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=python3.11"
RUN_TESTS := MPLBACKEND=agg OMP_WAIT_POLICY=passive $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: demo test test-slow test-oracle bench lint clean help

demo: .venv/package.stamp ## train on the PBMC 3k extract and write runs/demo/report.html
	$(BIN)/lucidcell demo --out runs/demo

test: .venv/test.stamp ## fast tests, divided between two processes of one thread each
	OMP_NUM_THREADS=1 $(RUN_TESTS) --numprocesses 2 --dist loadfile -m "not slow and not oracle" $(PYTEST)

test-slow: .venv/test.stamp ## tests that take longer than a few seconds
	$(RUN_TESTS) -m "slow and not oracle" $(PYTEST)

test-oracle: .venv/oracle.stamp ## agreement with scvi-tools, scib-metrics, gseapy, captum and POT
	$(RUN_TESTS) -m oracle $(PYTEST)

bench: .venv/bench.stamp ## throughput, time to quality and memory against scvi-tools
	for name in throughput time_to_quality memory; do $(BIN)/python benchmarks/$$name.py || exit 1; done

lint: .venv/lint.stamp ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean: ## remove .venv, builds and caches; runs/ stays
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.venv/package.stamp: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else $(OLD_PYTHON))'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1" # the first with dependency groups
	$(INSTALL) --editable .
	touch $@

.venv/%.stamp: .venv/package.stamp
	$(INSTALL) --group $*
	touch $@
