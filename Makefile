# Everything runs in the virtual environment $(VENV), which the first target that needs it makes.

VENV ?= .venv
JOBS ?= 2

# The first Python that answers, is new enough and can make environments; an environment that is already there comes
# first. Answering is tested by running it: the shims of version managers exist for Pythons that are not selected.
suitable = $(1) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
ifndef PYTHON
PYTHON := $(shell for p in $(VENV)/bin/python python3.13 python3.12 python3.11 python3 python; do \
	if $(call suitable,$$p); then echo $$p; break; fi; done)
endif
ifneq ($(PYTHON),)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])' 2>/dev/null)
endif

# A Python without a file of its own gets the newest releases.
CONSTRAINTS := $(wildcard constraints/py$(VERSION).txt)
INSTALLED := $(VENV)/.installed-$(VERSION)
RUN := $(VENV)/bin/python

.PHONY: help test demo lint pytest bench fuzz constraints clean distclean
.DEFAULT_GOAL := help

help: ## Show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

test: lint pytest ## Check style and types, run all tests

demo: $(INSTALLED) ## Generate data and run the whole tour; results in demo/
	$(RUN) examples/demo.py --out demo

lint: $(INSTALLED) ## ruff and mypy --strict
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

pytest: $(INSTALLED) ## The tests alone; make pytest ARGS="-k mrcz -x" chooses
	$(RUN) -m pytest -n $(JOBS) $(ARGS)

bench: $(INSTALLED) ## Time against the peer programs; tables in docs/benchmarks.md; ARGS="io --quick" chooses
	$(RUN) -m benchmarks.run $(ARGS)

fuzz: $(INSTALLED) ## Read 100 000 mutated files: none may do worse than be refused
	$(RUN) tests/fuzz/run.py $(ARGS)

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" && $(call suitable,$(PYTHON)) || { echo "no Python >= 3.11 with venv answers$(if $(PYTHON), as $(PYTHON)): \
	install one (Debian, Ubuntu: python3-venv) or say which: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@test "$$($(RUN) -c 'import sys; print("%d%d" % sys.version_info[:2])' 2>/dev/null)" = "$(VERSION)" \
	|| $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV)$(if $(CONSTRAINTS), with $(CONSTRAINTS)): some minutes the first time"
	@$(RUN) -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) -e '.[test]'
	@touch $@

# Resolves anew, without the old pins, in an environment of its own; `make test` then tests the new ones. The core comes
# first and botocore, which aiobotocore pins, second: all at once, pip takes longer and settles on older releases.
constraints: ## Pin for this Python what its packages resolve to; KEEP=1 keeps the present pins and adds what is new
	$(PYTHON) -m venv --clear $(VENV)-new
	for part in . '.[s3]' '.[test]'; do \
	$(VENV)-new/bin/python -m pip install --quiet --disable-pip-version-check \
	$(if $(KEEP),$(addprefix -c ,$(CONSTRAINTS))) -e "$$part" || exit 1; done
	@{ echo "# Tested together on Python $(VERSION:3%=3.%); written by make constraints."; \
	$(VENV)-new/bin/python -m pip freeze | grep -E '^[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+$$' | grep -v '^mrczdask=='; } \
	> constraints/py$(VERSION).txt
	rm -rf $(VENV)-new

clean: ## Remove what the targets made, except environments
	rm -rf demo bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find mrczdask tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## Remove the environments too
	rm -rf .venv .venv-*
