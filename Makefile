# Everything a newcomer types: `make run`, `make test`. `make help` lists the rest.
# Variables are explained in docs/settings.md.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The interpreter that .venv is made from: any Python 3.11 that has the venv module.
IS_PYTHON := import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))
PYTHON ?= $(shell for name in python3.11 python3 python; do \
	if "$$name" -c '$(IS_PYTHON)' 2>/dev/null; then command -v "$$name"; break; fi; done)
# More arguments for every `pip install`, for example `--proxy URL`.
PIP_ARGS ?=
# The address of an index that has CPU builds of torch. Empty: torch comes from wherever pip is set to look.
TORCH_INDEX ?=
# More arguments for the program that a goal starts: `make run ARGS="--desk desks/mine"`.
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/installed-from-lock
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.txt)

# A run that must not skip the browser tests: CI, or whoever sets the variable.
SWITCHBOARD_REQUIRE_BROWSER ?= $(if $(CI),1,)
export SWITCHBOARD_REQUIRE_BROWSER
# The same for the tests that need PostgreSQL's server programs.
SWITCHBOARD_REQUIRE_POSTGRES ?= $(if $(CI),1,)
export SWITCHBOARD_REQUIRE_POSTGRES
# And for the tests of text recognition in scanned pages.
SWITCHBOARD_REQUIRE_TESSERACT ?= $(if $(CI),1,)
export SWITCHBOARD_REQUIRE_TESSERACT

NO_PYTHON := Switchboard needs Python 3.11 with its venv module and found none: install it (on Debian 12: \
apt-get install python3 python3-venv) or name it (make PYTHON=/path/to/python3.11 ...).

.PHONY: help run test test-slow test-gpu check format evaluate lock browser postgres tesseract clean

help: ## list the goals
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

run: $(INSTALLED) ## start the app on port 7860 (the first time: make .venv and build the index)
	@exec $(BIN)/python -m app $(ARGS)

test: $(INSTALLED) browser postgres tesseract ## run the tests, those in a real browser and on a real PostgreSQL included
	$(BIN)/python -m pytest -m "not slow and not gpu" $(ARGS)

test-slow: $(INSTALLED) ## run the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu" $(ARGS)

test-gpu: $(INSTALLED) ## run the tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(INSTALLED) ## ruff (rules and layout) and mypy, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## lay the code out and repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

evaluate: $(INSTALLED) ## measure the desk on its golden turns; fails where a figure is below its floor
	$(BIN)/python -m evaluation desk --only turns --floors $(ARGS)

$(BIN)/python:
	@python="$(PYTHON)"; "$${python:-false}" -c '$(IS_PYTHON)' 2>/dev/null \
		|| { echo "$(NO_PYTHON)" >&2; exit 1; }; \
	"$$python" -m venv --clear $(VENV)

# With the CPU build of torch in place, `torch==...` in the lock is satisfied and no second one is fetched.
$(INSTALLED): requirements.lock $(BIN)/python
	$(if $(TORCH_INDEX),$(PIP) install $(PIP_ARGS) --no-deps --index-url "$(TORCH_INDEX)" "$(TORCH)")
	$(PIP) install $(PIP_ARGS) -r requirements.lock
	@touch $@

# What tests need from Debian, where it is missing and may be installed. Without it these tests skip themselves.
# 1: name, 2: a command that finds it, 3: packages, 4: the variable of a run that may not skip, 5: what to do before.
define from_debian
	@if $(2); then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=(env DEBIAN_FRONTEND=noninteractive); \
	else as_root=(sudo -n env DEBIAN_FRONTEND=noninteractive); fi; \
	install() { "$${as_root[@]}" apt-get -q install -y --no-install-recommends "$$@" </dev/null; }; \
	if command -v apt-get >/dev/null && "$${as_root[@]}" true 2>/dev/null \
		&& "$${as_root[@]}" apt-get -q update </dev/null $(5) && install $(3); \
	then exit 0; fi; \
	if [ -n "$$$(4)" ]; then \
		echo "No $(1) could be installed, and this run may not skip the tests that need it (CI or $(4) is set)." >&2; \
		exit 1; fi; \
	echo "No $(1) could be installed: the tests that need it will be skipped. As root: apt-get install $(3)" >&2
endef

browser:
	$(call from_debian,Chromium,command -v chromium chromium-browser google-chrome >/dev/null,\
		chromium fonts-liberation,SWITCHBOARD_REQUIRE_BROWSER)

# The tests start a server of their own, in a folder of their own, so no cluster is made beside it.
postgres:
	$(call from_debian,PostgreSQL,{ compgen -G '/usr/lib/postgresql/*/bin/initdb' \
		|| compgen -G '/usr/local/pgsql/bin/initdb' || command -v initdb; } >/dev/null,postgresql,SWITCHBOARD_REQUIRE_POSTGRES,&& install postgresql-common \
		&& "$${as_root[@]}" sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' \
			/etc/postgresql-common/createcluster.conf)

tesseract:
	$(call from_debian,Tesseract,command -v tesseract >/dev/null,tesseract-ocr,SWITCHBOARD_REQUIRE_TESSERACT)

# A fresh environment is resolved, so that the lock holds what the two files need and nothing else. Left out:
# pip itself, and the CUDA packages, which torch's default build for Linux pins by itself.
lock: $(BIN)/python ## resolve the two requirements files anew and write requirements.lock
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(BIN)/python -m venv "$$scratch/venv"; \
	pip="$$scratch/venv/bin/python -m pip --disable-pip-version-check"; \
	if [ -n "$(TORCH_INDEX)" ]; then \
		$$pip install $(PIP_ARGS) --no-deps --index-url "$(TORCH_INDEX)" "$(TORCH)"; fi; \
	$$pip install $(PIP_ARGS) -r requirements.txt -r requirements-dev.txt; \
	{ \
		echo "# Every package that requirements.txt and requirements-dev.txt need, at the version that is tested."; \
		echo "# Written by \`make lock\`: a fresh environment of Python 3.11, the two files installed, \`pip freeze\`;"; \
		echo "# without pip itself, build labels, and the CUDA packages, which torch pins by itself where it uses them."; \
		$$pip freeze --all --exclude pip --exclude wheel \
			| sed 's/+[^ ;]*$$//' \
			| { grep -viE '^(nvidia-|cuda-|triton==)' || true; } \
			| LC_ALL=C sort -f; \
	} > requirements.lock.new; \
	if grep -nE '://| @ ' requirements.lock.new; then \
		echo "make lock: the lines above are not of the form name==version; the old lock is kept." >&2; \
		rm requirements.lock.new; exit 1; fi; \
	mv requirements.lock.new requirements.lock

clean: ## remove .venv and caches (var/, the app's own state, stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
