"""Which policy plays which players."""

import numpy as np
import pytest

from impala_mp import config as config_lib, errors
from impala_mp.environments import factory, roster

PLAYERS = ("adversary_0", "adversary_1", "agent_0", "agent_1")


def _environment(**fields):
    config = config_lib.get_base_config()
    config.environment.id = "mpe2.simple_tag_v3:parallel_env"
    for name, value in fields.items():
        if name == "policies":
            config.environment.policies.update(value)
        else:
            config.environment[name] = value
    return config.environment


def _deal(**fields):
    return roster.deal(_environment(**fields), PLAYERS, ["a", "a", "b", "b"])


def test_all_share_one_policy_without_a_name():
    assert _deal() == (("", (0, 1, 2, 3)),)
    assert _deal(policies={"both": "*"}) == (("", (0, 1, 2, 3)),)


def test_kinds_share():
    assert _deal(sharing="kind") == (("adversary", (0, 1)), ("agent", (2, 3)))


def test_each_plays_alone():
    shares = _deal(sharing="each")
    assert [share.policy for share in shares] == list(PLAYERS)
    assert [share.players for share in shares] == [(0,), (1,), (2,), (3,)]


def test_patterns_name_players_and_policies_are_in_order_of_their_names():
    shares = _deal(policies={"prey": "adversary_0, adversary_1", "hunters": "agent_*"})
    assert shares == (("hunters", (2, 3)), ("prey", (0, 1)))


def test_columns_are_game_by_game():
    share = roster.Share("odd", (1, 3))
    assert share.columns(2, 4).tolist() == [1, 3, 5, 7]
    rows = np.arange(8)[roster.Share("", (0, 1, 2, 3)).columns(2, 4)]
    assert rows.tolist() == list(range(8))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"policies": {"prey": "agent_*"}}, "'adversary_0' is named by none"),
        (
            {"policies": {"prey": "*", "one": "agent_0"}},
            "'agent_0' is named by one and prey",
        ),
        ({"policies": {"prey": "*", "none": "x"}}, "names no player of adversary_0"),
        ({"policies": {"a-b": "ag*", "c": "ad*"}}, "'a-b' must have a name of letters"),
        ({"policies": {"prey": 3}}, r"policies.prey \(3\) must be a pattern"),
        ({"policies": {"a": "*"}, "sharing": "kind"}, "both deal the players out"),
    ],
)
def test_a_player_has_exactly_one_policy(fields, text):
    with pytest.raises(errors.BadInput, match=text):
        _deal(**fields)


def test_a_policy_of_one_player_is_not_shown_which_it_is():
    with pytest.raises(errors.BadInput, match="shows_player has no effect"):
        _deal(sharing="each", shows_player=True)
    assert len(_deal(sharing="kind", shows_player=True)) == 2


def test_a_kind_has_the_same_spaces():
    with pytest.raises(errors.BadInput, match="kind 'agent' with different spaces"):
        roster.deal(_environment(sharing="kind"), PLAYERS, ["a", "a", "b", "c"])


@pytest.mark.parametrize("fields", [{"sharing": "each"}, {"policies": {"a": "*"}}])
def test_one_player_has_one_policy(fields):
    environment = _environment(**fields)
    environment.id = "CartPole-v1"
    with pytest.raises(errors.BadInput, match="needs a game of several players"):
        factory.probe_all(environment)


def test_policies_of_a_game_have_their_own_layouts():
    environment = _environment(policies={"prey": "agent_*", "hunters": "adversary_*"})
    found = factory.probe_all(environment)
    assert list(found) == ["hunters", "prey"]
    assert found["prey"].observation.shape == (14,)
    assert found["hunters"].observation.shape == (16,)
    with pytest.raises(errors.BadInput, match=r"several policies \(hunters, prey\)"):
        factory.probe(environment)
