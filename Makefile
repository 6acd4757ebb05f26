# Everything installs itself: `make demo` and `make test` need Python 3.10 or newer, make and a compiler.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all fuzz compat docs lint format types imports check clean

demo: .venv/ready
	$(BIN)/omnicache demo $(ARGS)

test: .venv/ready
	$(BIN)/python -m pytest $(ARGS)

test-all: .venv/ready
	$(BIN)/python -m pytest --all-combinations $(ARGS)

# Random models, plans and orders of calls against the laws: ten thousand cases; `make fuzz ARGS="--cases 500 --shard 1/2"`.
fuzz: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(ARGS)

# The compatibility table, by running: resumable; `make compat ARGS="--shard 1/2"` for a part, ARGS=--again to begin anew.
compat: .venv/ready
	$(BIN)/python -m tests.compat run $(ARGS)
	$(BIN)/python -m tests.compat table

# The cards of all methods, from the code.
docs: .venv/ready
	$(BIN)/python -m omnicache.report.cards docs/methods.md

lint: .venv/ready
	$(BIN)/ruff check src tests training benchmarks && $(BIN)/ruff format --check src tests training benchmarks

format: .venv/ready
	$(BIN)/ruff check --fix src tests training benchmarks && $(BIN)/ruff format src tests training benchmarks

types: .venv/ready
	$(BIN)/pyright

imports: .venv/ready
	$(BIN)/lint-imports

check: lint types imports test

# torch first and by itself: the other packages then take it as it is.
.venv/ready: pyproject.toml requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf .venv omnicache-demo
