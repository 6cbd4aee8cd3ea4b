#!/usr/bin/env bash
# What there is to know on a GPU, in less than eight minutes: parity, speed, and two workers on one GPU.
#
#     tests/gpu/check.sh runs/gpu-check          # with .venv; PY=python3 tests/gpu/check.sh ... with another Python
#
# The folder gets check.log, which is all that was printed, and a folder for each step. A step that fails or takes too
# long does not end it; what does not fit into the time is left out. Exit code: 0 if all steps ended with 0.
set -uo pipefail
[[ $# == 1 ]] || { echo "usage: $0 FOLDER, for the results" >&2; exit 2; }
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
exec > >(tee "$out/check.log") 2>&1
total=470
# shellcheck source=tests/gpu/steps.sh
source "$(dirname "$0")/steps.sh"

facts() {
  nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.max.sm --format=csv || true
  "$PY" - <<'PYTHON'
import importlib.metadata as packages, platform

found = {each.metadata["Name"]: each.version for each in packages.distributions()}
names = [name for name in ("torch", "tensorflow", "keras", "numpy") if name in found]
print("; ".join([f"Python {platform.python_version()}", *(f"{name} {found[name]}" for name in names)]))
PYTHON
  git log -1 --format="commit %H" 2> /dev/null || true
}
export -f facts
export PY
step 30 "the machine" bash -c facts

# 1. Parity: each framework that sees the GPU against the float64 oracle, and against the other.
step 170 "parity on the GPU, in multiples of the CPU's tolerances" \
  "$PY" tests/gpu/gaps.py --minutes 2.5 --out "$out/gaps"

# 2. Speed. --quick leaves out drawing; the peak is measured in the same rounds.
for preset in base large; do
  step 90 "speed of $preset" "$PY" tests/benchmarks/bench.py --device gpu --preset "$preset" --quick --busy \
    --batch-size 256 --repeats 5 --out "$out/bench-$preset"
done

# 3. Two workers on one GPU, which gloo joins (NCCL refuses two on one GPU), against one worker. One worker twice is the
#    control: where that is not equal, a kernel of the GPU adds in an order that changes, and nothing else can be.
flags=(--preset tiny --dataset fashion-mnist-10k --device gpu --shards 2 --max-steps 30 --warmup-steps 10)
flags+=(--validation-images 256 --sample-every 0)
for framework in torch tensorflow; do
  installed "$framework" || { echo; echo "=== $framework is not installed: its workers are left out"; continue; }
  tree=ddpm_${framework/tensorflow/tf}
  for name in one again; do
    step 45 "$framework, one worker ($name)" "$PY" -m "$tree.train" "${flags[@]}" --run-dir "$out/$framework-$name"
  done
  step 60 "$framework, two workers" \
    "$PY" -m ddpm_shared.launch 2 "$tree.train" "${flags[@]}" --run-dir "$out/$framework-two"
  step 60 "$framework, two workers, --reduce fast" \
    "$PY" -m ddpm_shared.launch 2 "$tree.train" "${flags[@]}" --reduce fast --run-dir "$out/$framework-fast"
  step 20 "$framework: one worker twice" "$PY" tests/gpu/same.py "$out/$framework-one" "$out/$framework-again"
  step 20 "$framework: two workers against one" "$PY" tests/gpu/same.py "$out/$framework-one" "$out/$framework-two"
  # Other roundings are what fast is for, so that they differ is no failure.
  step 20 "$framework: --reduce fast against one" bash -c '"$@" || true' - \
    "$PY" tests/gpu/same.py "$out/$framework-one" "$out/$framework-fast"
done

printf '\n%s steps failed; %s s in all; %s\n' "$failed" "$SECONDS" "$out"
exit $((failed > 0))
