# Everything a contributor or CI does. Each target does its own set-up; Python 3.11 and make are enough.

PYTHON ?= python3
AIRFLOW ?= 3.3
# Processes that run tests, three for two cores since some tests wait; JOBS=0 runs them all in one, as a debugger needs it.
JOBS ?= $(shell $(PYTHON) -c 'import os; print((3 * (os.cpu_count() or 1) + 1) // 2)')
VERSIONS := 2.11 3.0 3.1 3.2 3.3

# The newest Airflow lives in .venv, the others in .venvs/airflow-<version>.
venv_of = $(if $(filter 3.3,$(1)),.venv,.venvs/airflow-$(1))
extra_of = $(if $(filter 2.11 3.3,$(1)),dev,test)
VENV := $(call venv_of,$(AIRFLOW))
BIN := $(VENV)/bin
# The tests of a file share fixtures, so they stay in one process; the long files come first in the alphabet.
IN_PARALLEL := --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
PIP_OPTIONS := --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo test coverage lint test-all test-live test-distributed bench soak airflow docs dist install clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

install: $(VENV)/.installed ## create the virtual environment

$(VENV)/.installed: pyproject.toml constraints/airflow-$(AIRFLOW).txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=...")'
	@echo "Installing Airflow $(AIRFLOW) and the provider into $(VENV); the first time this takes a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --constraint constraints/airflow-$(AIRFLOW).txt --editable '.[$(call extra_of,$(AIRFLOW))]'
	@touch $@

# What a part of the tests needs beyond that: .installed-browser, .installed-distributed.
$(VENV)/.installed-%: $(VENV)/.installed
	@$(BIN)/python -m pip install $(PIP_OPTIONS) --constraint constraints/airflow-$(AIRFLOW).txt --editable '.[$*]'
	@touch $@

demo: $(VENV)/.installed ## run one DAG against a local Quick BI and explain each step
	@$(BIN)/python -m dev.demo

# What depends on the environment that CONDITIONS changes; see tests/conditions.py.
IN_CONDITIONS := tests/api tests/hook tests/airflow tests/airflow_run tests/test_docs.py tests/test_event_trigger.py tests/test_sharing_waits.py
export CONDITIONS
# Tests start many processes, each of which would compile this project anew, as pytest would rewrite its tests.
unexport PYTHONDONTWRITEBYTECODE

test: $(VENV)/.installed ## run the test suite (AIRFLOW=2.11 for another version, TESTS=... for a part, CONDITIONS=proxies or database for users' environments, JOBS=0 in one process)
	@$(if $(COVERAGE),$(BIN)/python -m coverage erase)
	@$(BIN)/python $(if $(COVERAGE),-m coverage run) -m pytest $(IN_PARALLEL) $(or $(TESTS),$(if $(CONDITIONS),$(IN_CONDITIONS)))
	@$(if $(COVERAGE),$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage report)

coverage: ## run the test suite and fail if it reaches less than 95 % of the lines and branches
	@$(MAKE) --no-print-directory test COVERAGE=1

lint: $(VENV)/.installed ## run ruff, mypy, import-linter and codespell
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell

test-all: ## run the test suite on every supported Airflow
	@set -e; for version in $(VERSIONS); do echo "Airflow $$version"; $(MAKE) --no-print-directory test AIRFLOW=$$version; done

# Playwright's Python client is only of use where Debian's Chromium is; make does not install that.
test-live: $(VENV)/.installed$(if $(shell command -v chromium || command -v chromium-browser),-browser) ## test in a real Airflow 3, and in Chromium if it is installed (TESTS=... for a part)
	@$(BIN)/python -m pytest -rs $(or $(TESTS),tests/live)

test-distributed: $(VENV)/.installed-distributed ## test under CeleryExecutor with PostgreSQL, Redis, two workers and two triggerers
	@QUICKBI_TEST_REDIS=$${QUICKBI_TEST_REDIS:-redis://127.0.0.1:6379} $(BIN)/python -m pytest tests/api/shared tests/distributed

bench: $(VENV)/.installed ## measure pacing, sharing, cost of a poll, memory, paging and imports (SECTIONS=... for a part, such as whole)
	@$(BIN)/python -m benchmarks $(SECTIONS)

soak: $(VENV)/.installed ## inject random faults for 15 minutes (SEED=..., SECONDS=...)
	@$(BIN)/python -m tests.reliability.soak

export SEED SECONDS

airflow: $(VENV)/.installed ## start Airflow with a local Quick BI and the example DAGs
	@$(BIN)/python -m dev.playground

docs: $(VENV)/.installed-docs ## build the documentation site into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dist: $(VENV)/.installed ## build and check sdist and wheel
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation
	@$(BIN)/python -m twine check --strict dist/*
	@$(BIN)/python -m dev.release_check

clean: ## remove what the other targets created
	@rm -rf .venv .venvs .demo .airflow .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
