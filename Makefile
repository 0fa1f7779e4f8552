# The front door: each target works from a fresh checkout, with python3 (and its venv module) alone.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 9292
PYTHON2 ?= python2.7
MESSAGES ?= 50
FUZZ_SECONDS ?= 60
SOAK_MINUTES ?= 10
ATTACK_SECONDS ?= 60
TESTS ?=
PYTHONS ?= python3.11 python3.12 python3.13 python3.14 python3.15

BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py MANIFEST.in README.md $(shell find src -type f -not -path '*.egg-info/*' \( -not -name '*.c' -o -path '*/native/*' \))

.PHONY: help demo test test-all attack coverage test-arm64 autobahn bench bench-servers bench-broadcast bench-idle bench-paired bench-instructions fuzz sanitize sanitize-fuzz sanitized soak leaks lint types wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed-server ## serve the demo on http://localhost:9292
	@$(BIN)/python -m wsframe.server --port $(PORT)

test: $(VENV)/installed-test ## run the tests, or those that TESTS names
	$(BIN)/python -m pytest -n auto --dist loadgroup $(TESTS)

test-all: ## run the tests on every Python that PYTHONS names
	set -e; for python in $(PYTHONS); do $(MAKE) test PYTHON=$$python VENV=.venv-$$python; done

coverage: $(VENV)/installed-test ## see that the tests reach all of codec and client, on either kernel
	rm -rf build/coverage
	for kernel in compiled pure; do \
		COVERAGE_FILE=build/coverage/$$kernel $(BIN)/python -m pytest -q -n auto --dist loadgroup \
			--ignore=tests/server --kernel=$$kernel --cov --cov-report= --cov-fail-under=0 || exit 1; \
	done
	@echo; echo "On the compiled kernels, but for the pure ones and the choice:"
	@$(BIN)/python -m coverage report --data-file=build/coverage/compiled --omit='*/wsframe/cli/*,*/wsframe/demo/*,*/wsframe/server/*,*/_pure.py,*/kernels.py'
	@echo; echo "On the pure kernels, but for the choice:"
	@$(BIN)/python -m coverage report --data-file=build/coverage/pure --omit='*/wsframe/cli/*,*/wsframe/demo/*,*/wsframe/server/*,*/kernels.py'
	@echo; echo "On both:"
	@$(BIN)/python -m coverage combine -q --keep --data-file=build/coverage/both build/coverage/compiled build/coverage/pure
	@$(BIN)/python -m coverage report --data-file=build/coverage/both

test-arm64: ## run the C units on an emulated arm64 (gcc-aarch64-linux-gnu, qemu-user-static)
	mkdir -p build
	aarch64-linux-gnu-gcc -O2 -Wall -Wextra -march=armv8-a+crypto -static -Isrc/wsframe/native \
		tests/codec/native/native_test.c src/wsframe/native/*.c -o build/native-arm64
	qemu-aarch64-static build/native-arm64

autobahn: $(VENV)/installed-conformance ## run the reference suite on server and client (Python 2.7)
	$(BIN)/python -m conformance --python2 $(PYTHON2) --messages $(MESSAGES)

bench: $(VENV)/installed-bench ## compare the codec with its peers, a few minutes
	$(BIN)/python -m pytest bench -q --benchmark-columns=median,iqr,rounds

bench-servers: $(VENV)/installed-bench ## compare echo servers, ten minutes
	$(BIN)/python -m bench.servers

bench-broadcast: $(VENV)/installed-bench ## compare servers that send to many, five minutes
	$(BIN)/python -m bench.broadcast
	$(BIN)/python -m bench.broadcast --crowd

bench-idle: $(VENV)/installed-bench ## count what idle connections cost echo servers
	$(BIN)/python -m bench.idle

bench-paired: $(VENV)/installed-bench ## compare this build with the one that the Python BEFORE has installed
	$(BIN)/python -m bench.paired --before $(BEFORE)

bench-instructions: $(VENV)/installed-server ## count the instructions of an echo in this build and in that of BEFORE (valgrind)
	$(BIN)/python -m bench.instructions --before $(BEFORE)

fuzz: $(VENV)/installed-fuzz ## throw bytes at the codec for FUZZ_SECONDS; fuzz/__init__.py says what then
	$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

sanitize: sanitized ## run the codec's tests on kernels built with sanitizers
	.venv-sanitize/bin/python -m fuzz.sanitized -m pytest -n auto \
		tests/codec --ignore=tests/codec/native

sanitize-fuzz: sanitized ## fuzz these kernels, beginning with what `make fuzz` has found
	.venv-sanitize/bin/python -m fuzz.sanitized -m fuzz --seconds $(FUZZ_SECONDS)

sanitized:
	WSFRAME_SANITIZE=address,undefined WSFRAME_BUILD_EXT=require \
		$(MAKE) VENV=.venv-sanitize .venv-sanitize/installed-fuzz

attack: $(VENV)/installed-test ## attack the server as a hostile client would, for ATTACK_SECONDS where that matters
	$(BIN)/python -m attack --seconds $(ATTACK_SECONDS)

soak: $(VENV)/installed-test ## SOAK_MINUTES of the server under thousands of clients that do everything
	$(BIN)/python -m soak --minutes $(SOAK_MINUTES)

leaks: $(VENV)/installed-test ## do everything a million times, and print what that leaves behind
	$(BIN)/python -m soak.leaks

lint: $(VENV)/installed-dev ## check form and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed-dev ## check the types
	$(BIN)/mypy

wheel: $(VENV)/installed-dev ## build a wheel and an sdist into dist/
	rm -rf build
	$(BIN)/python -m build

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-* build dist src/*.egg-info src/wsframe/_kernels.c

# A plain install, as users have it. setuptools keeps in build/ what was deleted from src/ since.
$(VENV)/installed-%: $(SOURCES)
	@echo "Setting up $(VENV) for $*; the first time takes a minute."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -rf build/lib* build/temp* build/bdist*
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[$*]"
	@touch $@
