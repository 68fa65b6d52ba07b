# The two commands: `make quickstart` (text to report) and `make test`.
#
# Each makes a virtual environment in $(VENV) when it is missing and installs into it; a second call
# installs nothing until setup.py, pyproject.toml or constraints.txt change.
#   make test PYTHON=python3.13 VENV=.venv-3.13     another Python, beside the first
#   make test TESTS=tests/laws WORKERS=1            some of the tests
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?=
VENV ?= .venv
TESTS ?= tests
# What the tests install and need.
TESTED := tasks,text,scores,judge,test
WORKERS ?= 2
STUDY ?= runs/quickstart
PACKAGING := setup.py pyproject.toml constraints.txt
ROOM := $(VENV)/.installed
PYTEST = $(VENV)/bin/python -m pytest $(TESTS) -q -n $(WORKERS) --dist loadfile

# The first of the candidates that starts and is a Python that we support.
define find_python
for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
  then python="$$candidate"; break; fi; \
done; \
if [ -z "$${python:-}" ]; then \
  echo "error: Python 3.11, 3.12 or 3.13 is needed;" \
    "$(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>/dev/null || echo missing)." \
    "Name one: make PYTHON=/path/to/python3.12 ..." >&2; \
  exit 1; \
fi
endef

# $(call install,extras,stamps): pip is silent unless it fails; one line before, one after. A folder
# that exists without pip (someone stopped the first call) is completed, never emptied.
define install
$(find_python); \
if ! "$(VENV)/bin/python" -m pip --version >/dev/null 2>&1; then \
  echo "Making $(VENV) with $$("$$python" --version)"; "$$python" -m venv "$(VENV)"; \
fi; \
echo "Installing scaling_jax[$(1)] into $(VENV): about 3.5 GB on disk, one to three minutes"; \
start=$$SECONDS; \
"$(VENV)/bin/python" -m pip install -qq --disable-pip-version-check -e '.[$(1)]' -c constraints.txt; \
mkdir -p "$(ROOM)"; touch $(2); \
echo "Installed in $$((SECONDS - start)) s"
endef

.PHONY: same-python help quickstart test test-slow parity

help:
	@echo "make quickstart   a study of small runs on a synthetic language, its law and its report"
	@echo "make test         the fast tests"
	@echo "make test-slow    the tests that train for longer"
	@echo "make parity       the models beside Hugging Face transformers (installs torch)"

quickstart: $(ROOM)/tasks
	@$(VENV)/bin/scaling-jax study --gin_file gin_configs/studies/quickstart.gin --out $(STUDY)
	@$(VENV)/bin/scaling-jax report $(STUDY)

test: $(ROOM)/test
	@$(PYTEST) -m "not slow and not parity" --require_extras $(TESTED)

test-slow: $(ROOM)/test
	@$(PYTEST) -m slow --require_extras $(TESTED)

parity: $(ROOM)/parity
	@HF_HUB_OFFLINE=1 $(PYTEST) -m parity

# A named Python that an environment made earlier does not have would otherwise be ignored in silence.
same-python:
	@version='import sys; print("%d.%d" % sys.version_info[:2])'; \
	if [ -n "$(PYTHON)" ] && [ -x "$(VENV)/bin/python" ]; then \
	  has=$$("$(VENV)/bin/python" -c "$$version"); asked=$$("$(PYTHON)" -c "$$version" || echo unknown); \
	  if [ "$$has" != "$$asked" ]; then \
	    echo "error: $(VENV) holds Python $$has, PYTHON=$(PYTHON) is $$asked;" \
	      "use another folder: VENV=.venv-$$asked" >&2; \
	    exit 1; \
	  fi; \
	fi

$(ROOM)/tasks: $(PACKAGING) | same-python
	@$(call install,tasks,"$(ROOM)/tasks")

$(ROOM)/test: $(PACKAGING) | same-python
	@$(call install,$(TESTED),"$(ROOM)/tasks" "$(ROOM)/test")

$(ROOM)/parity: $(PACKAGING) | same-python
	@$(call install,$(TESTED)$(comma)parity,"$(ROOM)/tasks" "$(ROOM)/test" "$(ROOM)/parity")

comma := ,
