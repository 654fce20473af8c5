# Everything a newcomer or CI calls. Each target is what one would type by hand; `make help` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help up down controlplane test check format generate lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

up: $(VENV)/installed ## start three clusters, install PrfaaS, and serve a production trace
	$(BIN)/prfaas up

down: $(VENV)/installed ## stop all of that
	$(BIN)/prfaas down

controlplane: $(VENV)/installed ## build the programs of the local clusters, once
	$(BIN)/python -m prfaas_local.binaries

test: check controlplane ## run every check and every test
	$(BIN)/pytest tests --numprocesses=auto --maxprocesses=4 --dist=loadscope
	$(BIN)/pytest e2e

check: $(VENV)/installed ## format, lint, types, imports, generated files
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	PYTHONWARNINGS=ignore $(BIN)/lint-imports
	$(BIN)/python tools/generate_protocol.py --check
	$(BIN)/python tools/generate_crds.py --check

format: $(VENV)/installed ## rewrite the sources in the project's format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

generate: $(VENV)/installed ## regenerate the protocol stubs and the CRDs
	$(BIN)/python tools/generate_protocol.py
	$(BIN)/python tools/generate_crds.py

lock: ## pin all dependencies again (needs uv)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --group dev --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o requirements.lock

clean: ## remove the environment and the caches of the tools
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
