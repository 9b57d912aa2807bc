"""What the settings of algorithm and loss may be, and which of them are unsound."""

from typing import Any

from impala_mp import errors

ALGORITHMS = ("vtrace", "impact")
REWARD_CLIPPINGS = ("none", "abs_one", "soft_asymmetric")
REDUCTIONS = ("sum", "mean")
BASELINES = ("squared", "huber")


def check(config: Any) -> None:
    """Refuses what would run and be wrong.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    popart, polyak = config.loss.popart, config.target.polyak
    clipping = config.loss.reward_clipping
    if popart and clipping == "abs_one":
        raise errors.BadInput(
            f"loss.popart finds the scale of rewards, and loss.reward_clipping"
            f" ({clipping!r}) takes it away before, which makes it pointless: set"
            " config.loss.reward_clipping=none, or config.loss.popart=False."
        )
    if polyak == 1:
        raise errors.BadInput(
            f"target.polyak ({polyak}) must be below 1, or the target network never"
            " moves: set config.target.polyak."
        )
    if config.algorithm == "impact" and popart and polyak:
        raise errors.BadInput(
            f"target.polyak ({polyak}) would average weights that loss.popart has"
            " scaled differently, which is no average of values: set"
            " config.target.polyak=0, or config.loss.popart=False."
        )
