# Two commands do everything on a fresh machine, each with the installation that it needs: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNNABLE := $(VENV)/.runnable
INSTALLED := $(VENV)/.installed
RESULTS ?= results/harness.db
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.NOTPARALLEL:
.PHONY: run test test-slow check audit-dependencies setup setup-run format rules results results-text site publish publish-text clean

run: setup-run ## evaluate the champion on the embedded track, then print the leaderboard, and write the report where its extra is
	$(BIN)/harness evaluate submissions/ajo
	$(BIN)/harness leaderboard
	@if $(BIN)/python -c "import jinja2, markdown_it, matplotlib, plotly" 2>/dev/null; \
	then $(BIN)/harness report --out report; \
	else echo 'for the leaderboard as a page: $(BIN)/python -m pip install -c constraints.txt -e ".[report]", then make run again'; fi

# The models of the fast tests are tiny: with more threads than one they wait for each other on a busy machine.
test: export OMP_NUM_THREADS ?= 1
test: setup ## the fast tests, warnings as errors
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: export OMP_NUM_THREADS ?= 1
test-slow: setup ## the tests that take minutes, two at a time
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 2 --dist loadfile

check: setup ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit-dependencies: setup ## known vulnerabilities of the pinned versions; needs a network, and asks only for what is pinned
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --progress-spinner off

setup: $(INSTALLED) ## the virtual environment with everything, from the pinned versions

setup-run: $(RUNNABLE) ## the virtual environment with what `make run` needs

# What a first run needs: the package, what it requires, and bubblewrap for the best tier of isolation.
$(RUNNABLE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[sandbox]"
	@touch $@

# The rest is for the tests, the report, the service, clusters and references.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[dev]"
	@touch $(RUNNABLE) $@

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

rules: setup ## refresh the generated tables of docs/rules-reference.md
	$(BIN)/python tools/make_rules.py

# What is measured is read from the published databases, unless RESULTS=FILE names another one.
facts = $(if $(filter file,$(origin RESULTS)),leaderboard/$(1).db.xz,$(RESULTS))
results site: FACTS = $(call facts,measured)
results-text: FACTS = $(call facts,measured-text)

results: setup ## the results pages of mini and kit, and all tables of scores, from leaderboard/measured.db.xz; or RESULTS=FILE
	$(BIN)/python tools/make_results.py --store $(FACTS) --track mini
	$(BIN)/python tools/make_results.py --store $(FACTS) --track kit
	$(BIN)/python tools/score_tables.py
	$(BIN)/python tools/convergence.py

results-text: setup ## the same of mini-text; the losses of new cells are computed first, some seconds each
	$(BIN)/python tools/text_losses.py --store $(FACTS) --track mini-text --out docs/results/mini-text-losses.csv
	$(BIN)/python tools/make_results.py --store $(FACTS) --track mini-text --losses docs/results/mini-text-losses.csv

site: setup ## the measured results of mini and kit as a site: open site/index.html; KIT=DIR shows the competition's texts, too
	$(BIN)/harness report --out site --store $(FACTS) --track mini --track kit $(if $(KIT),--data $(KIT))

publish: setup ## audit results/harness.db, and compress it into leaderboard/measured.db.xz
	$(BIN)/python tools/publish.py --store $(RESULTS) --out leaderboard/measured.db.xz

publish-text: setup ## the same of text tasks, with the bytes of answers, into leaderboard/measured-text.db.xz
	$(BIN)/python tools/publish.py --store $(RESULTS) --answers --out leaderboard/measured-text.db.xz

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
