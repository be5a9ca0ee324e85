# Everything starts from `python3` (3.11 or newer) and make; each target sees to its own environment.
#
#   make train ARGS="total_steps=200000 num_seeds=2 out_dir=DIR"    overrides, passed to `hajax train`
#   make bench ARGS="--agents 3 --seeds 1 --output FILE.json"       arguments for benchmarks/throughput.py, which writes
#                                                                   throughput.json otherwise
#   make train EXTRAS=cuda                                          extras to install beside the package
#   make test PYTEST_ARGS="-x tests/cli" WORKERS=0                 arguments for pytest; tests run in 2 processes
#   make train PYTHON=python3.12                                    another interpreter for .venv

PYTHON ?= python3
VENV := .venv
EXTRAS ?=
ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed$(if $(EXTRAS),-$(EXTRAS))
STAMP_DEV := $(VENV)/.installed-dev
WITH_GPU := dev,cuda
STAMP_GPU := $(VENV)/.installed-dev-cuda

.DEFAULT_GOAL := help
.PHONY: help train bench bench-gpu test test-evidence lint format settings docs clean install install-dev

help:
	@echo "make train    install into $(VENV) and train HAPPO on MPE simple_spread (ARGS=\"num_seeds=2 ...\" overrides)"
	@echo "make bench    install and measure steps per second beside a single-file IPPO (ARGS=\"--agents 3 ...\")"
	@echo "make bench-gpu   install JAX for a GPU and measure everything that is to be measured there, in ten minutes"
	@echo "make test     lint, formatting, types and the tests of the library"
	@echo "make test-evidence   the tests of all else: pages against numbers, notebooks, README's commands, benchmarks"
	@echo "make lint     ruff and mypy only"
	@echo "make format   reformat and apply ruff's fixes"
	@echo "make settings write docs/settings.md, the table of all settings"
	@echo "make docs     make the documentation site, build/site/index.html; a dead link is an error"
	@echo "make clean    remove the environment and all caches (never runs/)"

train: $(STAMP)
	@$(BIN)/python -m hajax train render=auto $(ARGS)

bench: $(STAMP)
	@$(BIN)/python benchmarks/throughput.py --output throughput.json $(ARGS)

bench-gpu: $(STAMP_GPU)
	@$(BIN)/python benchmarks/gpu.py --output gpu.json $(ARGS)

# CI runs both.
test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not evidence" $(PYTEST_ARGS)

test-evidence: $(STAMP_DEV)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m evidence $(PYTEST_ARGS)

lint: $(STAMP_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

settings: $(STAMP_DEV)
	$(BIN)/python -m hajax.runs.reference > docs/settings.md

docs: $(STAMP_DEV)
	$(BIN)/python docs/site/make_site.py build

install: $(STAMP)
install-dev: $(STAMP_DEV)

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# `.complete` exists only while no installation is under way. pip takes a package that was half copied when it was
# killed for installed, so an environment without that file is built anew.
define install_into_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hajax needs Python 3.11 or newer; $(PYTHON) is not. Name another one: make train PYTHON=python3.12" >&2; exit 1; }
	@if [ -e $(VENV)/.complete ] && $(BIN)/python -c ''; then rm -f $(VENV)/.complete $(VENV)/.installed*; \
	  else rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(if $(1),[$(1)])'
	@touch $(VENV)/.installed $@ $(VENV)/.complete
endef

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(call install_into_venv,dev)

$(STAMP_GPU): pyproject.toml constraints.txt
	$(call install_into_venv,$(WITH_GPU))

ifneq ($(STAMP),$(STAMP_DEV))
$(STAMP): pyproject.toml constraints.txt
	$(call install_into_venv,$(EXTRAS))
endif
