# shellcheck shell=bash
# What check.sh and train_box.sh share: the Python to use, and steps that say what they do and how long they took.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
PY=${PY:-.venv/bin/python}
command -v "$PY" > /dev/null || {
  echo "error: there is no $PY: run \`make setup\`, or name a Python by PY=..." >&2
  exit 2
}
if ! "$PY" -c "import importlib.util as u; exit(not u.find_spec('ddpm_shared'))"; then
  # A borrowed machine where nothing is installed: the packages are found by links, as `make types` makes them.
  mkdir -p build/types
  for pair in ddpm_shared:shared/src ddpm_torch:pytorch/src ddpm_tf:tensorflow/src \
    ddpm_parity:tests/parity ddpm_course:notebooks/course; do
    ln -sfn "$PWD/${pair#*:}" "build/types/${pair%%:*}"
  done
  export PYTHONPATH=$PWD/build/types${PYTHONPATH:+:$PYTHONPATH}
fi

failed=0
total=${total:-86400}  # seconds after which no step goes on

installed() {  # whether the package $1 is installed; the folder tensorflow/ is none
  "$PY" -c "import importlib.util as u; s = u.find_spec('$1'); exit(not (s and s.origin))"
}

step() {  # step SECONDS TITLE COMMAND ...: run it, at most so long; a failure does not end the script
  local limit=$1 title=$2 began=$SECONDS code=0
  shift 2
  if ((total - SECONDS < limit)); then limit=$((total - SECONDS)); fi
  if ((limit < 5)); then
    failed=$((failed + 1))
    printf '\n=== %s: left out, the %s s are over\n' "$title" "$total"
    return
  fi
  printf '\n=== %s (at most %s s)\n    %s\n' "$title" "$limit" "$*"
  timeout --kill-after=10 "$limit" "$@" || code=$?
  if ((code == 124)); then echo "    stopped: it took more than $limit s"; fi
  if ((code != 0)); then failed=$((failed + 1)); fi
  printf '=== %s: %s s, exit code %s\n' "$title" "$((SECONDS - began))" "$code"
}
