# Two commands do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run test test-slow check audit-dependencies setup format rules results clean

run: setup ## evaluate the champion on the embedded track, then print the leaderboard
	$(BIN)/harness evaluate submissions/ajo
	$(BIN)/harness leaderboard

# The models of the fast tests are tiny: with more threads than one they wait for each other on a busy machine.
test: export OMP_NUM_THREADS ?= 1
test: setup ## the fast tests, warnings as errors
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: setup ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

check: setup ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit-dependencies: setup ## known vulnerabilities of the pinned versions; needs a network, and asks only for what is pinned
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --progress-spinner off

setup: $(INSTALLED) ## the virtual environment, from the pinned versions

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

rules: setup ## refresh the generated tables of docs/rules-reference.md
	$(BIN)/python tools/make_rules.py

results: setup ## write docs/results-mini.md and, where there are runs on kit, docs/results-kit.md from results/harness.db
	$(BIN)/python tools/make_results.py --store results/harness.db --track mini --out docs/results-mini.md
	$(BIN)/python tools/make_results.py --store results/harness.db --track kit --out docs/results-kit.md

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
