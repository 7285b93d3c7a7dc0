# All that there is to do in this repository. `make` alone lists it.
# Needed: Python 3.11 or later and make; everything else is installed into .venv from hashed requirements.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BROKER := $(BIN)/python -m broker

# What is installed, and the tests that passed: each is a file that is older than what it was made from, or not.
CREATED := $(VENV)/.created
PLAYGROUND := $(VENV)/.playground
DEV := $(VENV)/.dev
TESTED := build/tested
SOURCES := Makefile pyproject.toml $(shell find broker tests policies deploy docs benchmarks requirements -type f -not -name '*.pyc' 2>/dev/null)

.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-print-directory
.PHONY: help setup demo playground run test lint check docs bench mutants lock servers clean

help: ## List what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do printf '  make %-11s %s\n' "$$name" "$$what"; done

setup: $(DEV) servers ## Install all that developing and testing need

# --- See it work -----------------------------------------------------------------------------------------------------

demo: $(PLAYGROUND) ## Publish a package through the broker, see three refusals and the audit; about a minute
	@$(BROKER) playground --demo

playground: $(PLAYGROUND) ## The same servers, to try by hand; Ctrl-C ends them
	@$(BROKER) playground

run: export BROKER_PUBLIC_URL ?= http://127.0.0.1:8000
run: export BROKER_AUDIENCE ?= acme-index
run: export BROKER_SIGNING_KEYS ?= build/signing-key.pem
run: export BROKER_STATE_URL ?= sqlite:///build/state.db
run: export BROKER_REGISTRY_URL ?= http://127.0.0.1:8080/
run: export BROKER_METRICS ?= open
run: $(PLAYGROUND) ## Serve the broker with policies/ and SQLite on port 8000; BROKER_* in the environment override
	@mkdir -p build
	@test -e "$$BROKER_SIGNING_KEYS" || $(BROKER) keys new "$$BROKER_SIGNING_KEYS"
	@$(BROKER) serve

# --- Develop ---------------------------------------------------------------------------------------------------------

# Tests always run with coverage, in all the processes that they start, so that `check` need not run them again.
test: $(DEV) servers ## Run every test; T=providers, T=test_tokens.py or T=replay runs some
ifdef T
	@$(BIN)/python -m pytest $(if $(wildcard tests/$(T)),tests/$(T),-k "$(T)")
else
	@mkdir -p build && rm -f $(TESTED) && $(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -n 3 --dist worksteal
	@$(BIN)/coverage combine --quiet && touch $(TESTED)
endif

$(TESTED): $(SOURCES)
	@$(MAKE) test

lint: $(DEV) ## Format, lint, types, import contracts and generated pages: what is fast
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@PYTHONPATH=. $(BIN)/python docs/generate.py --check

check: lint $(TESTED) ## All that must hold: lint, tests (unless they just passed on these files), coverage of 100 %
	@$(BIN)/coverage report --fail-under=100

docs: $(DEV) ## Write the generated pages of docs/reference anew
	@PYTHONPATH=. $(BIN)/python docs/generate.py

bench: $(DEV) servers ## Measure, each figure beside its reference
	@$(BIN)/python -m benchmarks

mutants: $(DEV) ## Break the core in many places, and see that a test fails each time; long. T=broker/tokens.py: one module
	@$(BIN)/python -m tests.mutation.run $(T)

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"
lock: $(DEV) ## Resolve requirements/*.in anew; UPGRADE=1 takes newer versions
	@$(COMPILE) $(if $(UPGRADE),--upgrade) requirements/dev.in -o requirements/dev.txt
	@# uv prefers the versions of a file that is there: so all have the same.
	@for set in playground traces run; do cp requirements/dev.txt requirements/$$set.txt \
		&& $(COMPILE) requirements/$$set.in -o requirements/$$set.txt || exit; done

clean: ## Remove all that was made, .venv included
	@rm -rf $(VENV) build dist mutants *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- Set-up ----------------------------------------------------------------------------------------------------------

say_and_fail = { echo "$(1)" >&2; exit 1; }

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| $(call say_and_fail,Python 3.11 or later is needed and '$(PYTHON)' is none: name another with make PYTHON=python3.12)
	@$(PYTHON) -c 'import ensurepip$(comma) venv' 2>/dev/null \
		|| $(call say_and_fail,Python's venv is missing: apt install python3-venv (Debian and Ubuntu))
	@$(PYTHON) -m venv $(VENV) && touch $@

comma := ,

# What `demo` needs is part of what `test` needs.
$(PLAYGROUND): requirements/playground.txt | $(CREATED)
	@$(call install,$<)

$(DEV): requirements/dev.txt | $(CREATED)
	@$(call install,$<)
	@touch $(PLAYGROUND)

install = echo "Installing $$(grep -c '^[a-z].*==' $(1)) packages into $(VENV), once ..."; began=$$(date +%s); \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --no-deps --require-hashes -r $(1) \
	&& touch $@ && echo "Installed in $$(($$(date +%s) - began)) s."

# The tests run real ones. RUNLEVEL=1: they are installed, and not started as services.
PACKAGES := redis-server nginx caddy

servers:
	@PATH="$$PATH:/usr/sbin"; missing=; \
	for one in $(PACKAGES); do command -v $$one >/dev/null || missing="$$missing $$one"; done; \
	[ "$$missing" ] || exit 0; \
	command -v apt-get >/dev/null || $(call say_and_fail,Missing:$$missing. Install what is (macOS: brew install redis nginx caddy)); \
	if [ "$$(id -u)" = 0 ]; then root=; elif sudo -n true 2>/dev/null; then root="sudo -n"; \
	else $(call say_and_fail,Missing:$$missing. Install what is: sudo apt-get install$$missing); fi; \
	echo "Installing$$missing, once ..."; mkdir -p build; \
	{ $$root apt-get update && $$root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
		apt-get install --yes --no-install-recommends $$missing; } >build/servers.log 2>&1 </dev/null \
		|| { tail -n 5 build/servers.log >&2; $(call say_and_fail,Not installed:$$missing. build/servers.log says why); }
