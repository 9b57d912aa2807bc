"""Cost of policy lag, with and without V-trace: MinAtar Breakout for a million agent
steps, in one process, which keeps the lag constant.

Variants: LAG or LAG-uncorrected, with LAG in updates: 0, 4, 16, 64. Draw the figure with

    python tools/study.py --output=runs/staleness --x=actors.policy_delay --lines=vtrace.correction experiments/staleness.py:{0,4,16,64}{,-uncorrected}
"""  # noqa: E501

import runpy

from impala_mp import config as config_lib

_LAGS = ("0", "4", "16", "64")
_VARIANTS = tuple(f"{lag}{kind}" for lag in _LAGS for kind in ("", "-uncorrected"))


def get_config(variant="16"):
    lag, _, uncorrected = config_lib.one_of(variant, _VARIANTS).partition("-")
    minatar = runpy.run_path(__file__.replace("staleness.py", "minatar.py"))
    config = minatar["get_config"]("Breakout")
    config.total_agent_steps = 1_000_000
    config.runtime.mode = "lockstep"
    config.actors.count = 1
    config.actors.slots = 1
    config.actors.policy_delay = int(lag)
    config.vtrace.correction = not uncorrected
    return config
