"""CartPole whose episodes end often: falls, and a limit of 7 steps."""

import gymnasium
from gymnasium.envs.classic_control import cartpole


class ShortCartPole(cartpole.CartPoleEnv):
    """Starts tilted, so that it falls within a few steps or reaches the limit."""

    def reset(self, **kwargs):
        super().reset(**kwargs)
        self.state[2] = self.np_random.uniform(0.1, 0.2)
        return self.state.astype("float32"), {}


gymnasium.register("ShortCartPole-v0", ShortCartPole, max_episode_steps=7)
