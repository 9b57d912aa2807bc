#!/usr/bin/env bash
# Sets up .venv and trains: Catch, or whatever the arguments name.
#   bash tools/train.sh [WHAT] [--workdir=DIR] [...]
# The arguments are those of impala-train. The extra that WHAT needs is installed, too.
extras="" what=""
for each in "$@"; do
  case $each in
    [!-]* | -config=* | --config=* | -config.environment.id=* | --config.environment.id=*)
      what+=" $each" ;;
  esac
done
case $what in
  *minatar* | *MinAtar* | *multitask* | *staleness* | *reuse*) extras=minatar ;;
  *atari* | *ALE/*) extras=atari ;;
  *minigrid* | *MiniGrid* | *BabyAI*) extras=minigrid ;;
  *mpe* | *pettingzoo*) extras=pettingzoo ;;
  *foraging* | *Foraging*) extras=lbforaging ;;
  *battle* | *magent2*) extras=magent2 ;;
  *mujoco* | *HalfCheetah-v* | *Hopper-v* | *Walker2d-v* | *Ant-v*) extras=mujoco ;;
  *Humanoid*-v* | *Inverted*Pendulum-v* | *Swimmer-v* | *Reacher-v* | *Pusher-v*) extras=mujoco ;;
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/install.sh" "$extras"

case " $*" in
  *" --config="* | *" --config "* | *" -config="* | *" -config "* | *" --list"*) ;;
  " " | " -"*) set -- catch "$@" ;;
esac
exec .venv/bin/impala-train "$@"
