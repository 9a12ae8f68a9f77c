# `make` alone prints what there is. Needs Python 3.11+, make and the internet the first time; no Docker, no root, no Java.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECKED := streamapp tables agents tests
# Each of these has servers of its own, about 1.5 GB; more of them make slow machines slower, not faster.
WORKERS := 2
# What also runs on Windows, beside MetaTrader 5 or for who writes a bot (tests/test_windows.py keeps it complete).
WINDOWS := -p streamapp.processes -p streamapp.terminal -p streamapp.simulator -p streamapp.conformance -p streamapp.domain \
    -p streamapp.messages -p streamapp.nats -m streamapp.health -m streamapp.clients

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
    --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help demo up down clean test lint types imports docs docs-check quick unit bench bench-terminal wheel lock sbom

help: ## Print this.
	@echo "streamapp: approved signals in; orders, fills and positions out; no order twice."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Start a stack of its own, play approved signals for a minute, check that everyone agrees, stop.
	@$(BIN)/streamapp demo

up: $(READY) ## Start everything and keep it running until Ctrl-C; state stays in .local.
	@$(BIN)/streamapp up

down: $(READY) ## Stop what `make up` runs, from another terminal.
	@$(BIN)/streamapp down

clean: ## Stop it and remove .local, nothing else.
	@if [ -x $(BIN)/streamapp ]; then \
	    for data in .local .local/demo; do \
	        if [ -d $$data ]; then STREAMAPP_LOCAL__DATA=$$data $(BIN)/streamapp down || exit 1; fi; \
	    done; \
	fi
	rm -rf .local

test: lint types imports docs-check unit ## All checks and tests: what CI runs.

lint: $(READY) ## Style (ruff).
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)

types: $(READY) ## Types (mypy, strict), and again as Windows sees what runs there.
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 $(WINDOWS)

imports: $(READY) ## Which package may import which (import-linter).
	$(BIN)/lint-imports

docs: $(READY) ## Make a site of docs/ in build/site, with every link checked; needs no network.
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going -d build/site-cache docs build/site
	@echo "build/site/README.html"

docs-check: $(READY) docs ## The generated pages are what the code says, and no link leads nowhere.
	$(BIN)/python -m streamapp.docs --check

quick: $(READY) ## The tests that need no server, in under two minutes; tests/README.md says what is left out.
	$(BIN)/python -m pytest -q -m "not stack"

unit: $(READY) ## The tests, WORKERS files at a time; every branch of the domain must be covered by its own.
	$(BIN)/coverage run -m pytest tests/domain
	$(BIN)/coverage report --fail-under=100 --skip-covered
	$(BIN)/python -m pytest --ignore=tests/domain --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

bench: $(READY) ## Print latency, throughput and what an order costs, as Markdown (ten minutes and more; BENCH=--help).
	@$(BIN)/python -m tests.bench $(BENCH)

bench-terminal: $(READY) ## Measure the simulated module, and what a terminal adds to an order_send and costs (three minutes).
	@$(BIN)/python -m tests.bench --terminal

wheel: $(READY) ## Build dist/streamapp_mt5-VERSION-py3-none-any.whl: terminal, simulator, command line (README.md, "Install").
	@rm -rf build  # what an earlier build left there would be in the wheel as well
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

lock: ## Resolve requirements.txt and each image's part of it anew from pyproject.toml, for all platforms (needs uv).
	@command -v uv >/dev/null 2>&1 || { echo "make: expected uv to resolve the lock, got none: install it (pip install uv)" >&2; exit 1; }
	$(COMPILE) --all-extras --output-file requirements.txt pyproject.toml
	$(COMPILE) --constraint requirements.txt --extra trading --extra nkeys --output-file .requirements/worker.txt pyproject.toml
	$(COMPILE) --constraint requirements.txt --extra terminal --extra nkeys --output-file .requirements/terminal.txt pyproject.toml
	$(COMPILE) --constraint requirements.txt --output-file .requirements/simulator.txt pyproject.toml
	$(COMPILE) --constraint requirements.txt --extra notifier --output-file .requirements/notifier.txt pyproject.toml

sbom: $(READY) ## Write dist/sbom-PART.json: what each image installs, as a CycloneDX bill of materials.
	@mkdir -p dist
	@for part in worker terminal simulator notifier; do \
	    $(BIN)/cyclonedx-py requirements .requirements/$$part.txt --pyproject pyproject.toml --mc-type application \
	        --output-reproducible --output-format JSON --output-file dist/sbom-$$part.json || exit 1; \
	    echo "dist/sbom-$$part.json"; \
	done

$(READY): requirements.txt pyproject.toml
	@.ci/make-venv
	@touch $@
