# make run | test | check | fmt | sim | bench | setup | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 200
MINUTES ?= 10
STAMP := $(VENV)/.installed
# Tests by as many processes as there are cores, up to four; a test that hangs ends its process, and the run.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: setup run test check fmt sim soak bench clean

setup: $(STAMP)

# Debian splits the venv module's ensurepip into python3-venv: install it where we may, else name the command.
$(STAMP): pyproject.toml
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "installing python3-venv"; \
	        (apt-get install -y -q python3-venv || (apt-get update -q && apt-get install -y -q python3-venv)) >/dev/null; \
	    else \
	        echo "Python's venv module is missing. Install it with: sudo apt-get install python3-venv" >&2; exit 1; \
	    fi; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "zoolog needs Python 3.11 or later; name one with: make PYTHON=python3.11" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "installing zoolog and its dependencies into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

run: setup
	@$(BIN)/python -m pubsub.mainjob --dir run

test: setup
	$(BIN)/python -m pytest $(PARALLEL) -m "not soak"

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sim: setup
	$(BIN)/python -m tests.sim --seeds $(SEEDS)
	$(BIN)/python -m tests.sim --servers --seeds $(SEEDS)

soak: setup
	$(BIN)/python -m pytest -m "soak or slow or crash or sim" -o faulthandler_timeout=3600
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

bench: setup
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) run build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
