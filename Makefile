# The two commands: `make demo` and `make test`. Each does all set-up it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN ?= runs/python-docs
# (tests set one thread for themselves: their networks are tiny)
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-slow lint bench docs clean

demo: $(READY)
	$(BIN)/intarsia run python-docs --out $(RUN)

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

bench: $(VENV)/.ready-bench
	$(BIN)/python -m bench.sites
	$(BIN)/python -m bench.quantize
	$(BIN)/python -m bench.patchscopes
	$(BIN)/python -m bench.attribution
	$(BIN)/python -m bench.tokens
	$(BIN)/python -m bench.knowledge
	$(BIN)/python -m bench.continual
	$(BIN)/python -m bench.moe
	$(BIN)/python -m bench.dialogue --quick
	$(BIN)/python -m bench.editing --quick
	$(BIN)/python -m bench.detection --quick
	$(BIN)/python -m bench.compression --quick
	$(BIN)/python -m bench.compression_cnn --quick
	$(BIN)/python -m bench.prompting --quick
	$(BIN)/python -m bench.server --quick

docs: $(VENV)/.ready-docs
	$(BIN)/mkdocs build --strict

# The environment is made once; it is made again when what it is made from changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $$($(PYTHON) --version) was found. Give another: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev]'
	@touch $@

$(VENV)/.ready-%: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) site dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
