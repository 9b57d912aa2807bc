"""The lines of Python: train, evaluate, act."""

import sys

from treasure import Treasure

import impala_mp as im

run = im.train(Treasure, total_agent_steps=int(sys.argv[1]))
print("mean", run.evaluate(episodes=20).mean)
observation, _ = Treasure().reset(seed=0)
action, state = run.policy(observation)
print("action", action)
