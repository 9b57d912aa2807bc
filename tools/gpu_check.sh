#!/usr/bin/env bash
# The GPU path in one call of under 9 minutes: tests, then the benchmark's ratios, then
# whether memory stays flat. The exit code is 0 if all parts succeeded, else 1.
#   bash tools/gpu_check.sh [OUTPUT_FOLDER]
# Takes the python (PYTHON=...) that has a CUDA build of torch. Packages it lacks are
# installed beside it from wheels/, where there is such a folder, else from the registry.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
out=${1:-gpu_check}
mkdir -p "$out"
rm -f "$out"/*.txt
end=$((SECONDS + ${BUDGET_SECS:-510})) # and 15 for what does not end when told to
failed=()

group= # of the processes of the part in hand
trap '[ -z "$group" ] || kill -KILL -- "-$group" 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

part() { # NAME SECONDS command...
  local name=$1 secs=$2 left=$((end - SECONDS)) code=0
  shift 2
  echo "--- $name"
  if ((left < 1)); then
    echo "$name: no time was left for it."
    failed+=("$name")
    return 1
  fi
  timeout --kill-after=15 $((secs < left ? secs : left)) "$@" >"$out/$name.txt" 2>&1 &
  group=$! # timeout makes itself the leader of one
  wait "$group" || code=$?
  kill -KILL -- "-$group" 2>/dev/null # what has outlived it: a training, say
  group=
  cat "$out/$name.txt"
  ((code == 0)) && return
  echo "$name: failed with exit code $code (124: it took longer than $secs s)."
  failed+=("$name")
  return 1
}

finish() {
  grep -h '^{' "$out"/*.txt
  if ((${#failed[@]})); then
    echo "Failed: ${failed[*]}."
    exit 1
  fi
  echo "All parts succeeded."
  exit 0
}

from=()
[ -d wheels ] && from=(--no-index --find-links wheels)
python="$out/venv/bin/python"
export PYTHONPATH=$PWD
# An environment made from another one does not see its packages: base.pth names them.
part venv 60 "$PYTHON" -c 'import pathlib, sys, venv
folder = pathlib.Path(sys.argv[1])
venv.create(folder, symlinks=True)
(site,) = folder.glob("lib/python*/site-packages")
paths = [path for path in sys.path if path.endswith("-packages")]
(site / "base.pth").write_text("\n".join(paths))' "$out/venv" &&
  part install 120 "$PYTHON" -m pip --python "$python" install -q ${from[@]+"${from[@]}"} gymnasium \
    ml-collections absl-py rich tensorboard matplotlib pillow ale-py pytest hypothesis &&
  part device 60 "$python" -c 'import torch
assert torch.cuda.is_available(), "torch sees no GPU"
print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name())' || finish

nature=(--config=experiments/atari.py:Pong --repeats=1)
deep=(--config=experiments/atari.py:Pong-deep --repeats=1)
gpu=(--config.learner.device=cuda --config.learner.micro_batches=1)
exact=("${gpu[@]}" --config.learner.precision=float32 --config.inference.precision=float32)
half=("${gpu[@]}" --config.learner.precision=bfloat16)
graph=--config.learner.cuda_graph=True
bench() { # NAME SECONDS arguments...
  part "$1" "$2" "$python" tools/benchmark.py "${@:3}" --json
}
# Of learner ranks one GPU shows a single one; two need two GPUs.
part tests 120 "$python" -m pytest -q tests/gpu tests/workers/inference_server_test.py \
    tests/workers/rank_twin_test.py -k "gpu or cuda or is_the_plain_learner_bit_for_bit"
bench learner 50 learner "${nature[@]}" "${exact[@]}"
bench learner_graph 50 learner "${nature[@]}" "${exact[@]}" "$graph"
bench learner_deep 60 learner vtrace "${deep[@]}" "${half[@]}" "$graph"
bench memory 60 memory --updates=3000 --config=experiments/catch.py "${half[@]}" "$graph"
bench train_server 170 train --secs=20 "${nature[@]}" "${exact[@]}" "$graph" \
  --config.inference.mode=server --config.inference.device=cuda \
  --config.actors.count=auto --config.actors.environments=64 --config.batch_size=64
bench train_actors 150 train --secs=20 "${nature[@]}" "${exact[@]}" "$graph" \
  --config.actors.count=auto
finish
