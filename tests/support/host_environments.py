"""Environments that actor hosts do not have."""

import sys

from impala_mp.environments import catch


class OnlyHere(catch.CatchVectorEnv):
    """Cannot be made in a process of Ray."""

    def __init__(self, num_envs=1, **kwargs):
        if "default_worker" in sys.argv[0]:
            raise FileNotFoundError("the game's files are not on this machine")
        super().__init__(num_envs, **kwargs)
