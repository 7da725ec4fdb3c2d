# `make` or `make help` lists the targets. Nothing but make and a Python of 3.11 or newer is needed.

# Compiled once, not at each of the hundreds of starts of a server, also where the environment says otherwise.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# MLflow's last 2.x client cannot be installed beside the newest one.
MLFLOW2 := .venv-mlflow2
CONFORMANCE := .venv-conformance
# make conformance TORCH_INDEX=... and make lock TORCH_INDEX=...: an index of PyTorch's wheels for a processor alone, asked beside
# the one that pip is set up with. Empty here: no file of this repository names a place to fetch from.
TORCH_INDEX ?=
# Two cores is a small machine; --dist loadfile below keeps a file in one worker, so that its server is started once.
WORKERS ?= 3
UV_COMPILE = compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help venv demo serve test check conformance format soak bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 16

venv: $(STAMP) ## make .venv with everything that development needs (again only when its inputs change)

# A candidate is tried, not only found: a version manager's shim may be on PATH without the version behind it.
$(STAMP): requirements/dev.txt pyproject.toml
	@set -e; \
	for python in $(PYTHON) python3.11 python3 python3.14 python3.13 python3.12; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then echo "Python 3.11 or newer is needed: put it on PATH, or say make PYTHON=..." >&2; exit 1; fi; \
	if ! [ -x $(BIN)/python ]; then "$$found" -m venv $(VENV); fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(MLFLOW2)/.installed: requirements/mlflow2.txt $(STAMP)
	if ! [ -x $(MLFLOW2)/bin/python ]; then $(BIN)/python -m venv $(MLFLOW2); fi
	$(MLFLOW2)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/mlflow2.txt
	@touch $@

$(CONFORMANCE)/.installed: requirements/conformance.txt $(STAMP)
	if ! [ -x $(CONFORMANCE)/bin/python ]; then $(BIN)/python -m venv $(CONFORMANCE); fi
	$(CONFORMANCE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/conformance.txt
	$(CONFORMANCE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: venv ## a short tour: a server, a model, a promotion, a verified load
	$(BIN)/python demo/demo.py

serve: venv ## run a server on loopback; make serve ARGS="--help" for its options
	$(BIN)/touchmark serve $(ARGS)

test: venv $(MLFLOW2)/.installed ## all tests but the long ones; make test ARGS="-k alias" for some
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -rs --ignore=tests/soak --ignore=tests/frameworks tests $(ARGS)

check: venv ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: venv ## put the source in its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

conformance: $(CONFORMANCE)/.installed $(MLFLOW2)/.installed ## MLflow's clients in full: every framework that is here, thousands of searches
	@$(CONFORMANCE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements/conformance-torch.txt \
		|| echo "PyTorch, Lightning, Transformers and Keras: not run, because what requirements/conformance-torch.txt pins cannot be had here (TORCH_INDEX=... names an index that has it)." >&2
	TOUCHMARK_SWEEP_CASES=$${TOUCHMARK_SWEEP_CASES:-3000} $(CONFORMANCE)/bin/python -m pytest -n $(WORKERS) --dist loadfile -rs \
		--timeout 900 tests/conformance/mlflow tests/frameworks $(ARGS)

soak: venv ## the long tests: hours, a million versions
	$(BIN)/python -m pytest --timeout=0 -rs tests/soak $(ARGS)
	$(BIN)/python bench/run.py --only sizes --versions 1000000

bench: venv ## measure against MLflow's own server on this machine
	$(BIN)/python bench/run.py $(ARGS)

# Versions that are pinned stay unless pyproject.toml rules them out; make lock ARGS=--upgrade moves them.
# base.txt and server.txt take dev.txt as a constraint, so that what is tested is what is installed.
lock: ## pin the requirements with hashes, from pyproject.toml
	@set -e; uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then \
		folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
		python3 -m venv "$$folder"; "$$folder/bin/python" -m pip install --quiet uv; uv=$$folder/bin/uv; \
	fi; \
	set -x; \
	"$$uv" pip $(UV_COMPILE) $(ARGS) --all-extras --group test --group build --group check \
		-o requirements/dev.txt pyproject.toml; \
	"$$uv" pip $(UV_COMPILE) $(ARGS) -c requirements/dev.txt --all-extras --group test --group build --group conformance \
		-o requirements/conformance.txt pyproject.toml; \
	"$$uv" pip $(UV_COMPILE) $(ARGS) -c requirements/conformance.txt --group conformance-torch \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --index-strategy unsafe-best-match) \
		-o requirements/conformance-torch.txt || echo "requirements/conformance-torch.txt stays as it is: no index here has its wheels." >&2; \
	"$$uv" pip $(UV_COMPILE) $(ARGS) --group mlflow2 -o requirements/mlflow2.txt; \
	"$$uv" pip $(UV_COMPILE) -c requirements/dev.txt -o requirements/base.txt pyproject.toml; \
	"$$uv" pip $(UV_COMPILE) -c requirements/dev.txt --extra server --extra postgres \
		-o requirements/server.txt pyproject.toml

clean: ## remove what tools left behind; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
