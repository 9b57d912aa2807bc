#!/usr/bin/env bash
# Sets up .venv and trains: Catch, or whatever the flags say.
#   bash tools/train.sh [--config=experiments/NAME.py[:VARIANT]] [--workdir=DIR] [...]
extras=""
case "$*" in
  *experiments/atari*) extras=atari ;;
  *experiments/minatar* | *experiments/multitask* | *experiments/staleness*)
    extras=minatar ;;
  *experiments/minigrid*) extras=minigrid ;;
  *experiments/halfcheetah*) extras=mujoco ;;
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/install.sh" "$extras"

case "$*" in
  *--config=*) ;;
  *) set -- --config=experiments/catch.py "$@" ;;
esac
case "$*" in
  *--workdir=*) ;;
  *) set -- "$@" --workdir="runs/$(date +%Y-%m-%d_%H-%M-%S)" ;;
esac
exec .venv/bin/impala-train "$@"
