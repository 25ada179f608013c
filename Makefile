# `make demo` and `make test` set up what they need; nothing is done twice.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test lint install schema results benchmarks clean

demo: $(INSTALLED)
	$(BIN)/coopt demo

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

install: $(INSTALLED)

schema: $(INSTALLED)  # src/coopt/methods/schema.json from the classes of the methods, and the tables in docs/methods.md
	$(BIN)/python -m coopt.methods.schema
	$(BIN)/python tools/methods_page.py

results: $(INSTALLED)  # docs/results.md from the runs in results/
	$(BIN)/coopt suite show --all --markdown > docs/results.md

benchmarks: $(INSTALLED)  # docs/benchmarks.md from the JSON in benchmarks/results/
	$(BIN)/python benchmarks/page.py > docs/benchmarks.md

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "coopt needs Python 3.10 or newer; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing coopt and what it needs into .venv (PyTorch is large: minutes, several GB)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache
