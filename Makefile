# Every target works from a fresh checkout and needs only python3 with its venv module.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 9292
PYTHON2 ?= python2.7
MESSAGES ?= 50
FUZZ_SECONDS ?= 60
SOAK_MINUTES ?= 10
ATTACK_SECONDS ?= 60
TESTS ?=
# Tests wait for half of their time, so there are more workers than cores.
WORKERS ?= $(shell expr 2 '*' $$(getconf _NPROCESSORS_ONLN))
PYTHONS ?= python3.11 python3.12 python3.13 python3.14 python3.15

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup
# Compiles the tests once, instead of in every worker.
COMPILE_TESTS := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q --collect-only >/dev/null || true
EXTRAS := server,redis,zlib-ng,isal
SOURCES := pyproject.toml setup.py MANIFEST.in README.md $(shell find src -type f -not -path '*.egg-info/*' \( -not -name '*.c' -o -path '*/native/*' \))

.PHONY: help demo check test test-all attack coverage test-arm64 autobahn bench bench-servers bench-broadcast bench-idle bench-paired bench-instructions bench-loops fuzz sanitize sanitize-fuzz sanitized soak leaks lint types wheel clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed-server ## serve the demo on http://localhost:9292
	@$(BIN)/python -m wsframe.server --port $(PORT)

test: $(VENV)/installed-test ## run the tests, or only the files in TESTS
	$(PYTEST) $(TESTS)

test-all: ## run the tests on every interpreter in PYTHONS
	set -e; for python in $(PYTHONS); do $(MAKE) test PYTHON=$$python VENV=.venv-$$python; done

coverage: $(VENV)/installed-test ## run the tests and check which lines and branches they reach
	rm -rf build/coverage; mkdir -p build/coverage
	@$(COMPILE_TESTS)
	COVERAGE_FILE=$(CURDIR)/build/coverage/data $(PYTEST) --cov --cov-report=
	COVERAGE_FILE=$(CURDIR)/build/coverage/data $(BIN)/python -m tools.coverage_gate

check: lint types $(VENV)/installed-test ## lint, types and the fast tests on the compiled kernels
	@$(COMPILE_TESTS)
	$(PYTEST) -m "not slow" --kernel compiled $(TESTS)

test-arm64: ## test the C code on an emulated arm64 (gcc-aarch64-linux-gnu, qemu-user-static)
	mkdir -p build
	aarch64-linux-gnu-gcc -O2 -Wall -Wextra -march=armv8-a+crypto -static -Isrc/wsframe/native \
		tests/codec/native/native_test.c src/wsframe/native/*.c -o build/native-arm64
	qemu-aarch64-static build/native-arm64

autobahn: $(VENV)/installed-conformance ## test server and client with the reference suite (needs Python 2.7)
	$(BIN)/python -m conformance --python2 $(PYTHON2) --messages $(MESSAGES)

bench: $(VENV)/installed-bench ## compare the codec with other implementations, a few minutes
	$(BIN)/python -m pytest bench -q --benchmark-columns=median,iqr,rounds

bench-servers: $(VENV)/installed-bench ## compare echo servers, fifteen minutes (needs libssl-dev)
	$(BIN)/python -m bench.servers

bench-broadcast: $(VENV)/installed-bench ## compare servers that broadcast, six minutes
	$(BIN)/python -m bench.broadcast
	$(BIN)/python -m bench.broadcast --crowd

bench-idle: $(VENV)/installed-bench ## measure the cost of idle connections
	$(BIN)/python -m bench.idle

bench-paired: $(VENV)/installed-bench ## compare this build with that of the interpreter BEFORE
	$(BIN)/python -m bench.paired --before $(BEFORE)

bench-instructions: $(VENV)/installed-server ## count the instructions of an echo, in this build and that of BEFORE (needs valgrind)
	$(BIN)/python -m bench.instructions --before $(BEFORE)

bench-loops: $(VENV)/installed-server ## compare two I/O loops with one, on any Python: PYTHON=python3.14t VENV=.venv-3.14t
	$(BIN)/python -m bench.loops

fuzz: $(VENV)/installed-fuzz ## fuzz the codec for FUZZ_SECONDS
	$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

sanitize: sanitized ## test the codec on kernels built with sanitizers
	.venv-sanitize/bin/python -m fuzz.sanitized -m pytest -n auto \
		tests/codec --ignore=tests/codec/native

sanitize-fuzz: sanitized ## fuzz the sanitized kernels, starting from the inputs of `make fuzz`
	.venv-sanitize/bin/python -m fuzz.sanitized -m fuzz --seconds $(FUZZ_SECONDS)

sanitized:
	WSFRAME_SANITIZE=address,undefined WSFRAME_BUILD_EXT=require \
		$(MAKE) VENV=.venv-sanitize .venv-sanitize/installed-fuzz

attack: $(VENV)/installed-test ## attack the server like hostile clients, the slow ones for ATTACK_SECONDS
	$(BIN)/python -m attack --seconds $(ATTACK_SECONDS)

soak: $(VENV)/installed-test ## run the server under thousands of varied clients for SOAK_MINUTES
	$(BIN)/python -m soak --minutes $(SOAK_MINUTES)

leaks: $(VENV)/installed-test ## repeat every operation a million times and print the memory growth
	$(BIN)/python -m soak.leaks

lint: $(VENV)/installed-lint ## check formatting, style and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: $(VENV)/installed-types ## check the types
	@rm -rf build/types; mkdir -p build/types/wsframe
	@ln -s $(CURDIR)/src/wsframe/*.py* $(CURDIR)/src/wsframe/py.typed $(CURDIR)/src/wsframe/client \
		$(filter-out $(CURDIR)/src/wsframe %.egg-info,$(wildcard $(CURDIR)/src/*)) build/types/wsframe
	$(BIN)/mypy

wheel: $(VENV)/installed-build ## build a wheel and an sdist into dist/
	rm -rf build
	$(BIN)/python -m build

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-* build dist src/*.egg-info src/wsframe/_kernels.c src/server/_rounds.c

# Dependency groups (PEP 735) need a recent pip, also in an environment made without make.
$(VENV)/recent-pip:
	@echo "Setting up $(VENV); the first time takes a minute."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade "pip>=25.1"
	@touch $@

# A plain install, as for users. setuptools would keep files in build/ that src/ no longer has.
$(VENV)/installed-server: $(SOURCES) | $(VENV)/recent-pip
	@rm -rf build/lib* build/temp* build/bdist*
	@$(PIP) ".[server]"
	@touch $@

$(VENV)/package: $(SOURCES) | $(VENV)/recent-pip
	@rm -rf build/lib* build/temp* build/bdist*
	@$(PIP) ".[$(EXTRAS)]"
	@touch $@

# These work on the sources, without the package.
$(VENV)/installed-lint $(VENV)/installed-build: $(VENV)/installed-%: pyproject.toml | $(VENV)/recent-pip
	@$(PIP) --group $*
	@touch $@

$(VENV)/installed-%: pyproject.toml $(VENV)/package
	@$(PIP) --group $*
	@touch $@
