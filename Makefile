# The same few verbs for every chore; CI calls these and nothing else. `make help` lists them.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help

## serve: install what is needed and serve on 127.0.0.1:8088 (ARGS="--port 9000" for more)
.PHONY: serve
serve: $(VENV)/.runtime
	$(BIN)/keyrack serve $(ARGS)

# Four processes on two cores, because most tests wait for something. JOBS=0 runs all in one process,
# for a debugger. Tests that wait for time limits, and those that measure time, run afterwards (scripts/run-tests.sh).
JOBS ?= 4
RUN_TESTS = $(abspath scripts/run-tests.sh) $(JOBS)

## test: run every test that needs no root; say what is skipped and why (ARGS are pytest's)
.PHONY: test
test: $(VENV)/.dev
	$(RUN_TESTS) $(BIN)/python -m pytest $(ARGS)

# Suites that ask everything of HTTP that an engine which answers late could get wrong.
LATE_TESTS ?= tests/http/test_seed_api.py tests/http/test_resource_api.py tests/http/test_lanes_agree.py \
  tests/http/test_answers_are_not_crossed.py tests/http/test_slow_and_lost_clients.py tests/api tests/client tests/compat

## test-late: serve engines that answer late in the embedded one's place (LATE_TESTS=tests for all tests)
.PHONY: test-late
test-late: $(VENV)/.dev
	KEYRACK_TEST_ENGINE=late-writes $(BIN)/python -m pytest $(LATE_TESTS) $(ARGS)
	KEYRACK_TEST_ENGINE=remote $(BIN)/python -m pytest $(LATE_TESTS) $(ARGS)
	KEYRACK_TEST_ENGINE=commit $(BIN)/python -m pytest $(LATE_TESTS) $(ARGS)

## test-faults: kill, fill, starve and take over (ROUNDS=15 for 300 kills and half an hour of soak)
ROUNDS ?= 1
.PHONY: test-faults
test-faults: $(VENV)/.dev
	KEYRACK_TEST_ROUNDS=$(ROUNDS) PYTHON=$(abspath $(BIN))/python scripts/test-faults.sh $(ARGS)

## test-valkey: run the tests over HTTP with stores in Valkey (ENGINE=valkey-sentinel, valkey-cluster)
ENGINE ?= valkey
.PHONY: test-valkey
test-valkey: $(VENV)/.dev
	KEYRACK_TEST_ENGINE=$(ENGINE) $(RUN_TESTS) $(BIN)/python -m pytest tests/http tests/api tests/client tests/compat tests/consistency $(ARGS)
	KEYRACK_TEST_ROUNDS=2 $(BIN)/python -m pytest tests/valkey/test_slots_on_the_move.py $(ARGS)

## test-adapters: run other projects' own suites over the adapters; fetches them, about four minutes
.PHONY: test-adapters
test-adapters: $(VENV)/.dev
	PYTHON=$(abspath $(BIN))/python scripts/test-adapters.sh $(ARGS)

# The console's tests drive Debian's Chromium; its types are checked by TypeScript, which ships nothing.
CONSOLE := .delivery/console

## test-console: try the console in a real Chromium, and check the types of its modules
.PHONY: test-console
test-console: console-needs $(CONSOLE)/.ready
	$(CONSOLE)/node_modules/.bin/tsc --project tests/console/tools/tsconfig.json
	PYTHONPATH=src KEYRACK_TEST_AXE=$(abspath $(CONSOLE))/node_modules/axe-core/axe.min.js \
	  $(CONSOLE)/venv/bin/python -m pytest --numprocesses 2 tests/console $(ARGS)

## vendor: fetch what the console has of other projects anew, and compare it with what is here
.PHONY: vendor
vendor: $(VENV)/.dev
	$(BIN)/python scripts/vendor.py

.PHONY: console-needs
console-needs:
	@missing=; for tool in chromium:chromium npm:npm; do \
	  command -v $${tool%:*} >/dev/null || missing="$$missing $${tool#*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && [ -n "$${CI:-}$${INSTALL:-}" ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else echo "For these tests, install on Debian or Ubuntu: apt-get install$$missing (or as root: make test-console INSTALL=1)"; exit 1; fi

$(CONSOLE)/.ready: requirements/console.txt tests/console/tools/package.json tests/console/tools/package-lock.json
	$(PYTHON) -m venv $(CONSOLE)/venv
	$(CONSOLE)/venv/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/console.txt
	cp tests/console/tools/package.json tests/console/tools/package-lock.json $(CONSOLE)/
	npm --prefix $(CONSOLE) ci --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

## lint: check style (ruff), types (mypy, strict) and the structure of the source
.PHONY: lint
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/check_structure.py

## structure: check what no linter does: cycles, direction of imports, size of classes, names used twice
.PHONY: structure
structure: $(VENV)/.dev
	$(BIN)/python scripts/check_structure.py

## format: put the source in shape
.PHONY: format
format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

## wheel: build the wheel into dist/
.PHONY: wheel
wheel: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation --wheel --outdir dist .

## fuzz: try the API against its own OpenAPI document for a minute (SECONDS=600 for longer)
SECONDS ?= 60
.PHONY: fuzz
fuzz: $(VENV)/.dev .delivery/fuzz/.installed
	PYTHON=$(abspath $(BIN)/python) SCHEMATHESIS=$(abspath .delivery/fuzz/bin/schemathesis) scripts/fuzz-api.sh $(SECONDS)

.delivery/fuzz/.installed: requirements/fuzz.txt
	$(PYTHON) -m venv .delivery/fuzz
	.delivery/fuzz/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/fuzz.txt
	@touch $@

# The suites of `make test`, from a directory that has no source tree beside it.
WHEEL_TESTS ?= $(addprefix ../tests/,unit engine http process api access client cli compat consistency valkey durable)

## test-wheel: run every test against the built wheel, as CI does (WHEEL_TESTS=../tests/unit for some)
.PHONY: test-wheel
test-wheel: wheel
	rm -rf build/wheel-venv
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/dev.txt
	build/wheel-venv/bin/python -m pip --disable-pip-version-check --quiet install --no-deps dist/*.whl
	cd build && $(RUN_TESTS) wheel-venv/bin/python -m pytest -c ../pyproject.toml --rootdir .. $(WHEEL_TESTS) $(ARGS)

## docs: write the pages that are generated
.PHONY: docs
docs: $(VENV)/.dev
	$(BIN)/python -m keyrack.settings > docs/settings.md
	$(BIN)/python -m keyrack.http.api.reference docs/http-api.md
	$(BIN)/python -m deploy.monitoring
	$(BIN)/python -m keyrack.cli.manual docs/cli.md docs/keyrack.1
	$(BIN)/python -m keyrack.compat.reference docs/upstash.md

## bench: measure Keyrack and its peers side by side (ARGS="--quick" for under two minutes)
.PHONY: bench
bench: $(VENV)/.dev
	$(BIN)/python -m bench $(ARGS)

## bench-python: measure the client and a store in the program's own process beside their peers
.PHONY: bench-python
bench-python: $(VENV)/.dev
	$(BIN)/python -m bench.client $(ARGS)
	$(BIN)/python -m bench.inprocess $(ARGS)

## bench-stampede: let 200 processes want one key for a minute (ARGS=--kill ends who computes)
.PHONY: bench-stampede
bench-stampede: $(VENV)/.dev
	$(BIN)/python -m bench.stampede $(ARGS)

## bench-compare: measure the working tree against another commit (BASE=REV; HEAD without it)
.PHONY: bench-compare
bench-compare: $(VENV)/.dev
	@# BASE is the image's base as well, which is no commit.
	$(BIN)/python -m bench.compare $(or $(filter-out python:%,$(BASE)),HEAD) $(ARGS)

## lock: resolve the dependencies anew and write the locked lists
.PHONY: lock
lock: $(VENV)/.dev
	$(PIP) install uv
	cd requirements && for list in "--extra valkey --extra jwt ../pyproject.toml runtime" "build.in build" "--extra valkey --extra jwt dev.in ../pyproject.toml dev"; do \
	  set -- $$list; out=$$(eval echo \$$$$#); \
	  ../$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate --quiet $${list% *} -o $$out.txt || exit 1; done

## clean: remove everything that was built or installed here
.PHONY: clean
clean:
	rm -rf $(VENV) .bench .delivery build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis test-results

## delivery-test: exercise image, chart, pipeline and infrastructure (needs root and Debian packages)
.PHONY: delivery-test
delivery-test: image-test chart-test pipeline-test infra-test

# What ships is beside what it ships: each of these has its targets, and help takes them in.
include $(wildcard deploy/*.mk)

.PHONY: help
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Keyrack needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	$(PIP) install --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
