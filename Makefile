# Two commands: `make drill` and `make test`. Each does all its own set-up on a fresh machine.
.DEFAULT_GOAL := help
SHELL := /bin/bash
ARGS ?=
ROUNDS ?= 5
OUT ?= .hmsdr/bench
SEEDS ?= 100000
SEED ?=
BREAKAGE ?=

.PHONY: help setup drill bench test simulate breakages crash-test faults lint format trace clean

help:  ## Show what there is to make
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## Install what is missing; leaves the command at .venv/bin/hmsdr
	@scripts/setup.sh

drill: setup  ## Kill a region of a hospital under traffic, fail over, report; ARGS="--out DIR" and more
	@.venv/bin/hmsdr drill run regional-outage --dir .hmsdr/drill-lab $(ARGS)

test: lint  ## Lint, then run all tests; ARGS="-k name" selects some
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python scripts/suite.py $(ARGS)

bench:  ## Failover, detection, switchover beside Patroni, watching, journal, simulator; ROUNDS=9 OUT=DIR
	@scripts/setup.sh bench
	@.venv/bin/python -m bench --rounds $(ROUNDS) --out "$(OUT)" $(ARGS)

simulate: setup  ## The protocol under simulated faults; SEEDS=1000000 (nightly), or SEED=n for its story
	@.venv/bin/python -m hmsdr.sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(if $(BREAKAGE),--breakage $(BREAKAGE)) $(ARGS)

breakages: setup  ## Leave out each rule of the protocol in turn, until the simulator catches it
	@.venv/bin/python -m hmsdr.sim --breakages --seeds $(SEEDS) $(ARGS)

crash-test: setup  ## Kill a real failover, and a real recovery, after each of many events, and resume it (minutes)
	@HMSDR_CRASH_POINTS=$$(seq -s, 1 3 100) HMSDR_RECOVERY_CRASH_POINTS=$$(seq -s, 1 3 70) .venv/bin/python -m pytest -q \
	  tests/lab/test_crashes.py tests/lab/test_recovery.py -k killed $(ARGS)

faults: setup  ## Every real fault on real servers: wires cut, processes stopped, a disk filled (10 minutes)
	@HMSDR_FAULTS=all PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m pytest -q tests/lab/test_real_faults.py $(ARGS)

lint: setup  ## Check style, types, import direction and the traceability page
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/mypy --config-file tests/mypy.ini --no-error-summary
	@.venv/bin/lint-imports --config .importlinter >.import-linter.log || { cat .import-linter.log; exit 1; }
	@.venv/bin/python scripts/trace.py --check

format: setup  ## Rewrite the code in the project's style
	@.venv/bin/ruff check --quiet --fix .
	@.venv/bin/ruff format --quiet .

trace: setup  ## Write docs/requirements-trace.md from the tests' marks
	@.venv/bin/python scripts/trace.py

clean:  ## Remove what setup and tests left behind (not the virtual environment)
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .import-linter.log
