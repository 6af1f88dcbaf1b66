# The same commands for people and CI. Each sets up what it needs by itself: a virtual environment in .venv with the
# versions pinned in constraints.txt. Only relative paths here, so that a checkout may lie under a path with spaces.

PY := .venv/bin/python
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check format bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@printf '\nBenchmarks: make bench-NAME for each tests/bench/bench_NAME.py.\n'
	@printf 'Another Python: make clean, then make PYTHON=/path/to/python3 setup\n'

setup: $(READY) ## make .venv with the pinned versions (every other target does it by itself)

# Runs again only when what is to be installed has changed.
$(READY): pyproject.toml constraints.txt .ci/setup
	@PYTHON='$(PYTHON)' .ci/setup
	@touch $(READY)

demo: $(READY) ## two local Ray clusters, two jobs, two receipts and a verified report (3-5 minutes)
	@echo '==> demo: examples/demo.py, on two local Ray clusters in a temporary folder'
	@$(PY) examples/demo.py

test: $(READY) ## every suite but the slow tests, with each suite's time against its budget
	@$(PY) tests/suites.py

test-all: $(READY) ## every test there is, the slow ones too
	@$(PY) tests/suites.py --slow

check: $(READY) ## format, lint, types, and the layers of the house
	@echo '==> format'; $(PY) -m ruff format --check .
	@echo '==> lint'; $(PY) -m ruff check .
	@echo '==> types'; $(PY) -m mypy
	@echo '==> layers'; .venv/bin/lint-imports --no-cache

format: $(READY) ## put the code in the form that `make check` asks for
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix-only .

bench: $(READY) ## every benchmark, one after another
	@set -e; for file in tests/bench/bench_*.py; do echo "==> $$file"; $(PY) "$$file"; done

bench-%: $(READY) ## one benchmark: make bench-cli runs tests/bench/bench_cli.py
	@$(PY) tests/bench/bench_$(subst -,_,$*).py

clean: ## remove .venv and what builds and tests leave
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
