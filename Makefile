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
# Most targets are verbs of this command (shared/src/verbs.py); WORKERS=2 has so many processes do it together.
DUET = $(PY) -m ddpm_shared $(if $(WORKERS),--workers $(WORKERS))
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
	$(DUET) data $(ARGS)

.PHONY: demo
demo: $(STAMP)  ## all of it in three minutes: draw, compare, judge and train in both frameworks; one page to look at
	$(DUET) demo $(ARGS)

.PHONY: train-torch train-tf
train-torch: $(STAMP)  ## train in PyTorch, e.g. ARGS="--preset tiny --epochs 2"; WORKERS=2 ARGS="--shards 2"
	$(DUET) train-torch $(ARGS)
train-tf: $(STAMP)  ## train in TensorFlow, with the same flags
	$(DUET) train-tf $(ARGS)

.PHONY: sample-torch sample-tf
sample-torch: $(STAMP)  ## draw images in PyTorch, e.g. ARGS="--checkpoint FILE --num-images 64"; WORKERS=2
	$(DUET) sample-torch $(ARGS)
sample-tf: $(STAMP)  ## draw images in TensorFlow, with the same flags, from either framework's file
	$(DUET) sample-tf $(ARGS)

.PHONY: invert-torch invert-tf
invert-torch: $(STAMP)  ## images to noise and back in PyTorch, e.g. ARGS="--checkpoint FILE --steps 100"
	$(DUET) invert-torch $(ARGS)
invert-tf: $(STAMP)  ## images to noise and back in TensorFlow, with the same flags
	$(DUET) invert-tf $(ARGS)

.PHONY: bits-torch bits-tf
bits-torch: $(STAMP)  ## bits per dimension in PyTorch, e.g. ARGS="--checkpoint FILE --num-images 500"
	$(DUET) bits-torch $(ARGS)
bits-tf: $(STAMP)  ## bits per dimension in TensorFlow, with the same flags, from either framework's file
	$(DUET) bits-tf $(ARGS)

.PHONY: likelihood-torch likelihood-tf
likelihood-torch: $(STAMP)  ## likelihood by the probability-flow ODE in PyTorch, e.g. ARGS="--checkpoint FILE --steps 50"
	$(DUET) likelihood-torch $(ARGS)
likelihood-tf: $(STAMP)  ## likelihood in TensorFlow, with the same flags, from either framework's file
	$(DUET) likelihood-tf $(ARGS)

.PHONY: import-torch import-tf
import-torch: $(STAMP)  ## go on from weights of another PyTorch program, e.g. ARGS="--weights FILE --network dit"
	$(DUET) import-torch $(ARGS)
import-tf: $(STAMP)  ## the same for TensorFlow, from .safetensors, with the same flags
	$(DUET) import-tf $(ARGS)

.PHONY: evaluate
evaluate: $(STAMP)  ## judge samples against real images: RUN=FOLDER, or RUN=samples.npz
	@test -n "$(RUN)" || { echo "error: say what to judge: make evaluate RUN=runs/samples/..." >&2; exit 2; }
	$(DUET) evaluate $(RUN) $(ARGS)

.PHONY: judge
judge: $(STAMP)  ## train the classifier that judges another data set, once, in minutes: ARGS="--dataset X"
	$(DUET) judge $(ARGS)

.PHONY: compare
compare: $(STAMP)  ## lay runs over each other in report.html: RUNS="A B C"
	$(DUET) compare $(RUNS) $(ARGS)

.PHONY: passport passports graph
passport: $(STAMP)  ## size, sight, speed, memory and parity of a network, e.g. ARGS="--network dit"
	$(DUET) passport $(ARGS)
passports: $(STAMP)  ## those of all networks, and the table in docs/networks.md
	$(DUET) passports $(ARGS)
graph: $(STAMP)  ## a drawing of a network, as SVG and PNG, e.g. ARGS="--preset small"
	$(DUET) graph $(ARGS)

.PHONY: notebooks lab
notebooks: $(STAMP)  ## execute the notebooks for both frameworks and save what they show, e.g. ARGS="01 --frameworks torch"
	$(DUET) notebooks $(ARGS)
lab: $(STAMP)  ## open the first notebook in JupyterLab
	$(DUET) lab $(ARGS)

.PHONY: parity
parity: $(STAMP)  ## compare every number of both frameworks and the oracle here, e.g. ARGS="--mutations"
	$(DUET) parity $(ARGS)

.PHONY: test test-slow
test: $(STAMP)  ## the tests, in some minutes; ARGS="-n 0 tests/test_x.py" in one process, to debug
	$(DUET) test $(ARGS)
test-slow: $(STAMP)  ## the slow tests as well
	$(DUET) test-slow $(ARGS)

.PHONY: faults
faults: $(STAMP)  ## damage files and kill trainings, e.g. ARGS="--kills 200 --seed 1"
	$(DUET) faults $(ARGS)

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
	$(DUET) bench $(ARGS)
bench-peers: $(PEERS)/.installed  ## the same with two more networks, installed into build/peers
	$(DUET) bench --peers $(ARGS)

.PHONY: clean
clean:  ## remove the environment, caches and build files; runs/ stays
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
