PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test check docs bench bench-build references clean

quickstart: $(INSTALLED)  ## synthetic archive -> store -> trained emulator -> ensembles -> scores and report
	$(BIN)/spf run experiments/quickstart.yaml --out quickstart
	$(BIN)/python experiments/first_figure.py quickstart/cesm2.png

test: $(INSTALLED)  ## the whole test suite
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)  ## figures and pages of the documentation -> site/index.html; works without a network
	$(BIN)/python docs/tools/draw.py docs/images
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)  ## the experiment on real data; needs CLIMATE_DATA; ten minutes to half an hour
	$(BIN)/spf run experiments/cesm2-ssp370.yaml
	$(BIN)/python experiments/results/collect.py runs/cesm2-ssp370

bench-build: $(INSTALLED)  ## builds beside the same reads and writes alone, their memory, training's reads; some minutes
	$(BIN)/python experiments/build_throughput.py
	$(BIN)/python experiments/build_memory.py
	$(BIN)/python experiments/train_read.py

references: $(INSTALLED)  ## what honest references score on CESM2, three rotations; needs CLIMATE_DATA; one to two hours
	$(BIN)/pip install --quiet -e ".[mesmer,fair]"
	for test in ssp370 ssp126 ssp585; do \
	  $(BIN)/spf unet experiments/cesm2-$$test.yaml --out runs/unet-$$test --minutes 20 --steps 400 || exit 1; done
	$(BIN)/python experiments/references.py
	$(BIN)/python experiments/climatebench_cesm2.py
	$(BIN)/python experiments/ten_models.py
	$(BIN)/python experiments/score_cost.py

clean:  ## everything that can be made again, but the runs
	rm -rf .venv quickstart site build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first: where the default index serves CUDA wheels, give TORCH="torch==2.13.0 --index-url ..." (README)
$(INSTALLED): setup.cfg pyproject.toml
	@echo "installing into .venv, once; this takes some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e ".[test,check,docs]"
	touch $@
