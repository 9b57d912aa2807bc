#!/usr/bin/env bash
# The way of a newcomer, timed: builds the wheel, installs it into a fresh environment
# and goes on from there in an empty folder.
#   bash tools/journey.sh                  all of it; trainings of 100,000 agent steps
#   STEPS=10000 bash tools/journey.sh      shorter trainings
#   PYTHON=.venv/bin/python REUSE=1 ...    the environment of that Python, with the wheel
#                                          in front of what it has
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
steps=${STEPS:-100000}
PYTHON=$(command -v "${PYTHON:-python3}")
PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export XDG_STATE_HOME=$place/state OMP_NUM_THREADS=1

step() { # NAME COMMAND...: runs it and prints its seconds; its output only on a failure
  local name=$1 started=$EPOCHREALTIME
  shift
  if ! "$@" >"$place/output" 2>&1; then
    cat "$place/output"
    echo "FAILED: $name: $*" >&2
    exit 1
  fi
  awk -v a="$started" -v b="$EPOCHREALTIME" -v n="$name" \
    'BEGIN { printf "%6.1f s  %s\n", b - a, n }'
}

newest() { ls -td "$1"/*/ | head -1; }

refused() { # OUTPUT COMMAND...: it must fail, with OUTPUT and without this package's code
  local wanted=$1
  shift
  if "$@" >"$place/refusal" 2>&1; then return 1; fi
  cat "$place/refusal"
  grep -q "$wanted" "$place/refusal" && ! grep -q "impala_mp/" "$place/refusal"
}

step "build the wheel" "$PYTHON" -m pip wheel -q --no-deps -w "$place/wheel" "$here/.."
wheel=$(echo "$place"/wheel/*.whl)
if [ "${REUSE:-}" ]; then
  step "install it" "$PYTHON" -m pip install -q --no-deps --target "$place/installed" "$wheel"
  export PYTHONPATH=$place/installed
  python=$PYTHON
else
  "$PYTHON" -m venv "$place/venv"
  python=$place/venv/bin/python
  step "install it with its dependencies" "$python" -m pip install -q \
    -c "$here/../constraints.txt" "$wheel[onnx]"
  step "install Jupyter's kernel" "$python" -m pip install -q nbclient ipykernel
fi
impala() { "$python" -m "impala_mp.cli.$1" "${@:2}"; }

mkdir "$place/empty"
cd "$place/empty"
total=--config.total_agent_steps=$steps
step "first result: CartPole-v1" impala train CartPole-v1 "$total"
step "write a project with an environment" impala new walk --name=my_walk
step "train it" env -C walk "$python" -m impala_mp.cli.train --config=experiment.py "$total"
cp "$here"/journey/*.py .
step "own Dict environment, checked" impala train treasure:Treasure --check
step "own Dict environment, with defaults" impala train treasure:Treasure "$total"
run=$(newest runs/Treasure 2>/dev/null || newest runs/treasure-Treasure)
step "the lines of Python" "$python" script.py "$steps"
sed "s/total_agent_steps=60_000/total_agent_steps=$steps/; s/total_agent_steps=80_000/total_agent_steps=$((steps + 10000))/" \
  "$here/../docs/guides/python.ipynb" >notebook.ipynb
step "the notebook" "$python" cells.py notebook.ipynb
step "resume with another learning rate" impala train "$run" \
  --config.total_agent_steps=$((steps + 10000)) --change.optimizer.learning_rate=1e-4
step "start another run from it" impala train treasure:Treasure --start_from="$run" \
  --workdir=runs/warm "$total"
step "export it as ONNX" impala export "$run" --format=onnx --output=policy.onnx
step "run that without impala_mp" "$python" onnx_action.py policy.onnx
step "a bug in step is named" refused 'treasure.py", line' impala train treasure:Locked
grep -h "ValueError" "$place/refusal" | tail -1
