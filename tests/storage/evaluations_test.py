"""Evaluations of a run: which of several is shown, and when two differ."""

import json

import pytest

from impala_mp.storage import evaluations


def _line(purpose, policy, steps, episodes=20, mean=5.0, half=1.0):
    line = {"purpose": purpose, "policy": policy, "agent_steps": steps, "mean": mean}
    line |= {"low": mean - half, "high": mean + half, "episodes": episodes}
    return line | {"updates": steps // 10, "time_secs": 1.0}


_PROGRESS = _line("progress", "greedy", 200)
_FINAL = _line("final", "greedy", 200, 100)


@pytest.mark.parametrize("lines", [[_FINAL, _PROGRESS], [_PROGRESS, _FINAL]])
def test_the_one_with_most_games_is_chosen(lines):
    random, before = _line("progress", "random", 0), _line("progress", "greedy", 100)
    sampled = _line("final", "sampled", 200, 100)
    chosen = evaluations.chosen([random, before, sampled, *lines, random])
    assert chosen == {
        ("greedy", 100): before,
        ("sampled", 200): sampled,
        ("greedy", 200): _FINAL,
    }
    assert list(chosen)[0] == ("greedy", 100)


def test_of_as_many_games_it_is_the_newest_that_chose_no_checkpoint():
    best, again = _line("best", "greedy", 200), _line("final", "greedy", 200)
    for lines in ([_PROGRESS, best, again], [best, again, _PROGRESS]):
        assert evaluations.chosen(lines) == {("greedy", 200): again}
    assert evaluations.chosen([]) == {}


def test_means_differ_beyond_chance_if_their_intervals_are_apart():
    low, high = (_line("final", "greedy", 1, mean=mean) for mean in (1.0, 4.0))
    near = _line("final", "greedy", 1, mean=2.5)
    assert evaluations.are_apart(low, high)
    assert evaluations.are_apart(high, low)
    assert not evaluations.are_apart(low, near)


def test_a_single_game_has_no_interval():
    equal = _line("final", "greedy", 1, mean=4.0, half=0.0)  # of 20 games alike
    single = _line("final", "sampled", 1, episodes=1, mean=1.0, half=0.0)
    assert evaluations.has_interval(equal)
    assert not evaluations.has_interval(single)
    assert not evaluations.are_apart(equal, single)
    assert not evaluations.are_apart(single, equal)
    assert not evaluations.has_interval({**equal, "low": None})


def test_damaged_lines_are_no_evaluations(tmp_path):
    evaluations.append(str(tmp_path), _FINAL)
    with open(tmp_path / evaluations.NAME, "a") as file:
        file.write(json.dumps({**_FINAL, "mean": "x"}) + '\n{"purpose": "fin')
    assert evaluations.read(str(tmp_path)) == [_FINAL]
