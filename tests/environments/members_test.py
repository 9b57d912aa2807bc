"""Members of a population in an evaluation: each plays its own copies."""

import numpy as np
import pytest

from impala_mp import errors
from impala_mp.environments import factory, members
from tests.support import populations

_COPIES, _MEMBERS = 4, 3


@pytest.mark.parametrize("name", ["Catch", "CartPole-v1"])
def test_each_column_is_that_of_its_member(name):
    config = populations.get_config()
    config.environment.id = name
    made = members.make(config, config.environment, _COPIES)
    plain = factory.make(config.environment, _COPIES * _MEMBERS)
    assert made.num_columns == [_COPIES] * _MEMBERS
    assert made.policies == made.labels == ("member_0", "member_1", "member_2")
    seeds = list(range(_COPIES * _MEMBERS))
    same = [3 * (seed // _MEMBERS) for seed in seeds]
    rows, theirs = made.reset(seeds), plain.reset(same)
    rng = np.random.default_rng(0)
    for _ in range(12):
        for k, own in enumerate(made.split(rows)):
            assert (own.observation == theirs.observation[k::_MEMBERS]).all()
            assert (own.step_type == theirs.step_type[k::_MEMBERS]).all()
            assert (own.reward == theirs.reward[k::_MEMBERS]).all()
        actions = rng.integers(2, size=_COPIES * _MEMBERS)
        rows, ended = made.step(tuple(actions[k::_MEMBERS] for k in range(_MEMBERS)))
        theirs, expected = plain.step(actions)
        np.testing.assert_array_equal(ended.episode_return, expected.episode_return)
    made.close()
    plain.close()


def test_each_member_plays_as_many_games():
    config = populations.get_config()
    made = members.make(config, config.environment, 2)
    assert made.num_episodes(5) == 15
    made.close()


def test_members_have_the_spec_of_the_environment():
    config = populations.get_config()
    alone = factory.probe(config.environment)
    assert members.probe(config) == dict.fromkeys(
        members.population.names(config), alone
    )
    config.population.size = 0
    assert members.probe(config) == {"": alone}


def test_a_game_of_several_players_is_refused():
    config = populations.get_config()
    config.environment.id = "Connect"
    with pytest.raises(errors.BadInput, match="needs an environment of a single"):
        members.probe(config)
