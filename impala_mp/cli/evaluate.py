"""impala-eval: plays full games with a checkpoint of a run.

    impala-eval DIR [--episodes=100] [--checkpoint=best] [--nogreedy] [--video=FILE.gif]
    impala-eval DIR --against=random | newest | snapshot:N | DIR | module:function

The last line is JSON: mean, median, std, min, max, episodes, protocol; low and high are
the 95 % interval of the mean. In a game of several players, --against lets the run's
policy play each side, against the other policy as all others. `mean` is then wins minus
losses by game, from -1 to 1, beside wins, draws, losses and by_side. Each player is a
side, or each team where names show teams, as red_0, red_1, blue_0 and blue_1 do.
snapshot:N is one of the run's league; of another run name its file, DIR/league/N.pt. A
function gets the observation and the mask of actions of the player that is to act.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

import json

from impala_mp import errors
from impala_mp.cli import start


def _evaluate() -> None:
    from absl import flags

    from impala_mp.cli import command_line

    values = flags.FlagValues()
    episodes = flags.DEFINE_integer(
        "episodes", 100, "Games to play.", lower_bound=1, flag_values=values
    )
    greedy = flags.DEFINE_boolean(
        "greedy",
        None,
        "Take the most likely actions, or draw them; default: evaluation.greedy.",
        flag_values=values,
    )
    video = flags.DEFINE_string(
        "video",
        None,
        "A .gif file for a film of the first environment.",
        flag_values=values,
    )
    against = flags.DEFINE_string(
        "against",
        None,
        "Opponent in a game: random, newest, snapshot:N, DIR or module:function.",
        flag_values=values,
    )
    policy = flags.DEFINE_string(
        "policy", "", "Which member of a population plays.", flag_values=values
    )
    which = command_line.define_checkpoint(values)
    trust = command_line.define_trust(values)
    folder = command_line.parse_run(values, str(__doc__), "impala-eval DIR")
    from impala_mp.evaluation import evaluate

    if against.value:
        _refuse_with_against(policy=policy.value, video=video.value)
        result = evaluate.versus(
            folder,
            against.value,
            episodes.value,
            greedy.value,
            trust=trust.value,
            which=command_line.checkpoint(which.value),
        )
        print(json.dumps(result))
        return
    result = evaluate.evaluate(
        folder,
        episodes.value,
        greedy.value,
        video=video.value,
        trust=trust.value,
        which=command_line.checkpoint(which.value),
        policy=policy.value,
    )
    print(json.dumps(result))


def _refuse_with_against(**values: str | None) -> None:
    reasons = {
        "policy": "by which a member of a population plays alone",
        "video": "because many games are played at once",
    }
    for name, reason in reasons.items():
        if values[name]:
            raise errors.BadInput(
                f"--{name}={values[name]} does not go with --against, {reason}. Leave"
                " out one of them."
            )


def main() -> None:
    """Entry point of the console script."""
    start.run(_evaluate)


if __name__ == "__main__":
    main()
