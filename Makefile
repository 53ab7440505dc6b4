# Every target makes what it needs: a virtual environment with everything installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DB ?= sqlite
MINUTES ?= 10
JOBS ?= 10000
MESSAGES ?= 100000
WORKERS ?= 3

.DEFAULT_GOAL := help

.PHONY: help demo inbox test check bench bench-growth bench-docs interop soak soak-queues soak-messages limits clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## the order-checkout demo, killed and recovered (DB=sqlite or DB=postgres)
	$(BIN)/python examples/orders/demo.py --db $(DB)

inbox: $(VENV)/.installed ## agents that ask a person before they send, on a page of localhost (DB=postgres, ARGS="--port 8001")
	PYTHONPATH=examples/agent-inbox $(BIN)/python -m agent_inbox --db $(DB) $(ARGS)

test: $(VENV)/.installed ## all tests, on SQLite and Postgres
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(VENV)/.installed ## format, lint, types, import direction
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basedpyright --warnings
	$(BIN)/lint-imports

bench: $(VENV)/.installed ## speed, side by side with PyPI dbos (ARGS="--quick" for a short run)
	$(BIN)/python bench/run.py $(ARGS)

bench-growth: $(VENV)/.installed ## speed with a million finished or waiting workflows, memory of sleeping ones
	$(BIN)/python bench/growth.py $(ARGS)

bench-docs: $(VENV)/.installed ## both, written into docs/benchmarks.md and its chart
	$(BIN)/python bench/docs.py $(ARGS)

interop: $(VENV)/.installed ## exchange with PyPI dbos, with the TypeScript SDK (needs node and npm), and by plain SQL
	$(BIN)/python -m pytest -r s interop $(ARGS)

soak: $(VENV)/.installed ## kill worker processes at random for MINUTES (default 10)
	$(BIN)/python -m tests.kills.soak --minutes $(MINUTES)

soak-queues: $(VENV)/.installed ## four workers on a queue with JOBS workflows (default 10000), killed every few seconds
	$(BIN)/python -m tests.kills.soak --queue $(JOBS)

soak-messages: $(VENV)/.installed ## MESSAGES (default 100000) between 100 senders and 100 receivers, processes killed every few seconds
	$(BIN)/python -m tests.kills.soak --messages $(MESSAGES)

limits: $(VENV)/.installed ## 10,000 tasks per queue limit, by four processes: never exceeded, and used (ARGS="--tasks N")
	$(BIN)/python -m tests.queues.campaign $(ARGS)

clean: ## remove the virtual environments and caches
	rm -rf .venv .node-interop .venv-incumbent .venv-absurd .venv-pgqueuer .venv-oban .mypy_cache .ruff_cache .pytest_cache .hypothesis
