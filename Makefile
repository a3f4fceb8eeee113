# Two commands: `make drill` and `make test`. Each does all its own set-up on a fresh machine.
.DEFAULT_GOAL := help
SHELL := /bin/bash
ARGS ?=

.PHONY: help setup test lint format trace clean

help:  ## Show what there is to make
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## Install what is missing; leaves the command at .venv/bin/hmsdr
	@scripts/setup.sh

test: lint  ## Lint, then run all tests; ARGS="-k name" selects some
	@.venv/bin/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: setup  ## Check style, types, import direction and the traceability page
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --config .importlinter >.import-linter.log || { cat .import-linter.log; exit 1; }
	@.venv/bin/python scripts/trace.py --check

format: setup  ## Rewrite the code in the project's style
	@.venv/bin/ruff check --quiet --fix .
	@.venv/bin/ruff format --quiet .

trace: setup  ## Write docs/requirements-trace.md from the tests' marks
	@.venv/bin/python scripts/trace.py

clean:  ## Remove what setup and tests left behind (not the virtual environment)
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .import-linter.log
