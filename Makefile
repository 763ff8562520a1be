# longlode: everything a newcomer needs. `make` alone lists the targets.
#
#   PYTHON=python3.12 make install    use another interpreter (3.11 to 3.13)
#   TORCH=gpu make install            drop the CPU pin of constraints-cpu.txt: pip takes the newest torch
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, PIP_PROXY ... are pip's own and are honoured

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
VENV_PEERS ?= .venv-peers
EXTRAS ?= dev
TORCH ?= cpu
OUT ?= demo-out
BENCH ?= $(basename $(notdir $(shell grep -l __main__ benchmarks/*.py)))
SUPPORTED := (3, 11) <= sys.version_info[:2] <= (3, 13)

ifeq ($(TORCH),cpu)
CONSTRAINTS := -c constraints-cpu.txt
else
CONSTRAINTS :=
endif

STAMP := $(VENV)/.longlode-$(TORCH)
BIN := $(VENV)/bin

.PHONY: help install demo test peers lint docs bench clean

help:
	@echo "longlode: score -> select -> pack -> train -> evaluate"
	@echo
	@echo "  make demo      set up, then run the main job on your Python's own library ($(OUT)/report.html)"
	@echo "  make test      set up, then run the tests (2 workers, no network, no GPU needed)"
	@echo "  make peers     the tests of PEFT, TRL, accelerate, lm-eval and others on longlode's models, in $(VENV_PEERS)"
	@echo "  make install   set up $(VENV) with everything; 'longlode' is then $(BIN)/longlode"
	@echo "  make lint      ruff and mypy"
	@echo "  make docs      the documentation site, with the reference made from the code (docs/_build/html)"
	@echo "  make bench     the benchmarks, one after the other (BENCH='name name' picks)"
	@echo "  make clean     remove $(VENV), $(VENV_PEERS), caches and $(OUT)"

install: $(STAMP)
	@echo "Installed. Activate with: source $(BIN)/activate     Next: make demo"

# The stamp is newer than what it was made from, so a second run costs nothing.
$(STAMP): pyproject.toml constraints-cpu.txt setup.py $(wildcard src/longlode/ops/delta_rule/native/*.[ch])
	@python="$(PYTHON)"; \
	for candidate in $${python:-python3 python3.13 python3.12 python3.11}; do \
	  if "$$candidate" -c 'import sys; sys.exit(not $(SUPPORTED))' 2>/dev/null; then python="$$candidate"; found=1; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "longlode needs Python 3.11, 3.12 or 3.13; $${python:-python3} is $$("$${python:-python3}" -V 2>&1 || true)."; \
	  echo "Install one (apt, brew, pyenv, uv python install 3.12), then: PYTHON=/path/to/python3.12 make $(or $(MAKECMDGOALS),install)"; \
	  exit 1; \
	fi; \
	echo "[1/3] $(VENV) with $$("$$python" -V)"; \
	"$$python" -m venv "$(VENV)" || { \
	  echo "python -m venv failed. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "[2/3] packages with pip (torch: $(TORCH)); full log in $(VENV)/install.log"
	@pip_settings="$$($(BIN)/pip config list)"; \
	case "$(TORCH) $$(uname -s) $$pip_settings" in \
	  *index-url*|*find-links*|*no-index*) ;; \
	  cpu\ Linux*) \
	    echo "      Tip: PyPI's Linux torch brings CUDA (gigabytes). Small CPU build: stop (Ctrl-C) and run"; \
	    echo "      PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make $(or $(MAKECMDGOALS),install)" ;; \
	esac
	@rm -f "$(VENV)"/.longlode-* "$(VENV)/install.log"
	@$(BIN)/pip install --log "$(VENV)/install.log" $(CONSTRAINTS) -e '.[$(EXTRAS)]' 2>&1 | while IFS= read -r line; do \
	  case "$$line" in \
	    Collecting\ *|Processing\ *) set -- $$line; echo "      $${2##*/}" ;; \
	    *Downloading\ *MB\)*|*Downloading\ *GB\)*) set -- $$line; echo "        downloading $${2##*/} $${*: -2}" ;; \
	    Installing\ collected*) echo "      unpacking" ;; \
	    ERROR*) echo "      $$line" ;; \
	  esac; \
	done || { echo "pip failed; its log is $(VENV)/install.log. No network? Point PIP_INDEX_URL or PIP_FIND_LINKS at a mirror."; exit 1; }
	@echo "[3/3] checking"
	@$(BIN)/longlode --version
	@touch "$@"

demo: $(STAMP)
	@$(BIN)/longlode demo -o "$(OUT)"

test: $(STAMP)
	@echo "Running the tests on 2 workers, one torch thread each."
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=5
	@echo "Tests passed. Results stand above; settings are in pyproject.toml. Next: make demo, or make lint before a commit."

# An environment of its own: what these packages pull in must not decide what the project itself is tested with.
peers:
	@$(MAKE) "$(VENV_PEERS)/.longlode-$(TORCH)" VENV="$(VENV_PEERS)" EXTRAS=peers
	@$(VENV_PEERS)/bin/python -m peers.upstream
	@$(VENV_PEERS)/bin/python -m pytest -c peers/pytest.ini peers --durations=5 --table docs/compatibility.md
	@echo "Peers passed. The table stands in docs/compatibility.md."

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@echo "Lint is clean. Next: make test"

$(STAMP)-docs: $(STAMP)
	@echo "Packages of the documentation site"
	@$(BIN)/pip install -q --log "$(VENV)/install.log" $(CONSTRAINTS) -e '.[docs]' 2>/dev/null || { echo "pip failed; its log is $(VENV)/install.log."; exit 1; }
	@touch "$@"

docs: $(STAMP)-docs
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Built. Open docs/_build/html/index.html"

bench: $(STAMP)
	@failed=; for name in $(BENCH); do \
	  echo "== benchmarks.$$name"; $(BIN)/python -m "benchmarks.$$name" || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then echo "Not finished:$$failed (see above)."; exit 1; fi
	@echo "Benchmarks done. Dated results: benchmarks/results/"

clean:
	rm -rf "$(VENV)" "$(VENV_PEERS)" "$(OUT)" docs/_build docs/reference/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist src/*.egg-info
	find src tests benchmarks peers -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
