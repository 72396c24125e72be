PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test check bench clean

quickstart: $(INSTALLED)  ## synthetic archive -> store -> trained emulator -> ensembles -> scores and report
	$(BIN)/spf run experiments/quickstart.yaml --out quickstart

test: $(INSTALLED)  ## the whole test suite
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## the experiment on real data; needs CLIMATE_DATA; about an hour
	$(BIN)/spf run experiments/cesm2-ssp370.yaml
	$(BIN)/python experiments/results/collect.py runs/cesm2-ssp370

clean:  ## everything that can be made again, but the runs
	rm -rf .venv quickstart build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first: where the default index serves CUDA wheels, give TORCH="torch==2.13.0 --index-url ..." (README)
$(INSTALLED): setup.cfg pyproject.toml
	@echo "installing into .venv, once; this takes some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e ".[test,check]"
	touch $@
