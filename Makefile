# Everything runs from here: git, make and a Python >= 3.11 are all that a machine needs.
# The first target creates .venv and fills it from requirements.lock; every archive is checked against its hash.

PYTHON ?= python3
# How many processes share the test suite: a number, or "auto" for one per core.
JOBS ?= auto
# How many random workflows "make prove" holds against the oracle: on the store in memory, and on DynamoDB as moto plays it.
SEEDS ?= 500000
MOTO ?= 500
# The first of those seeds: half a million can be had in pieces. Only the piece that begins at 0 tries the other rows.
FIRST ?= 0
PROOF ?= build/proof.jsonl
# How long "make soak" goes on beginning runs, what its misfortunes are drawn from, and whose workflows: module:attribute.
MINUTES ?= 5
SEED ?= 1
APP ?=

PY := .venv/bin/python
UV := .venv/bin/uv
STAMP := .venv/.stamp
SOURCES := $(wildcard flowcore handlers infra examples tests)
QUICK := $(wildcard tests/unit tests/property tests/house)

# Another environment that happens to be active must not leak into ours, nor a wish to compile every module anew in
# each of the processes that the tests and the local stack start.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE
# pyright's launcher asks the network for a newer version of itself; its locked copy is the one we mean.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Trust what the machine trusts: behind a company proxy the installer's own list of authorities is not enough.
export UV_SYSTEM_CERTS ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: gate help demo package up test check prove soak format docs quick browser lock clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile

demo: $(STAMP) ## the whole story on a local stack, no AWS account, no Docker
	@$(PY) -m infra.local demo

package: $(STAMP) ## stage what Lambda unpacks in build/package (PACKAGE="--python 3.13 shop" for your own)
	@$(PY) -m infra.package $(PACKAGE)

up: $(STAMP) ## start the local stack and leave it running
	@$(PY) -m infra.local up

test: $(STAMP) ## the whole test suite
	$(PY) -m pytest -n $(JOBS) --dist loadgroup

quick: $(STAMP) ## the inner loop: unit, property and house tests that are not slow
	$(PY) -m pytest -q -m "not slow" $(QUICK)

check: $(STAMP) ## every gate: format, lint, types, tests, coverage
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy --strict $(SOURCES)
	$(PY) -m pyright
	$(PY) -m pytest -n $(JOBS) --dist loadgroup
	$(MAKE) gate
	$(PY) -m pytest -q tests/unit --cov=flowcore.core --cov-branch --cov-report=term --cov-fail-under=100

gate: $(STAMP) ## the second half of check: storms, faults, mutants, killed workers, fuzz, a browser; minutes
	$(PY) -m pytest -n $(JOBS) --dist loadgroup -m gate

prove: $(STAMP) ## the long proof: random workflows against the oracle, and figures at scale; hours (SEEDS=20000: fewer)
	@mkdir -p $(dir $(PROOF)) && { test $(FIRST) != 0 || rm -f $(PROOF); }
	FLOWCORE_PROOF=$(abspath $(PROOF)) $(PY) -m tests.property.prove --seeds $(SEEDS) --moto $(MOTO) --first $(FIRST)
	test $(FIRST) != 0 || FLOWCORE_PROOF=$(abspath $(PROOF)) $(PY) -m pytest -q -n $(JOBS) --dist loadgroup -m proof -rP
	$(PY) -m tests.property.rows $(PROOF)

soak: $(STAMP) ## runs by the dozen on a local stack while workers are killed and frozen (MINUTES=5 SEED=1 APP=)
	@$(PY) -m infra.local soak --minutes $(MINUTES) --seed $(SEED) $(if $(APP),--app $(APP))

format: $(STAMP) ## rewrite the tree the way check wants it
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

docs: $(STAMP) ## write the pages that are made of tests: docs/conformance.md
	@$(PY) -m tests.conformance.table

# Both locks are made from nothing but the declared dependencies; the hashes make them independent of where an
# archive came from, so no address is written into them.
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

lock: $(STAMP) ## resolve the dependencies anew and pin them (UPGRADE=--upgrade for newer ones)
	$(COMPILE) $(UPGRADE) pyproject.toml --all-extras --output-file requirements.lock
	printf 'pip\nuv\n' | $(COMPILE) - --constraints requirements.lock --output-file requirements-bootstrap.lock

browser: ## install Chromium, which the tests of pages look through (Debian, as root)
	@command -v chromium || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core; }

clean: ## remove what tools leave behind, .venv included
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* .local build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip fetches uv, and uv does the rest in seconds. Where only pip has been told how to reach an index (uv does not read
# pip.conf), pip does it in half a minute; the hashes are the same. --no-build: an archive that would run a build, and
# with it unpinned build dependencies, is an error.
$(STAMP): pyproject.toml requirements.lock requirements-bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "flowcore needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(UV) || $(PYTHON) -m venv --clear .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
	  --requirement requirements-bootstrap.lock
	@$(UV) pip sync --quiet --python $(PY) --require-hashes --no-build requirements.lock || { \
	  echo "uv could not install requirements.lock; trying again with pip and its settings." >&2; \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
	    --requirement requirements.lock; }
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@
