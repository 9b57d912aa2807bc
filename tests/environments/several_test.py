"""Games of several players as columns, against lists of what the players met."""

import collections
import itertools

import gymnasium
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from impala_mp import config as config_lib, errors, types
from impala_mp.environments import (
    bad_data,
    connect,
    factory,
    games,
    several,
    vector_games,
)

FIRST, MID, LAST = types.StepType


class Crowd:
    """A parallel game whose players come, go and come again, by a script."""

    metadata = {"render_modes": []}

    def __init__(self, seed=0, num_players=3):
        self.possible_agents = [f"p{i}" for i in range(num_players)]
        self._rng = np.random.default_rng(seed)
        self.tape = []  # (players, observations, rewards, terminated, truncated)
        self.actions = []

    @property
    def unwrapped(self):
        return self

    def observation_space(self, player):
        return gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float32)

    def action_space(self, player):
        return gymnasium.spaces.Discrete(4)

    def _see(self, players):
        return {p: self._rng.normal(size=2).astype(np.float32) for p in players}

    def reset(self, seed=None, options=None):
        self._left = int(self._rng.integers(1, 6))
        some = [p for p in self.possible_agents if self._rng.random() < 0.8]
        self.agents = some or self.possible_agents[:1]
        observations = self._see(self.agents)
        self.tape.append((observations, {}, {}, {}))
        self.actions.append({})
        return observations, {p: {} for p in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.actions.append({p: int(a) for p, a in actions.items()})
        self._left -= 1
        there = list(self.agents)
        born = [
            p
            for p in self.possible_agents
            if p not in there and self._rng.random() < 0.3
        ]
        over = self._left == 0
        terminated = {p: bool(self._rng.random() < 0.2) for p in there}
        truncated = {p: over and not terminated[p] for p in there}
        born = [] if over else born
        observations = self._see([*there, *born])
        rewards = {p: float(self._rng.normal()) for p in there}
        self.agents = [p for p in there if not (terminated[p] or truncated[p])] + born
        self.tape.append((observations, rewards, terminated, truncated))
        infos = {p: {"metrics": {"hits": 1.0}} for p in [*there, *born]}
        return observations, rewards, terminated, truncated, infos

    def close(self):
        self.closed = True


def _environment(copies, **kwargs):
    made = [games.adapt("crowd", each) for each in copies]
    return several.SeveralEnvironment(vector_games.GameCopies("crowd", made, **kwargs))


def _expected(tape, player):
    """The rows of one player, from the dicts that its game has returned."""
    rows, plays, total, length = [], False, 0.0, 0
    seen = np.zeros(2)  # a player that is gone keeps its last observation
    for observations, rewards, terminated, truncated in tape:
        there = player in observations
        seen = observations.get(player, seen)
        end = terminated.get(player, False) or truncated.get(player, False)
        if not there or (end and not plays):
            rows.append((LAST, 0.0, 1.0, seen, None, False))
        elif not plays:
            rows.append((FIRST, 0.0, 1.0, seen, None, True))
            plays, total, length = True, 0.0, 0
        else:
            total, length = total + np.float32(rewards[player]), length + 1
            discount = 0.0 if terminated.get(player, False) else 1.0
            kind = LAST if end else MID
            ended = (total, length) if end else None
            rows.append((kind, rewards[player], discount, seen, ended, not end))
            plays = not end
    return rows


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(seed=st.integers(0, 2**32), num_players=st.integers(1, 4))
def test_columns_are_what_the_players_met(seed, num_players):
    copies = [Crowd(seed + i, num_players) for i in range(2)]
    environment = _environment(copies)
    rng = np.random.default_rng(seed)
    rows, ends, actions = [environment.reset([0] * 2 * num_players)], [None], []
    rows[0] = rows[0]._replace(observation=rows[0].observation.copy())
    for _ in range(40):
        action = rng.integers(4, size=environment.num_envs)
        row, end = environment.step(action)
        rows.append(
            row._replace(observation=row.observation.copy(), acts=row.acts.copy())
        )
        ends.append(end)
        actions.append(action)
    pairs = itertools.product(enumerate(copies), range(num_players))
    for (game, copy), player in pairs:
        column, name = game * num_players + player, f"p{player}"
        for t, expected in enumerate(_expected(copy.tape, name)):
            kind, reward, discount, observation, ended, acts = expected
            row = rows[t]
            assert row.step_type[column] == kind
            assert row.reward[column] == np.float32(reward)
            assert row.discount[column] == discount
            assert row.acts[column] == acts
            np.testing.assert_array_equal(row.observation[column], observation)
            if t and ended is None:
                assert np.isnan(ends[t].episode_return[column])
                assert ends[t].episode_length[column] == 0
            elif ended:
                total, length = ends[t].episode_return, ends[t].episode_length
                assert total[column] == pytest.approx(ended[0], abs=1e-5)
                assert length[column] == ended[1]
                assert ends[t].numbers[column, 0] == 1.0
            if name in copy.actions[t]:
                assert copy.actions[t][name] == actions[t - 1][column]


def test_a_player_may_not_vanish():
    class Vanishing(Crowd):
        def step(self, actions):
            observations, *others = super().step(actions)
            self.agents = self.agents[1:]
            del observations["p0"]
            return observations, *others

    environment = _environment([Vanishing(3)])
    environment.reset([0] * 3)
    with pytest.raises(bad_data.BadData, match="has left the game without"):
        collections.deque((environment.step(np.zeros(3, int)) for _ in range(5)), 0)


class Elimination:
    """Three take turns; the second is out after its first move, by PettingZoo's AEC."""

    metadata = {"render_modes": []}
    possible_agents = ("a", "b", "c")
    unwrapped = property(lambda self: self)

    def observation_space(self, player):
        return gymnasium.spaces.Dict(
            {
                "observation": gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32),
                "action_mask": gymnasium.spaces.MultiBinary(3),
            }
        )

    def action_space(self, player):
        return gymnasium.spaces.Discrete(3)

    def agent_iter(self):
        return iter(self.agents)

    def reset(self, seed=None, options=None):
        self.agents, self.moves = list(self.possible_agents), 0
        self.agent_selection = "a"
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {player: {} for player in self.agents}

    def observe(self, player):
        """A mask is there for the player that is to move alone, as in PettingZoo."""
        mask = np.zeros(3, np.int8)
        if player == self.agent_selection:
            mask[self.possible_agents.index(player)] = 1
        return {"observation": np.zeros(1, np.float32), "action_mask": mask}

    def step(self, action):
        player = self.agent_selection
        if self.terminations[player] or self.truncations[player]:
            assert action is None
            self.agents.remove(player)
            self.rewards = dict.fromkeys(self.agents, 0.0)
            self.agent_selection = "c" if player == "b" else (self.agents or [""])[0]
            return
        assert action == self.possible_agents.index(player)
        self.moves += 1
        self.rewards = {each: 1.0 if each == player else 0.0 for each in self.agents}
        if player == "b":
            self.terminations["b"] = True
            return
        over = self.moves == 6
        self.truncations = dict.fromkeys(self.agents, over)
        following = {"a": "b" if "b" in self.agents else "c", "c": "a"}
        self.agent_selection = self.agents[0] if over else following[player]

    def close(self):
        pass


def test_the_mover_sees_its_mask_after_another_has_died():
    environment = _environment([Elimination()])
    row = environment.reset([0] * 3)
    returns = []
    for _ in range(20):
        allowed = row.observation["allowed"]
        assert allowed.any(1).all()
        acting = np.flatnonzero(row.acts)
        assert [allowed[i].tolist() for i in acting] == [
            np.eye(3, dtype=bool)[i].tolist() for i in acting
        ]
        row, end = environment.step(allowed.argmax(1))
        returns += end.episode_return[~np.isnan(end.episode_return)].tolist()
    assert sorted(returns[:3]) == [1.0, 2.0, 3.0]


class Cut(Crowd):
    """Ends by truncation after two steps. The second player has more actions."""

    def __init__(self, with_mask):
        super().__init__(num_players=2)
        self._with_mask = with_mask

    def observation_space(self, player):
        space = super().observation_space(player)
        if not self._with_mask:
            return space
        mask = gymnasium.spaces.MultiBinary(int(self.action_space(player).n))
        return gymnasium.spaces.Dict({"observation": space, "action_mask": mask})

    def action_space(self, player):
        return gymnasium.spaces.Discrete(2 if player == "p0" else 5)

    def _see(self):
        seen = super()._see(self.possible_agents)
        if not self._with_mask:
            return seen
        masks = np.eye(2, dtype=np.int8)[1], np.eye(5, dtype=np.int8)[3]
        return {
            player: {"observation": each, "action_mask": mask}
            for (player, each), mask in zip(seen.items(), masks, strict=True)
        }

    def reset(self, seed=None, options=None):
        self._left, self.agents = 2, self.possible_agents
        return self._see(), {p: {} for p in self.agents}

    def step(self, actions):
        self._left -= 1
        every = dict.fromkeys
        over, players = self._left == 0, self.possible_agents
        self.agents = [] if over else players
        ends = every(players, False), every(players, over)
        return self._see(), every(players, 0.0), *ends, {p: {} for p in players}


@pytest.mark.parametrize(
    ("with_mask", "expected"),
    [(False, ["11000", "11111"]), (True, ["01000", "00010"])],
)
def test_the_last_row_allows_what_the_player_may_do(with_mask, expected):
    """The value after a truncation is that of the best of these actions."""
    environment = _environment([Cut(with_mask)])
    row = environment.reset([0] * 2)
    for _ in range(2):
        row, _end = environment.step(row.observation["allowed"].argmax(1))
    assert (row.step_type == LAST).all()
    shown = ["".join(map(str, map(int, each))) for each in row.observation["allowed"]]
    assert shown == expected


class Pair(gymnasium.Env):
    """Two players in Tuple spaces; the first is out after two steps of four."""

    observation_space = gymnasium.spaces.Tuple(
        [gymnasium.spaces.Box(0.0, 9.0, (1,), np.float32)] * 2
    )
    action_space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3)] * 2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._see(), {}

    def _see(self):
        return tuple(np.array([self._steps + i], np.float32) for i in range(2))

    def step(self, action):
        assert self.action_space.contains(action)
        self._steps += 1
        ends = [self._steps >= 2, self._steps >= 4]
        return self._see(), [float(x) for x in action], ends, False, {}


gymnasium.register("Pair-v0", Pair)


@pytest.mark.parametrize("name", ["Pair", "Pair-v0"])
def test_entries_of_tuples_are_players(name):
    settings = _settings(f"{__name__}:{name}", tuples_are_players=True)
    environment = factory.make(settings, 3)
    assert environment.num_envs == 4  # two whole games
    rows, returns = [environment.reset([0] * 4)], []
    for _ in range(9):
        row, end = environment.step(np.array([1, 2, 1, 2]))
        rows.append(row._replace(acts=row.acts.copy()))
        returns.append(end.episode_return[:2].tolist())
    kinds = np.stack([row.step_type for row in rows], 1)
    expected = [FIRST, MID, LAST, LAST, LAST], [FIRST, MID, MID, MID, LAST]
    for column in range(4):
        assert kinds[column].tolist() == expected[column % 2] * 2
    ended = [(t, r) for t, r in enumerate(returns, 1) if not np.isnan(r).all()]
    assert [t for t, _ in ended] == [2, 4, 7, 9]
    assert [np.nansum(r) for _, r in ended] == [2.0, 8.0] * 2
    environment.close()


def test_spaces_without_entries_of_players_are_refused():
    settings = _settings("CartPole-v1", tuples_are_players=True)
    with pytest.raises(errors.BadInput, match="Tuples with an entry a player"):
        factory.make(settings, 2)


def test_ids_of_players_must_be_different_strings():
    class Numbered(Crowd):
        def __init__(self):
            super().__init__()
            self.possible_agents = [0, 1]

    with pytest.raises(errors.BadInput, match="must be different strings"):
        games.adapt("numbered", Numbered())


def _settings(name, **fields):
    settings = config_lib.get_base_config().environment
    settings.id = name
    for key, value in fields.pop("kwargs", {}).items():
        settings.kwargs[key] = value
    settings.update(fields)
    return settings


def _random(environment, row, rng):
    allowed = row.observation["allowed"]
    return np.where(allowed, rng.random(allowed.shape), -1.0).argmax(-1)


def _copied(row):
    observation = {k: v.copy() for k, v in row.observation.items()}
    return row._replace(observation=observation, acts=row.acts.copy())


def test_tic_tac_toe_is_pettingzoos():
    pytest.importorskip("pettingzoo")
    board = {"rows": 3, "columns": 3, "length": 3, "gravity": False}
    made = [
        factory.make(_settings("Connect", kwargs=board), 6),
        factory.make(_settings("pettingzoo.classic.tictactoe_v3:env"), 6),
    ]
    # PettingZoo numbers cells column by column, and shows planes likewise.
    cells = np.arange(9).reshape(3, 3).T.ravel()
    rng = np.random.default_rng(0)
    own, other = (each.reset([0] * 6) for each in made)
    kinds = collections.Counter()
    for _ in range(200):
        seen = other.observation["observation"].transpose(0, 2, 1, 3)
        acts = own.acts
        np.testing.assert_array_equal(own.observation["observation"], seen)
        np.testing.assert_array_equal(acts, other.acts)
        mine, theirs = own.observation["allowed"], other.observation["allowed"]
        np.testing.assert_array_equal(mine, theirs[:, cells])
        for name in ("step_type", "reward", "discount"):
            np.testing.assert_array_equal(getattr(own, name), getattr(other, name))
        kinds.update(own.reward.tolist())
        action = _random(made[0], own, rng)
        own, end = made[0].step(action)
        other, twin = made[1].step(cells[action])
        np.testing.assert_array_equal(end.episode_return, twin.episode_return)
    assert min(kinds[1.0], kinds[-1.0]) > 10


def test_by_turns_and_in_parallel_a_game_has_the_same_decisions():
    pytest.importorskip("pettingzoo")
    ids = [f"pettingzoo.classic.rps_v2:{kind}" for kind in ("parallel_env", "env")]
    parallel, turns = (
        factory.make(_settings(name, kwargs={"max_cycles": 6}), 2) for name in ids
    )
    rng = np.random.default_rng(0)
    found = {"parallel": [], "turns": []}  # (column, decisions, return) of an episode
    decisions = {name: np.zeros(2, int) for name in found}

    def note(name, row, end=None):
        decisions[name] += row.acts
        for column in np.flatnonzero(row.step_type == LAST).tolist():
            episode = (column, decisions[name][column], end.episode_return[column])
            found[name].append(episode)
            decisions[name][column] = 0

    note("parallel", parallel.reset([0, 0]))
    note("turns", turns.reset([0, 0]))
    for _ in range(20):
        action = rng.integers(3, size=2)
        row, end = parallel.step(action)
        note("parallel", row, end)
        for _ in range(1 if row.step_type[0] == FIRST else 2):
            note("turns", *turns.step(action))
    assert found["parallel"] == found["turns"]
    assert len(found["turns"]) == 6


def test_a_line_wins_wherever_it_lies():
    rng = np.random.default_rng(0)
    game = connect.Connect(500)
    rows, sizes = game.reset(0), (6, 7)
    for _ in range(40):
        free = rows.observation["action_mask"][:, 0]
        action = np.where(free, rng.random(free.shape), -1.0).argmax(-1)
        rows = game.step(np.stack([action] * 2, 1))
        planes = rows.observation["observation"][:, 0]
        lines = np.zeros((500, 2), bool)
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            for y, x in itertools.product(*map(range, sizes)):
                ends = y + 3 * dy, x + 3 * dx
                if 0 <= ends[0] < 6 and 0 <= ends[1] < 7:
                    cells = [planes[:, y + i * dy, x + i * dx] for i in range(4)]
                    lines |= np.logical_and.reduce(cells).astype(bool)
        full = planes.sum((1, 2, 3)) == 42
        np.testing.assert_array_equal(rows.terminated[:, 0], lines.any(1) | full)
        np.testing.assert_array_equal(
            rows.reward[:, 0], lines[:, 0].astype(float) - lines[:, 1]
        )


def test_a_forbidden_move_loses():
    game = connect.Connect(1, rows=3, columns=3, length=3, gravity=False)
    game.reset(0)
    game.step(np.array([[4, 0]]))
    rows = game.step(np.array([[0, 4]]))
    assert rows.reward.tolist() == [[1.0, -1.0]]
    assert rows.terminated.all()


def _pieces(rows):
    """Returns the number of pieces of each side, player_0's first: [E, 2]."""
    return rows.observation["observation"][:, 0].sum((1, 2)).astype(int)


@pytest.mark.parametrize(
    ("kwargs", "most"),
    [
        ({"opening": 9}, 9),
        ({"rows": 3, "columns": 3, "length": 3, "gravity": False, "opening": 8}, 7),
    ],
)
def test_a_game_begins_after_random_moves_that_do_not_end_it(kwargs, most):
    game = connect.Connect(2_000, **kwargs)
    for rows in (game.reset(3), game.reset(4)):
        first, second = _pieces(rows).T
        assert {*(first - second)} == {0, 1}
        assert {*(first + second)} <= set(range(kwargs["opening"] + 1))
        assert {*(first + second)} >= set(range(most))
        np.testing.assert_array_equal(rows.acts[:, 0], first == second)
        np.testing.assert_array_equal(rows.acts[:, 1], first > second)
        assert not (
            game._has_line(game._boards[0]) | game._has_line(game._boards[1])
        ).any()
        assert rows.observation["action_mask"].any(-1).all()
        seen = rows.observation["observation"].reshape(2_000, -1)
        assert len(np.unique(seen, axis=0)) > 300
    again = connect.Connect(2_000, **kwargs).reset(4)
    np.testing.assert_array_equal(
        again.observation["observation"], rows.observation["observation"]
    )


def test_each_game_has_an_opening_of_its_own_and_none_by_default():
    rng = np.random.default_rng(0)
    begun = {0: [], 6: []}
    for opening, found in begun.items():
        game = connect.Connect(8, opening=opening)
        rows = game.reset(0)
        for _ in range(200):
            over = rows.terminated[:, 0]
            free = rows.observation["action_mask"][:, 0]
            action = np.where(free, rng.random(free.shape), -1.0).argmax(-1)
            rows = game.step(np.stack([action] * 2, 1))
            found += _pieces(rows)[over].sum(1).tolist()
    assert {*begun[0]} == {0}
    assert {*begun[6]} == set(range(7))


@pytest.mark.parametrize(
    "kwargs",
    [
        *({"rows": 0}, {"length": 9}, {"columns": 2.5}, {"rows": 8, "columns": 8}),
        *({"opening": -1}, {"opening": 42}, {"opening": 1.5}),
    ],
)
def test_boards_that_cannot_be_are_refused(kwargs):
    with pytest.raises(errors.BadInput, match="Connect cannot use"):
        factory.make(_settings("Connect", kwargs=kwargs), 2)


@pytest.mark.parametrize("num_players", [1, 3])
def test_a_restored_game_goes_on_as_before(num_players):
    rng = np.random.default_rng(0)
    one, two = (
        _environment([Crowd(seed, num_players) for seed in pair])
        for pair in ((1, 2), (3, 4))
    )
    seeds = [0] * one.num_envs
    for environment in (one, two):
        environment.reset(seeds)
        for _ in range(9):
            environment.step(rng.integers(4, size=environment.num_envs))
    two.load_state_dict(one.state_dict())
    for _ in range(30):
        action = rng.integers(4, size=one.num_envs)
        (row, end), (other, twin) = one.step(action), two.step(action)
        for name in ("step_type", "reward", "discount", "observation", "acts"):
            np.testing.assert_array_equal(getattr(row, name), getattr(other, name))
        np.testing.assert_array_equal(end.episode_return, twin.episode_return)
        np.testing.assert_array_equal(end.episode_length, twin.episode_length)


def test_a_restored_game_has_the_same_openings():
    made = [factory.make(_settings("Connect", kwargs={"opening": 6}), 8) for _ in "ab"]
    rows = [each.reset([seed] * 8) for seed, each in enumerate(made)]
    made[1].load_state_dict(made[0].state_dict())
    row = rows[0]
    for _ in range(60):
        action = row.observation["allowed"].argmax(-1)
        row, other = (each.step(action)[0] for each in made)
        for name in ("step_type", "reward", "acts"):
            np.testing.assert_array_equal(getattr(row, name), getattr(other, name))
        np.testing.assert_array_equal(
            row.observation["observation"], other.observation["observation"]
        )
