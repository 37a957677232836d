# Everything here needs Python 3.10, a C++20 compiler, make and git; the rest comes from pip into folders beside this file.
PYTHON ?= python3
MODEL ?= smollm2-135m
BUILD_LIMIT ?= 180
SECONDS ?= 600

PIP := -m pip --quiet --quiet --disable-pip-version-check
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc src -type f ! -name '*.pyc' ! -name '*.so')
CPP := $(shell find csrc tests/native -name '*.cpp' -o -name '*.h' -o -name '*.inl')

.DEFAULT_GOAL := help
.PHONY: help demo test test-torch test-neon check soak fuzz fuzz-native sanitize bench build-time clean
.DELETE_ON_ERROR:

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed  ## install, fetch the default model, stream a continuation of "The quick brown"
	@.venv/bin/qb pull $(MODEL)
	@.venv/bin/qb generate -m $(MODEL) "The quick brown" --max-new-tokens 64 --echo --stats

test: .venv/.test  ## run the tests; the default model is fetched for those that need it
	@.venv/bin/qb pull $(MODEL)
	.venv/bin/python -m pytest --quiet tests --ignore=tests/needs_torch

test-torch: .venv-torch/.installed  ## run the tests that compare with torch and transformers, in a venv of their own
	@.venv-torch/bin/qb pull $(MODEL)
	.venv-torch/bin/python -m pytest --quiet tests/needs_torch

test-neon: build/neon/tested  ## cross compile for 64-bit ARM and run the native tests there under an emulator

build/neon/tested: .venv/.cmake CMakeLists.txt $(CPP)
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || \
	    { echo "a cross compiler or an emulator for 64-bit ARM was not found; install them, like:" \
	        "apt install g++-aarch64-linux-gnu qemu-user"; exit 1; }
	@echo "compiling the native tests for 64-bit ARM (some minutes)"
	@.venv/bin/cmake -S . -B $(@D) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath .venv/bin/ninja) \
	    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
	    -DCMAKE_EXE_LINKER_FLAGS=-static -DQB_TESTS=ON --log-level=WARNING
	@.venv/bin/cmake --build $(@D) --target native_tests
	qemu-aarch64 $(@D)/native_tests
	@touch $@

check: .venv/.check .venv/.test  ## lint, formatting, types, import arrows; print the length of each file
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/clang-format --dry-run --Werror $(CPP)
	.venv/bin/python -m pytest --quiet tests/docs/test_arrows.py
	@find src csrc tests benchmarks \( -name '*.py' -o -name '*.cpp' -o -name '*.h' -o -name '*.inl' \) -size +0 \
	    -exec wc -l {} + | sort -n

soak: .venv/.test  ## drive the engine at random and run the whole matrix of promise 1: a quarter of an hour
	.venv/bin/python -m pytest --quiet --soak tests/pure/test_driving.py tests/native/test_driving_native.py \
	    tests/native/test_determinism.py

fuzz: .venv/.fuzz  ## search for files that a reader cannot bear: SECONDS (600) for each of a dozen kinds
	.venv/bin/python tests/fuzz/run.py all $(SECONDS)

fuzz-native: build/fuzz/built  ## the same for what C++ is handed, with clang and its sanitizers: SECONDS (600) each
	@for target in weights step draws lists; do \
	    mkdir -p build/fuzz/$$target tests/native/fuzz/corpus/$$target && \
	    build/fuzz/fuzz_$$target -max_total_time=$(SECONDS) -max_len=4096 -len_control=0 -print_final_stats=1 \
	        -artifact_prefix=tests/native/fuzz/corpus/$$target/ build/fuzz/$$target tests/native/fuzz/corpus/$$target || \
	    exit 1; \
	done

build/fuzz/built: .venv/.cmake CMakeLists.txt $(CPP)
	@command -v clang++ >/dev/null || \
	    { echo "clang++ was not found, and only clang can search so; install it, like: apt install clang"; exit 1; }
	@echo "building the targets with clang (some minutes)"
	@.venv/bin/cmake -S . -B $(@D) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath .venv/bin/ninja) \
	    -DCMAKE_CXX_COMPILER=clang++ -DQB_FUZZ=ON -DQB_SANITIZE=fuzzer-no-link,address,undefined --log-level=WARNING
	@.venv/bin/cmake --build $(@D)
	@touch $@

sanitize: build/asan/sanitized build/tsan/sanitized  ## run the native tests under address, undefined and thread sanitizers

build/asan/sanitized: sanitizers := address,undefined
build/tsan/sanitized: sanitizers := thread
build/tsan/sanitized: tests := pool quantize attention states load  # the others have one thread, and take minutes
build/%/sanitized: .venv/.cmake CMakeLists.txt $(CPP)
	@echo "native tests under -fsanitize=$(sanitizers)"
	@.venv/bin/cmake -S . -B $(@D) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath .venv/bin/ninja) \
	    -DQB_TESTS=ON -DQB_SANITIZE=$(sanitizers) --log-level=WARNING
	@.venv/bin/cmake --build $(@D) --target native_tests
	$(@D)/native_tests $(tests)
	@touch $@

bench: .venv/.installed  ## measure the default model: prompt and decode tokens/s, as a line of JSON
	@.venv/bin/qb pull $(MODEL)
	.venv/bin/python benchmarks/b_quickbrown.py --model $(MODEL)

build-time: .venv/bin/python  ## build the extension from scratch; fail above BUILD_LIMIT seconds
	@rm -rf build/timed && start=$$(date +%s) && \
	.venv/bin/python $(PIP) wheel . --no-deps --wheel-dir build/timed -C build-dir=build/timed/cmake && \
	seconds=$$(($$(date +%s) - start)) && rm -rf build/timed && \
	echo "built from scratch in $$seconds s; the limit is $(BUILD_LIMIT) s" && test $$seconds -le $(BUILD_LIMIT)

clean:  ## remove everything that was built or installed here; fetched models stay
	rm -rf build dist .venv .venv-torch .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp stands for what is installed in a venv. `pip install .` runs again when a source is newer than it.

.venv/bin/python .venv-torch/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is not Python 3.10 or newer; name one that is, like: make PYTHON=python3.12 demo"; exit 1; }
	@command -v $${CXX:-c++} g++ clang++ >/dev/null || \
	    { echo "no C++ compiler was found; install one, like: apt install g++"; exit 1; }
	@echo "making $(@:/bin/python=)"
	@$(PYTHON) -m venv $(@:/bin/python=)

.venv/.installed: $(SOURCES) | .venv/bin/python
	@echo "building and installing quickbrown (a minute or two the first time)"
	@.venv/bin/python $(PIP) install .
	@touch $@

.venv/.test .venv/.check .venv/.fuzz: .venv/.%: .venv/.installed
	@echo "installing what 'make $*' needs"
	@.venv/bin/python $(PIP) install 'quickbrown[$*]'
	@touch $@

.venv/.cmake: | .venv/bin/python
	@.venv/bin/python $(PIP) install cmake ninja
	@touch $@

.venv-torch/.torch: | .venv-torch/bin/python
	@echo "installing torch and transformers"
	@.venv-torch/bin/python $(PIP) install torch==2.13.0
	@.venv-torch/bin/python $(PIP) install transformers gguf
	@touch $@

.venv-torch/.installed: .venv-torch/.torch $(SOURCES)
	@echo "building and installing quickbrown beside torch"
	@.venv-torch/bin/python $(PIP) install '.[test]'
	@touch $@
