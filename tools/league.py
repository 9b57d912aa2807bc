"""Cross table of several runs of a game, or of snapshots: each plays each.

    python tools/league.py A B C [--games=100] [--sampled]

A, B and C are folders of runs, or snapshots of a league: DIR/league/N.pt. Each pair
plays each side in turn, in the game of the first of the two. A cell is the win rate of
its row against its column; a draw counts 1/2. The last line is JSON: `entrants`, and
`win_rates` [row][column], null on the diagonal.
"""

import argparse
import json
import sys

from impala_mp import errors
from impala_mp.cli import command_line
from impala_mp.evaluation import versus


def win_rate(outcome):
    """Returns the share of won games, a draw counted as half."""
    return (outcome["wins"] + 0.5 * outcome["draws"]) / outcome["episodes"]


def cross_table(paths, games, greedy=None, trust=False, report=lambda text: None):
    """Returns the win rates [row][column] of the policies in `paths`.

    Raises:
      BadInput: one of them cannot play, or plays another game.
    """
    entrants = [versus.entrant(path, trust) for path in paths]
    first = entrants[0].layouts
    for path, each in zip(paths, entrants, strict=True):
        if each.layouts != first:
            raise errors.BadInput(
                f"{path} plays another game than {paths[0]}: {each.layouts} instead of"
                f" {first}. Name runs of one game."
            )
    rates = [[None] * len(paths) for _ in paths]
    for i, row in enumerate(entrants):
        own = row.run.config.evaluation.greedy if greedy is None else greedy
        for j, column in enumerate(entrants[:i]):
            report(f"{paths[i]} plays {paths[j]}")
            played = versus.play_both(row.run, row.agents, column.agents, games, own)
            rates[i][j] = win_rate(played)
            rates[j][i] = 1.0 - rates[i][j]
    return rates


def as_text(paths, rates):
    """Returns the table as lines, with numbers in place of the columns' names."""
    width = max(len(path) for path in paths) + 5
    head = "".join(f"{number:>7}" for number in range(1, len(paths) + 1))
    lines = [f"{'':{width}}{head}   mean"]
    for number, (path, row) in enumerate(zip(paths, rates, strict=True), 1):
        cells = "".join(f"{'-':>7}" if x is None else f"{x:7.3f}" for x in row)
        own = [x for x in row if x is not None]
        lines.append(
            f"{number:>3}  {path:{width - 5}}{cells}{sum(own) / len(own):7.3f}"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entrants", nargs="+", metavar="DIR")
    parser.add_argument("--games", type=int, default=100, help="Games of each pair.")
    parser.add_argument(
        "--sampled", action="store_true", help="Draw the moves; default: as in the run."
    )
    parser.add_argument(
        "--trust", action="store_true", help="Load code of folders you did not train."
    )
    flags = parser.parse_args()
    if len(flags.entrants) < 2 or flags.games < 2:
        parser.error("name two entrants, and at least 2 games")
    greedy = False if flags.sampled else None
    rates = cross_table(
        flags.entrants,
        flags.games,
        greedy,
        flags.trust,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(*as_text(flags.entrants, rates), sep="\n")
    print(json.dumps({"entrants": flags.entrants, "win_rates": rates}))


if __name__ == "__main__":
    command_line.run(main)
