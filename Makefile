# Two commands matter: `make serve` and `make test`. Each makes the environment it needs.
PYTHON ?= python3
PORT ?= 8000
MINUTES ?= 30
CASES ?= 5000
BIN := .venv/bin
# Tests that keep time, or fill the machine: by themselves.
ALONE := tests/loadtest tests/deploy tests/service/test_chaos.py tests/service/http/test_slow_clients.py \
  tests/service/http/test_hostile_bodies.py
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: serve test test-fused lint bench bench-peers bench-gpu soak schema-test image image-test clean

serve: .venv/.serve  ## serve the shipped bundles
	FATHOM_PORT=$(PORT) $(BIN)/fathom serve

test: .venv/.test  ## run every test: two files at a time, then those that keep time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ALONE:%=--ignore=%)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ALONE)

test-fused: .venv/.test .venv-fused/.triton  ## the fused kernel, interpreted and compiled: needs no GPU, but Triton
	PYTHONPATH=.venv-fused OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/service/runners/test_fused.py

lint: .venv/.test  ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.test  ## measure the runner, the engine, the service and what neighbours cost each other
	for benchmark in runner engine loopback neighbours takeovers; do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$benchmark.py || exit 1; done

bench-peers: .venv/.test  ## the same step graph in other servers, from an environment of their own in .venv-peers
	test -x .venv-peers/bin/python || ($(PYTHON) -m venv .venv-peers && .venv-peers/bin/python -m pip install --quiet litserve 'ray[serve]' bentoml 'fastapi' 'uvicorn[standard]' onnxruntime numpy pydantic)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/peers.py --python .venv-peers/bin/python

bench-gpu: .venv/.test  ## measure what a GPU does for a model, in about ten minutes, into runs/gpu.json
	$(BIN)/python benchmarks/gpu.py

soak: .venv/.test  ## a minute of chaos, then whether memory stays under load: two parts of MINUTES each
	OMP_NUM_THREADS=1 CHAOS_SECONDS=60 $(BIN)/python -m pytest tests/service/test_chaos.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

schema-test: .venv/.test  ## send CASES requests drawn from the API's description, and hold the answers against it
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.service.fuzzing --cases $(CASES)

image:  ## build the CPU image
	docker build --build-arg EXTRA=cpu --build-arg REVISION=$$(git rev-parse --short HEAD) --tag fathom:cpu .

image-test: .venv/.test  ## bring the image up and try it (after `make image`)
	$(BIN)/python -m pytest tests/deploy/test_containers.py

clean:  ## drop the environment and all caches
	rm -rf .venv .venv-fused .mypy_cache .pytest_cache .ruff_cache *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Serving needs ONNX Runtime and no torch; tests need torch as well.
.venv/.serve: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[cpu]'
	touch $@

.venv/.test: .venv/.serve
	$(PIP) --editable '.[cpu,torch,train,dev]'
	touch $@

# 700 MB that nobody else needs: beside the environment, not in it.
.venv-fused/.triton: constraints-gpu.txt | .venv/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-gpu.txt --upgrade --target .venv-fused triton
	touch $@
