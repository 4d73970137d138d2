# Two commands do everything: `make run` and `make test`. Both install what they need first, once.
# The other targets are what CI and developers call; `make help` lists them.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# ONNX Runtime for CUDA where an NVIDIA driver answers, for the CPU elsewhere.
DEVICE_EXTRA := $(if $(shell command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null),gpu,cpu)
# What `make run` passes on, for example ARGS=--once.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test test-compose soak bench lint format proto dashboards manifests install install-dev clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

run: $(VENV)/.installed ## train, export, serve, and show conversions; goes on serving until Ctrl-C
	@scripts/quickstart.sh $(ARGS)

test: $(VENV)/.installed-dev ## run the whole test suite, on all cores, in random order, with branch coverage
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile \
		--cov --cov-report=term:skip-covered --cov-report=html $(PYTEST_ARGS)

test-compose: $(VENV)/.installed-dev ## build the images, start docker-compose.yml on an engine of its own, and try it (root, Debian)
	@$(BIN)/python -m pytest -m compose -s tests/operations $(PYTEST_ARGS)

soak: $(VENV)/.installed-dev ## minutes of traffic while versions come and go; prints what was answered and what is held
	@$(BIN)/python -m pytest -m soak -s $(PYTEST_ARGS)

bench: $(VENV)/.installed-dev ## measure this server beside others, and write docs/performance.md; QUICK=1 for a short look
	@benchmarks/install.sh $(PEERS)
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(BENCH_ARGS)

lint: $(VENV)/.installed-dev ## check style, types, layers, dependencies, contracts, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry .
	cd proto && ../$(BIN)/buf lint
	cd proto && ../$(BIN)/buf format --diff --exit-code
	scripts/generate_stubs.sh --check
	$(BIN)/python -m deploy.grafana --check
	$(BIN)/python -m deploy.kubernetes --check
	$(BIN)/codespell

format: $(VENV)/.installed-dev ## format the code, and mend what can be mended by itself
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	cd proto && ../$(BIN)/buf format --write

proto: $(VENV)/.installed-dev ## generate the Python stubs from the .proto files
	scripts/generate_stubs.sh

dashboards: $(VENV)/.installed-dev ## write the dashboards' JSON from deploy/grafana
	$(BIN)/python -m deploy.grafana

manifests: $(VENV)/.installed-dev ## write Prometheus' rules for Kubernetes from deploy/prometheus
	$(BIN)/python -m deploy.kubernetes

install: $(VENV)/.installed ## install what running needs
install-dev: $(VENV)/.installed-dev ## install what developing needs

$(VENV)/.installed: pyproject.toml constraints.txt
	@scripts/install.sh $(VENV) $(DEVICE_EXTRA),training
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	@scripts/install.sh $(VENV) $(DEVICE_EXTRA),training,tracing,dev
	@touch $@ $(VENV)/.installed

clean: ## remove what was installed, built and cached; published models stay
	rm -rf $(VENV) build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
