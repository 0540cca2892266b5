# `make paper` and `make test` create what they need and do the rest.
PYTHON ?= python3
VENV ?= .venv
ifneq ($(words $(VENV)),1)
$(error VENV: '$(VENV)' must be one path without spaces, which make would take for several files; choose another)
endif
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_READY := $(VENV)/.test-ready

.PHONY: install paper report archive test test-full test-long lint format pdf clean help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# The pinned versions, then the package itself; rebuilt when either changes.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hub,slurm]'
	touch $@

$(TEST_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,slurm]'
	touch $@

install: $(READY) ## the package and its pinned versions, nothing else

paper: $(READY) ## measure what is stale and write paper/ablation.tex
	$(BIN)/snakemake --cores 1 paper/ablation.tex

pdf: $(READY) ## the same, compiled to paper/ablation.pdf (needs latexmk)
	$(BIN)/snakemake --cores 1 paper/ablation.pdf

report: $(READY) ## results page and Snakemake's report: paper/results.html, report.html
	$(BIN)/snakemake --cores 1 paper/ablation.tex paper/results.html
	$(BIN)/snakemake --cores 1 --report report.html paper/ablation.tex paper/results.html

archive: $(READY) ## all that the paper is made of in one file, results/archive.tar.gz
	$(BIN)/snakemake --cores 1 results/archive.tar.gz

test: $(TEST_READY) ## units, properties and the tiny study through Snakemake (about ten minutes)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not full and not long' $(PYTEST_FLAGS)

test-full: $(TEST_READY) ## what CI runs: `test` plus failures, TeX, browser and Slurm
	$(BIN)/python -m pytest -m 'not long'

test-long: $(TEST_READY) ## hours; run by hand
	$(BIN)/python -m pytest

lint: $(TEST_READY) ## ruff, mypy, snakefmt, snakemake --lint, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/lint-imports

format: $(TEST_READY) ## rewrite in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

clean: ## remove everything that was built, results included
	rm -rf $(VENV) results logs benchmarks .snakemake paper/ablation.tex paper/ablation.pdf paper/numbers.tex paper/provenance.json paper/results.html report.html paper/tables paper/figures
