# Everything sets itself up: a virtual environment in .venv, then the command.
#   make demo   synthetic radiographs -> TFRecords -> short balanced training -> evaluation
#   make test   the test suite            make check   ruff and mypy
#   make test-slow   simulations, whole studies, kills at every moment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow check format clean help

help:
	@sed -n 's/^#   //p' Makefile

# Installed again whenever the requirements change. --no-deps would hide a missing pin.
$(STAMP): setup.py constraints.txt
	@echo "setting up $(VENV) (first time: a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[cpu,dev,aws,dask,dicom,xlsx]'
	@touch $(STAMP)

demo: $(STAMP)
	@PYTHON=$(BIN)/python launch/demo.sh

test: $(STAMP)
	@$(BIN)/python -m pytest

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) data runs
