# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# Needs Python >= 3.11. Uses uv where it is on PATH, else venv and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

VERSIONS ?= oldest newest released
TESTS ?= tests

.PHONY: quickstart test test-slow test-gpu test-versions docs lint format clean

quickstart: $(STAMP)
	$(BIN)/easycap train experiment=easycap/quickstart

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/pytest -q -n 2 -m "not slow and not gpu"

test-slow: $(STAMP)
	$(BIN)/pytest -v -n 2 --durations=12 -m "slow and not gpu"

# The tests that need a GPU, and the benchmarks on it, in at most ten minutes; GPU_OPTIONS=--tiny tries them on any machine.
test-gpu: $(STAMP)
	$(BIN)/python experiments/speed/gpu.py --out build/gpu $(GPU_OPTIONS)

# With the oldest and the newest versions that setup.cfg allows, and with the newest there are; torch is that of $(VENV).
# `make test-versions VERSIONS=oldest TESTS="tests/parity tests/data"` runs a part.
test-versions: $(STAMP)
	$(BIN)/python tests/versions.py $(VERSIONS) --tests $(TESTS)

# The pages of docs/ as a site in build/site; a warning, such as a broken link, is an error.
docs: $(STAMP)
	$(BIN)/mkdocs build --strict

lint: $(STAMP)
	$(BIN)/ruff check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "easycap needs Python >= 3.11; '$(PYTHON)' is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing easycap and its dependencies into $(VENV) (about 7.1 GB, some minutes)"
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[dev]"; \
	else \
		$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"; \
	fi
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
