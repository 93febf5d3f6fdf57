# The environment lies in .venv; every target makes what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# Independent readers (zarr-python 3, the OME-NGFF validator) cannot share an environment with gunpowder on Python 3.11.
READERS := .venv-readers
# napari with its OME-Zarr plugin, without a window: for one slow test.
NAPARI := .venv-napari
# Nor can the packages of BioImage.IO, which judge exported models.
BIOIMAGEIO := .venv-bioimageio

ARTIFACTS ?= ci-artifacts

.PHONY: install demo test test-all test-browser bench docs lint format clean

install: $(VENV)/.installed

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit("incasem needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; run: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[viewers,neurons]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[test,docs,viewers,neurons]'
	touch $@

$(READERS)/.installed: constraints-readers.txt
	$(PYTHON) -m venv $(READERS)
	$(READERS)/bin/pip --disable-pip-version-check --quiet install -r constraints-readers.txt
	touch $@

$(NAPARI)/.installed: constraints-napari.txt
	$(PYTHON) -m venv $(NAPARI)
	$(NAPARI)/bin/pip --disable-pip-version-check --quiet install -r constraints-napari.txt
	touch $@

$(BIOIMAGEIO)/.installed: constraints-bioimageio.txt
	$(PYTHON) -m venv $(BIOIMAGEIO)
	$(BIOIMAGEIO)/bin/pip --disable-pip-version-check --quiet install -r constraints-bioimageio.txt
	touch $@

demo: install
	$(BIN)/incasem demo

# Three at a time, for two cores: tests that kill and wait leave a tenth of them idle.
test: $(VENV)/.installed-test $(READERS)/.installed
	$(BIN)/python -m pytest -n 3 -m 'not slow and not browser'

test-all: $(VENV)/.installed-test $(READERS)/.installed $(NAPARI)/.installed $(BIOIMAGEIO)/.installed
	$(BIN)/python -m pytest -n 2

# Headless Chromium, and for one test node. The pictures of all pages stay in $(ARTIFACTS)/screenshots.
test-browser: $(VENV)/.installed-test
	INCASEM_SCREENSHOTS='$(abspath $(ARTIFACTS))/screenshots' $(BIN)/python -m pytest -m browser

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks

# The site, in build/docs/index.html: built and read without a network. A warning is an error.
docs: $(VENV)/.installed-test
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf ci-artifacts $(VENV) $(READERS) $(NAPARI) $(BIOIMAGEIO) build docs/reference/generated *.egg-info
