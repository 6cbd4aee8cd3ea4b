# ddpm-duet. `make` lists the targets; extra flags go through ARGS="...".
SHELL := /bin/bash
.DEFAULT_GOAL := help

# These are set on the command line of make. Variables of the shell of the same names are somebody else's.
PYTHON = python3
VENV = .venv
# What `make setup` installs; EXTRAS=torch,dev leaves TensorFlow out, and its tests are skipped.
EXTRAS = torch,tensorflow,notebooks,dev
# A first run on a fresh Linux machine takes the small CPU build of PyTorch with
#   make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS =
ARGS =
RUN =
RUNS =
WORKERS =
# So are these, which would change what Python does; shared/src/surroundings.py sees to those of the libraries.
unexport BASH_ENV PYTHONHOME PYTHONINSPECT PYTHONOPTIMIZE PYTHONWARNINGS VIRTUAL_ENV

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help
help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP)  ## make the virtual environment (every target does so when it is missing or stale)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[$(EXTRAS)]'
	@# It asks for torchvision, which we do not use and whose wheels do not load beside PyTorch's CPU build.
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torch-fidelity
	@touch $@

.PHONY: data
data: $(STAMP)  ## find, download and verify data, and what they are like, e.g. ARGS="--dataset mnist"
	$(PY) -m ddpm_shared.datasets $(ARGS)

# The demo is the ordinary commands on a small scale; a new folder each time, so nothing is overwritten.
DEMO := runs/demo/$(shell date -u +%Y%m%dT%H%M%SZ)
DEMO_IMAGES = $(SAMPLER) --num-images 256 --batch-size 64 --gif
DEMO_FLAGS = --preset tiny --dataset fashion-mnist-10k --max-steps 156 --warmup-steps 50 \
  --validation-images 500 --sample-every 0

.PHONY: demo
demo: $(STAMP)  ## all of it in three minutes: draw, compare, judge and train in both frameworks; one page to look at
	@echo "1 of 5: one trained model draws the same images in PyTorch and in TensorFlow"
	$(PY) -m ddpm_torch.inference $(DEMO_IMAGES) --out $(DEMO)/boxed-torch
	$(PY) -m ddpm_tf.inference $(DEMO_IMAGES) --out $(DEMO)/boxed-tensorflow
	@echo; echo "2 of 5: how good are they?"
	$(PY) -m ddpm_shared.evaluation $(DEMO)/boxed-torch --dataset fashion-mnist-10k
	@echo; echo "3 of 5: both frameworks train a tiny model on the data in the package"
	$(PY) -m ddpm_torch.train $(DEMO_FLAGS) --run-dir $(DEMO)/torch $(ARGS)
	$(PY) -m ddpm_tf.train $(DEMO_FLAGS) --run-dir $(DEMO)/tensorflow $(ARGS)
	$(PY) -m ddpm_torch.inference $(SAMPLER) --checkpoint $(DEMO)/torch --num-images 16 --out $(DEMO)/samples-torch
	$(PY) -m ddpm_tf.inference $(SAMPLER) --checkpoint $(DEMO)/tensorflow --num-images 16 --out $(DEMO)/samples-tensorflow
	@echo; echo "4 of 5: the two trainings, step by step"
	$(PY) -m ddpm_shared.compare $(DEMO)/torch $(DEMO)/tensorflow --out $(DEMO)/compare
	@echo; echo "5 of 5: the page to look at"
	$(PY) -m ddpm_shared.demo $(DEMO)

# WORKERS=2 before a command of a tree: so many processes on this machine do it together.
START = $(PY) -m $(if $(WORKERS),ddpm_shared.launch $(WORKERS))

.PHONY: train-torch train-tf
train-torch: $(STAMP)  ## train in PyTorch, e.g. ARGS="--preset tiny --epochs 2"; WORKERS=2 ARGS="--shards 2"
	$(START) ddpm_torch.train $(ARGS)
train-tf: $(STAMP)  ## train in TensorFlow, with the same flags
	$(START) ddpm_tf.train $(ARGS)

# Few steps by the sampler that was measured to be best with them; --sampler in ARGS wins.
SAMPLER := --sampler dpmpp_2m_sde

.PHONY: sample-torch sample-tf
sample-torch: $(STAMP)  ## draw images in PyTorch, e.g. ARGS="--checkpoint FILE --num-images 64"; WORKERS=2
	$(START) ddpm_torch.inference $(SAMPLER) $(ARGS)
sample-tf: $(STAMP)  ## draw images in TensorFlow, with the same flags, from either framework's file
	$(START) ddpm_tf.inference $(SAMPLER) $(ARGS)

.PHONY: invert-torch invert-tf
invert-torch: $(STAMP)  ## images to noise and back in PyTorch, e.g. ARGS="--checkpoint FILE --steps 100"
	$(PY) -m ddpm_torch.inversion $(ARGS)
invert-tf: $(STAMP)  ## images to noise and back in TensorFlow, with the same flags
	$(PY) -m ddpm_tf.inversion $(ARGS)

.PHONY: bits-torch bits-tf
bits-torch: $(STAMP)  ## bits per dimension in PyTorch, e.g. ARGS="--checkpoint FILE --num-images 500"
	$(START) ddpm_torch.bits $(ARGS)
bits-tf: $(STAMP)  ## bits per dimension in TensorFlow, with the same flags, from either framework's file
	$(START) ddpm_tf.bits $(ARGS)

.PHONY: likelihood-torch likelihood-tf
likelihood-torch: $(STAMP)  ## likelihood by the probability-flow ODE in PyTorch, e.g. ARGS="--checkpoint FILE --steps 50"
	$(START) ddpm_torch.likelihood $(ARGS)
likelihood-tf: $(STAMP)  ## likelihood in TensorFlow, with the same flags, from either framework's file
	$(START) ddpm_tf.likelihood $(ARGS)

.PHONY: import-torch import-tf
import-torch: $(STAMP)  ## go on from weights of another PyTorch program, e.g. ARGS="--weights FILE --network dit"
	$(PY) -m ddpm_torch.exchange $(ARGS)
import-tf: $(STAMP)  ## the same for TensorFlow, from .safetensors, with the same flags
	$(PY) -m ddpm_tf.exchange $(ARGS)

.PHONY: evaluate
evaluate: $(STAMP)  ## judge samples against real images: RUN=FOLDER, or RUN=samples.npz
	@test -n "$(RUN)" || { echo "error: say what to judge: make evaluate RUN=runs/samples/..." >&2; exit 2; }
	$(PY) -m ddpm_shared.evaluation $(RUN) $(ARGS)

.PHONY: judge
judge: $(STAMP)  ## train the classifier that judges another data set, once, in minutes: ARGS="--dataset X"
	$(PY) pytorch/tools/train_classifier.py $(ARGS)

.PHONY: compare
compare: $(STAMP)  ## lay runs over each other in report.html: RUNS="A B C"
	$(PY) -m ddpm_shared.compare $(RUNS) $(ARGS)

.PHONY: passport passports graph
passport: $(STAMP)  ## size, sight, speed, memory and parity of a network, e.g. ARGS="--network dit"
	$(PY) -m ddpm_shared.passport $(ARGS)
passports: $(STAMP)  ## those of all networks, and the table in docs/networks.md
	$(PY) -m ddpm_shared.passport --every --page docs/networks.md $(ARGS)
graph: $(STAMP)  ## a drawing of a network, as SVG and PNG, e.g. ARGS="--preset small"
	$(PY) -m ddpm_shared.passport --drawing-only $(ARGS)

.PHONY: notebooks lab
notebooks: $(STAMP)  ## execute the notebooks for both frameworks and save what they show, e.g. ARGS="01 --frameworks torch"
	$(PY) -m ddpm_course.build $(ARGS)
lab: $(STAMP)  ## open the first notebook in JupyterLab
	$(VENV)/bin/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_orientation.ipynb $(ARGS)

.PHONY: parity
parity: $(STAMP)  ## compare every number of both frameworks and the oracle here, e.g. ARGS="--mutations"
	$(PY) -m ddpm_parity $(ARGS)

# Two processes of one thread each, which take whole files (tests/conftest.py); the last -n in ARGS wins.
PYTEST := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 $(PY) -m pytest -n 2 --no-loadscope-reorder

.PHONY: test test-slow
test: $(STAMP)  ## the tests, in some minutes; ARGS="-n 0 tests/test_x.py" in one process, to debug
	$(PYTEST) -m "not slow" $(ARGS)
test-slow: $(STAMP)  ## the slow tests as well
	$(PYTEST) $(ARGS)

.PHONY: faults
faults: $(STAMP)  ## damage files and kill trainings, e.g. ARGS="--kills 200 --seed 1"
	OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 $(PY) tests/faults/campaign.py $(ARGS)

.PHONY: format lint types
format: $(STAMP)  ## mend what ruff can mend: format, order of imports
	$(VENV)/bin/ruff check --select I --fix .
	$(VENV)/bin/ruff format .
lint: $(STAMP)  ## style, format and who imports whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
types: $(STAMP)  ## static types
	@# Type checkers do not follow the package-dir mapping of pyproject.toml; links do.
	@mkdir -p build/types
	@ln -sfn ../../shared/src build/types/ddpm_shared
	@ln -sfn ../../pytorch/src build/types/ddpm_torch
	@ln -sfn ../../tensorflow/src build/types/ddpm_tf
	@ln -sfn ../../tests/parity build/types/ddpm_parity
	@ln -sfn ../../notebooks/course build/types/ddpm_course
	$(VENV)/bin/mypy

# Other people's networks, to be timed beside ours; the optional ones stay out of the environment (see peers.txt).
PEERS := build/peers

$(PEERS)/.installed: tests/benchmarks/peers.txt $(STAMP)
	@rm -rf $(PEERS)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --target $(PEERS) -r tests/benchmarks/peers.txt
	@touch $@

.PHONY: bench bench-peers
bench: $(STAMP)  ## speed and memory of both trees beside diffusers, in half an hour; ARGS=--quick in a minute
	$(PY) tests/benchmarks/bench.py $(ARGS)
bench-peers: $(PEERS)/.installed  ## the same with two more networks, installed into build/peers
	$(PY) tests/benchmarks/bench.py --peers $(ARGS)

.PHONY: clean
clean:  ## remove the environment, caches and build files; runs/ stays
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
