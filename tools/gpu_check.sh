#!/usr/bin/env bash
# The GPU path in one call of under 9 minutes: tests, then the benchmark's ratios.
#   bash tools/gpu_check.sh [OUTPUT_FOLDER]
# Takes the python (PYTHON=...) that has a CUDA build of torch. Packages it lacks are
# installed beside it from wheels/, where there is such a folder, else from the registry.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
out=${1:-gpu_check}
mkdir -p "$out"

from=()
[ -d wheels ] && from=(--no-index --find-links wheels)
"$PYTHON" -m venv --system-site-packages "$out/venv"
python="$out/venv/bin/python"
"$python" -m pip install -q "${from[@]}" gymnasium ml-collections absl-py rich \
  tensorboard matplotlib pillow ale-py pytest hypothesis
export PYTHONPATH=$PWD
nvidia-smi | tee "$out/nvidia-smi.txt"

gpu=(--config.learner.device=cuda --config.learner.micro_batches=1)
fast=("${gpu[@]}" --config.learner.precision=bfloat16 --config.learner.cuda_graph=True)
deep=--config=experiments/atari.py:Pong-deep
bench() { # NAME SECONDS arguments...
  timeout "$2" "$python" tools/benchmark.py "${@:3}" --json | tee "$out/$1.txt"
}
timeout 120 "$python" -m pytest -q tests/gpu_test.py | tee "$out/tests.txt"
bench learner_float32 60 learner --repeats=2 "$deep" "${gpu[@]}"
bench learner_bfloat16_graph 60 learner vtrace --repeats=2 "$deep" "${fast[@]}"
bench train 150 train --repeats=2 --secs=60 "$deep" "${fast[@]}" \
  --config.actors.count=auto --config.actors.environments=32
bench train_server 100 train --repeats=1 --secs=40 "$deep" "${fast[@]}" \
  --config.actors.count=auto --config.actors.environments=32 \
  --config.inference.mode=server --config.inference.device=cuda
grep -h '^{' "$out"/*.txt | tail -4
