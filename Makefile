# The newcomer's two commands are `make train` and `make test`; each sets up all that it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ORACLE := .venv-oracle

.PHONY: train test test-slow test-torch test-amx test-aarch64 torture lint bench bench-larq report figures house reference setup oracle golden clean

train: setup
	$(BIN)/bnn train recipes/digits.py --preset edge-min

# One process a core; `pytest` alone runs in one process. What is compiled is kept: tests start many processes, each of
# which would compile the package anew.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest --numprocesses auto --dist worksteal

test: setup
	$(PYTEST)

test-slow: setup
	$(PYTEST) -m slow

OF_OPERATIONS := tests/quantizers tests/layers tests/ops tests/test_bits.py tests/test_bits_products.py tests/training/test_step.py

# What depends most on torch, on another release of it, as in `make test-torch TORCH=2.15.0`; torch with CUDA takes gigabytes.
TORCH ?= 2.15.0
OTHER := .venv-torch-$(TORCH)

test-torch:
	test -x $(OTHER)/bin/python || $(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/pip install --quiet 'torch==$(TORCH)' --editable '.[data,report]' pytest hypothesis
	$(OTHER)/bin/pytest $(OF_OPERATIONS)

# The kernels of AMX on a processor that has AVX-512 and no tiles, whose instructions are emulated.
AMX := .venv-amx

test-amx:
	test -x $(AMX)/bin/python || $(PYTHON) -m venv $(AMX)
	$(AMX)/bin/pip install --quiet --constraint constraints.txt --editable '.[data,report]' pytest pytest-xdist hypothesis \
	    --config-settings=build-dir=build/amx \
	    --config-settings=cmake.define.CMAKE_CXX_FLAGS='-include $(CURDIR)/tests/native/emulated_tiles.h'
	BNN_KERNELS=amx $(AMX)/bin/python -W error::RuntimeWarning -c 'import bnn.ops.cpu'  # kernels that are wrong give way to the reference
	BNN_KERNELS=amx $(AMX)/bin/pytest --numprocesses auto $(OF_OPERATIONS)

# The kernels of ARMv8, operations and a recipe on emulated cores: apt install g++-aarch64-linux-gnu qemu-user mmdebstrap.
test-aarch64:
	sh tests/native/aarch64.sh
	sh tests/native/aarch64_python.sh

# Half an hour on two free cores; the table is that of benchmarks/records.
torture: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.torture --long --markdown runs/torture.md

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict -p bnn -p hwsim

bench: setup
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m benchmarks.train_step --model binarynet --batch 100 --against torch

bench-larq: setup oracle
	$(BIN)/python -m benchmarks.train_step --model binarynet --batch 100 --against torch,larq

report: setup
	run=runs/report-$$(date +%Y%m%d-%H%M%S) && $(BIN)/bnn train recipes/digits.py --out $$run && $(BIN)/bnn report $$run

# Those of docs/hwsim.md that need no training.
figures: setup
	$(BIN)/hwsim sweep switching --over pulse-width-s --from 0 --to 2.5e-9 --points 51 \
	    --models fokker-planck,butler,llg --out docs/hwsim
	$(BIN)/hwsim sweep switching --over overdrive --from 0.8 --to 2 --points 25 --pulse-width-s 5e-9 \
	    --models fokker-planck,butler,llg --trajectories 1000 --out docs/hwsim
	$(BIN)/hwsim sweep schemes --out docs/hwsim
	$(BIN)/hwsim sweep energy --write-J 4.4e-14 --out docs/hwsim

# docs/api/index.html, from the docstrings.
reference: setup
	$(BIN)/python docs/reference.py

# The drawing of docs/architecture.md, from the imports.
house:
	$(PYTHON) docs/house.py

setup: $(READY)

# Made anew when what is installed, or the kernels that are built, change.
$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard bnn/native/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[data,report,tensorboard,zoo,export,dev]'
	touch $@

# larq's pins exclude this package's own dependencies, so it lives apart. Python 3.9 to 3.11.
oracle: $(ORACLE)/.ready

$(ORACLE)/.ready: benchmarks/oracle-requirements.txt
	test -x $(ORACLE)/bin/python || $(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/pip install --quiet --requirement $<
	touch $@

# Values of larq that tests compare with; rewrites tests/golden/larq.json.
golden: oracle
	$(ORACLE)/bin/python -m benchmarks.golden

clean:
	rm -rf $(VENV) $(ORACLE) $(AMX) build
