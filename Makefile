# Two commands do everything on a fresh machine: `make demo` and `make test`. Both install first, into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo demo-text test test-slow test-gpu lint format docs install clean

demo: ## install, then teach a small model to see and open the page
	$(PYTHON) demos/quick_demo.py

demo-text: ## install, then teach a small model its name, on text alone
	$(PYTHON) demos/quick_demo.py --text

install: ## install mmtune with everything the tests need into .venv
	$(PYTHON) demos/quick_demo.py --install test

# Tests of a file stay together and share its fixtures; models are tiny, so a thread for each process is fastest.
test: install ## install, then run the tests (CPU, minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n auto --maxprocesses 4 --dist loadfile

test-slow: install ## the tests that take longer
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: install ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

lint: install ## what CI and pre-commit hold
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## the site, into build/site; open index.html there
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f docs/theme/mkdocs.yml

clean: ## remove the environment and the demo's output
	rm -rf $(VENV) runs/demo runs/demo-text build dist
