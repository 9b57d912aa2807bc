"""Return against reuse, with two kinds of returns: MinAtar Breakout by DQN, for half a
million agent steps.

Variants: REUSE-RETURNS, with REUSE 1, 4 or 16 and RETURNS n_step or retrace. Draw the
figure with

    python tools/study.py --output=runs/reuse --x=replay.reuse --lines=dqn.returns experiments/reuse.py:{1,4,16}-{n_step,retrace}
"""  # noqa: E501

import runpy

from impala_mp import config as config_lib

_VARIANTS = tuple(f"{n}-{how}" for n in (1, 4, 16) for how in ("n_step", "retrace"))


def get_config(variant="4-n_step"):
    reuse, returns = config_lib.one_of(variant, _VARIANTS).split("-")
    minatar = runpy.run_path(__file__.replace("reuse.py", "minatar.py"))
    config = minatar["get_config"]("Breakout-dqn")
    config.total_agent_steps = 500_000
    config.schedules.epsilon = "linear(1, 0.05, 100_000)"
    config.dqn.returns = returns
    config.replay.reuse = float(reuse)
    return config
