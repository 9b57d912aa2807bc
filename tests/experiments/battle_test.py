"""Battle: its players, its teams, that the dead are out, and that it is magent2's."""

import numpy as np
import pytest

from experiments import battle as experiment
from impala_mp import types
from impala_mp.environments import factory, roster

pytest.importorskip("magent2")

# Cells that actions lead to, and cells that the actions after them attack.
_MOVES = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if abs(y) + abs(x) < 3]
_ATTACKS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
_ENEMIES = 3  # plane of an observation


def _fight(seen, ahead, rng):
    """Attacks where an enemy is near; otherwise walks to one, or ahead."""
    enemies = np.argwhere(seen[..., _ENEMIES] > 0) - 6
    for number, cell in enumerate(_ATTACKS):
        if (enemies == cell).all(1).any():
            return len(_MOVES) + number
    if rng.random() < 0.3:
        return int(rng.integers(len(_MOVES)))
    goal = enemies[np.abs(enemies).sum(1).argmin()] if len(enemies) else (0, ahead)
    return int(np.argmin(np.abs(np.array(_MOVES) - goal).sum(1)))


def test_six_fight_six_and_the_dead_stay_out():
    rng = np.random.default_rng(0)
    environment = factory.make(experiment.get_config().environment, 12)
    assert environment.spec.action.num_actions == len(_MOVES) + len(_ATTACKS)
    teams = roster.sides_of(environment.spec.players)
    assert teams == {"red": tuple(range(6)), "blue": tuple(range(6, 12))}
    time_step = environment.reset(range(12))
    dead = np.zeros(12, bool)
    for _ in range(200):
        actions = [
            _fight(seen, 6 if player < 6 else -6, rng)
            for player, seen in enumerate(time_step.observation)
        ]
        time_step, ended = environment.step(np.array(actions))
        assert np.isnan(ended.episode_return[dead]).all()
        dead |= ~np.isnan(ended.episode_return)
        assert not time_step.acts[dead].any()
        assert (time_step.step_type[dead] == types.StepType.LAST).all()
        if dead.all():  # the winners' episodes end with the last of the others
            break
    assert dead.all()


def _names(env, there):
    return [name in there for name in env.possible_agents]


@pytest.mark.parametrize("max_cycles", [12, 200])  # fights are over after some 40
def test_games_are_those_of_parallel_env(max_cycles):
    from magent2.environments import battle_v4

    rng, seed = np.random.default_rng(1), 3
    games = experiment.Battle(2, max_cycles=max_cycles)
    rows = games.reset(seed)
    own = np.random.SeedSequence(seed).generate_state(2)[1] >> 1
    env = battle_v4.parallel_env(map_size=16, max_cycles=max_cycles)
    seen, _ = env.reset(seed=int(own))
    deaths = ends = late = 0
    while ends < 3:
        present = _names(env, seen)
        assert rows.present[1].tolist() == present
        np.testing.assert_array_equal(rows.observation[1][present], [*seen.values()])
        acts = _names(env, env.agents)
        assert rows.acts[1].tolist() == acts
        if not env.agents:
            ends += 1
            seen, _ = env.reset()
            rows = games.step(np.zeros((2, 12), int))
            assert not rows.reward[1].any()
            continue
        # In the first move of a game parallel_env gives red's actions to blue.
        actions = np.array([_fight(own, 6, rng) for own in rows.observation[1]])
        if len(env.agents) == 12:
            actions[6:] = actions[:6]
        names = env.possible_agents
        moves = {names[i]: int(actions[i]) for i in np.flatnonzero(acts)}
        seen, rewards, terminated, truncated, _ = env.step(moves)
        rows = games.step(np.stack([actions, actions]))
        there = _names(env, seen)
        for mine, theirs in (
            (rows.reward, rewards),
            (rows.terminated, terminated),
            (rows.truncated, truncated),
        ):
            np.testing.assert_allclose(mine[1][there], [*theirs.values()], rtol=1e-6)
        deaths += sum(terminated.values())
        late += sum(truncated.values())
    assert late > 3 if max_cycles == 12 else deaths > 3 and not late
