# Every target works from a fresh checkout and needs only python3 with its venv module.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 9292
PYTHON2 ?= python2.7
MESSAGES ?= 50
FUZZ_SECONDS ?= 60
SOAK_MINUTES ?= 10
ATTACK_SECONDS ?= 60
SERVER_SECONDS ?= 60
GUNICORN ?= 21.2.0
TESTS ?=
# Tests wait for half of their time, so there are more workers than cores.
PER_CORE = 2
WORKERS ?= $(shell expr $(PER_CORE) '*' $$(getconf _NPROCESSORS_ONLN))
DIST ?= dist
PYTHONS ?= python3.11 python3.12 python3.13 python3.14 python3.15

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A worker takes one test at a time, in the order of tests/support/order.py.
PYTEST = $(BIN)/python -m pytest -q -n $(WORKERS) --dist load --maxschedchunk 1
WHEEL := $(BIN)/python -m pip wheel --quiet --no-deps --no-cache-dir
EXTRAS := server,redis,zlib-ng,isal
SOURCES := pyproject.toml setup.py MANIFEST.in README.md $(shell find src -type f -not -path '*.egg-info/*' \( -not -name '*.c' -o -path '*/native/*' \))

.PHONY: help demo check docs docs-links test test-all attack coverage test-arm64 autobahn bench bench-servers bench-broadcast bench-idle bench-paired bench-instructions bench-loops uvicorn-tests fuzz sanitize sanitize-fuzz sanitized servers servers-old soak leaks lint types sdist wheel reproducible clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed-server ## serve the demo on http://localhost:9292
	@$(BIN)/python -m wsframe.server --port $(PORT)

test: $(VENV)/installed-test ## run the tests, or only the files in TESTS
	$(PYTEST) $(TESTS)

test-all: ## run the tests on every interpreter in PYTHONS
	set -e; for python in $(PYTHONS); do $(MAKE) test PYTHON=$$python VENV=.venv-$$python; done

coverage: $(VENV)/compiled-tests ## run the tests and check which lines and branches they reach
	rm -rf build/coverage; mkdir -p build/coverage
	COVERAGE_FILE=$(CURDIR)/build/coverage/data $(PYTEST) --cov --cov-report=
	COVERAGE_FILE=$(CURDIR)/build/coverage/data $(BIN)/python -m tools.coverage_gate

# The fast tests wait for most of their time.
check: PER_CORE = 3
check: lint types $(VENV)/compiled-tests ## lint, types and the fast tests on the compiled kernels
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

uvicorn-tests: $(VENV)/installed-uvicorn-tests ## run uvicorn's own tests of WebSockets with our class (needs a package index)
	$(BIN)/python -m tools.uvicorn_tests -n $(WORKERS)

docs: $(VENV)/installed-docs ## build the documentation in build/docs
	$(BIN)/sphinx-build -n -W --keep-going docs build/docs

docs-links: $(VENV)/installed-docs ## check the external links of the documentation
	$(BIN)/sphinx-build -b linkcheck docs build/docs-links

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

attack: $(VENV)/installed-test ## attack the server like hostile clients, the slow ones for ATTACK_SECONDS (needs ss of iproute2)
	$(BIN)/python -m attack --seconds $(ATTACK_SECONDS)

servers: $(VENV)/installed-servers ## check wsframe.wsgi on WSGI servers, each under load for SERVER_SECONDS (needs nginx)
	$(BIN)/python -m servers --seconds $(SERVER_SECONDS)

servers-old: ## check it on the version GUNICORN, in an environment of its own
	$(MAKE) VENV=.venv-gunicorn .venv-gunicorn/installed-servers
	.venv-gunicorn/bin/python -m pip install --quiet gunicorn==$(GUNICORN)
	.venv-gunicorn/bin/python -m servers --seconds $(SERVER_SECONDS) gunicorn

soak: $(VENV)/installed-test ## run the server under thousands of varied clients for SOAK_MINUTES
	$(BIN)/python -m soak --minutes $(SOAK_MINUTES)

leaks: $(VENV)/installed-test ## repeat every operation a million times and print the memory growth
	$(BIN)/python -m soak.leaks

lint: $(VENV)/installed-lint ## check formatting, style, spelling, and the workflows of CI
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/zizmor --quiet --offline .github

types: $(VENV)/installed-types ## check the types
	@rm -rf build/types; mkdir -p build/types/wsframe
	@ln -s $(CURDIR)/src/wsframe/*.py* $(CURDIR)/src/wsframe/py.typed $(CURDIR)/src/wsframe/client \
		$(filter-out $(CURDIR)/src/wsframe %.egg-info,$(wildcard $(CURDIR)/src/*)) build/types/wsframe
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	PATH="$(abspath $(BIN)):$$PATH" pyright --verifytypes wsframe --ignoreexternal

# The time of all files in archives: that of the commit, or without git that of the sdist.
sdist wheel reproducible: export SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),$(shell date -r pyproject.toml +%s))

sdist: $(VENV)/installed-build ## build the sdist and the pure wheel into DIST
	rm -rf $(DIST) build/lib* build/bdist*
	umask 022; $(BIN)/python -m build --quiet --sdist --outdir $(DIST)
	umask 022; WSFRAME_BUILD_EXT=no $(WHEEL) --wheel-dir $(DIST) $(DIST)/*.tar.gz

wheel: sdist ## build also the compiled wheel for this Python and for Linux distributions of all kinds
	rm -rf build/wheels
	umask 022; WSFRAME_BUILD_EXT=require CFLAGS=-g0 $(WHEEL) --wheel-dir build/wheels $(DIST)/*.tar.gz
	umask 022; PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --wheel-dir $(DIST) build/wheels/*.whl

reproducible: wheel ## build all of them twice, at another time and with other settings, and compare every byte
	(umask 077; TZ=Asia/Tokyo LC_ALL=C $(MAKE) wheel DIST=build/again)
	cd $(DIST) && sha256sum * >$(CURDIR)/build/sums
	cd build/again && sha256sum --check --strict $(CURDIR)/build/sums

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-* build dist src/*.egg-info src/wsframe/_kernels.c src/server/_rounds.c

# An environment without an interpreter or without pip is broken: the system's Python was upgraded, or its
# module ensurepip was missing. Without the stamps, everything is installed again.
ifneq ($(wildcard $(VENV)/pyvenv.cfg),)
ifneq ($(shell $(BIN)/python -c "import pip" 2>/dev/null && echo works),works)
$(info $(VENV) has no working pip, and is set up again when a target needs it.)
$(shell rm -f $(VENV)/recent-pip $(VENV)/installed-* $(VENV)/package $(VENV)/compiled-tests)
endif
endif

# Without a compiler and Python's header files the package is installed with the pure kernels, and one line
# names what is missing. It is installed again as soon as both exist.
CAN_COMPILE = $(BIN)/python -c "import os, shutil, sysconfig; \
	compiler = (sysconfig.get_config_var('CC') or 'cc').split()[0]; \
	header = os.path.join(sysconfig.get_path('include'), 'Python.h'); \
	missing = ['a C compiler'] * (not shutil.which(compiler)); \
	missing += ['Python.h (python3-dev on Debian and Ubuntu, python3-devel on Fedora)'] * (not os.path.exists(header)); \
	missing = ' and '.join(missing); \
	exit(f'The codec is not compiled. Install {missing}, then make compiles it.' if missing else 0)"
NOTE_COMPILER = test -e $(VENV)/no-compiler || $(CAN_COMPILE) || touch $(VENV)/no-compiler
ifneq ($(wildcard $(VENV)/no-compiler),)
ifeq ($(shell $(CAN_COMPILE) 2>/dev/null && echo yes),yes)
$(info The kernels of $(VENV) are compiled when a target needs them, because there is a C compiler now.)
$(shell rm -f $(VENV)/installed-server $(VENV)/package $(VENV)/no-compiler)
endif
endif

# Dependency groups (PEP 735) need a recent pip, also in an environment made without make.
$(VENV)/recent-pip:
	@echo "Setting up $(VENV); the first time takes a minute."
	@$(BIN)/python -c "import pip" 2>/dev/null || $(PYTHON) -m venv $(if $(wildcard $(VENV)/pyvenv.cfg),--clear) $(VENV)
	@$(PIP) --upgrade "pip>=25.1"
	@touch $@

# A plain install, as for users. setuptools would keep files in build/ that src/ no longer has.
$(VENV)/installed-server: $(SOURCES) | $(VENV)/recent-pip
	@rm -rf build/lib* build/temp* build/bdist*
	@$(PIP) ".[server]"
	@$(NOTE_COMPILER)
	@touch $@

$(VENV)/package: $(SOURCES) | $(VENV)/recent-pip
	@rm -rf build/lib* build/temp* build/bdist*
	@$(PIP) ".[$(EXTRAS)]"
	@$(NOTE_COMPILER)
	@touch $@

# These work on the sources, without the package.
$(VENV)/installed-lint $(VENV)/installed-build: $(VENV)/installed-%: pyproject.toml | $(VENV)/recent-pip
	@$(PIP) --group $*
	@touch $@

$(VENV)/installed-%: pyproject.toml $(VENV)/package
	@echo "Installing the dependency group \"$*\" of pyproject.toml; this may take a minute."
	@$(PIP) --group $*
	@touch $@

# Compiled once, instead of in every worker. An error is reported by the run of the tests.
$(VENV)/compiled-tests: $(shell find attack tests tools -name '*.py') | $(VENV)/installed-test
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q --collect-only >/dev/null && touch $@ || true
