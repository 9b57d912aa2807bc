"""Episodes before a spectator's eyes: what is said is what the agent and game did."""

import io
import re
import sys

import numpy as np
import pytest
import rich.console
import torch

from impala_mp import errors, types
from impala_mp.algorithms import action_returns
from impala_mp.cli import play
from impala_mp.environments.catch import CatchVectorEnv
from impala_mp.evaluation import player, saved_run, spectators
from impala_mp.networks.distributions import base
from impala_mp.runtime import program
from tests.support import builders, spaces

_DISCRETE = base.Element("", ("0", "1"), (0.25, 0.75), True)
_BOX = base.Element("arm[1]", ("mean", "deviation"), (0.5, 1.0), False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of short trainings: one whose environment draws, and one that doesn't."""
    paths = {}
    for name in ("Catch", "tests.support.spaces:Spaces-v0"):
        paths[name] = str(tmp_path_factory.mktemp("run"))
        config = builders.config(**{"environment.id": name, "network.core": "lstm"})
        config.runtime.mode, config.total_agent_steps = "lockstep", 60
        config.evaluation.episodes = 1
        if name != "Catch":
            config.environment.kwargs = {"observation": "dict", "action": "dict"}
        program.train(config, paths[name])
    return paths


def _console(**settings):
    return rich.console.Console(file=io.StringIO(), width=90, height=30, **settings)


def _play(path, episodes=1, greedy=True, console=None, sleeps=None, delay=None):
    console = console or _console()
    sleeps = [] if sleeps is None else sleeps
    player.play(path, episodes, greedy, False, delay, console, sleeps.append)
    return console.file.getvalue()


class _Spy:
    """Keeps the moments, and leaves after so many."""

    def __init__(self, most):
        self._most = most
        self.moments = []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass

    def show(self, moment):
        self.moments.append(moment)
        return len(self.moments) < self._most


def _moments(path, episodes, monkeypatch, greedy=False, most=25):
    spy = _Spy(most)
    monkeypatch.setattr(player, "_spectator", lambda *unused: spy)
    _play(path, episodes, greedy)
    return spy.moments


def test_episodes_of_catch(runs, monkeypatch):
    moments = _moments(runs["Catch"], 2, monkeypatch)
    assert [m.step for m in moments] == [*range(10), *range(10)]
    assert [m.episode for m in moments] == [1] * 10 + [2] * 10
    assert [m.over for m in moments] == ([False] * 9 + [True]) * 2
    for moment in moments:
        (part,) = moment.parts
        assert part.reward == part.episode_return == (part.reward * moment.over)
        assert moment.picture.shape == (240, 120, 3)
        (element,) = moment.elements
        assert sum(element.numbers) == pytest.approx(1.0)
    assert abs(moments[-1].parts[0].reward) == 1.0
    for one, other in zip(moments[:9], moments[1:10], strict=True):
        paddle = [int(m.observation[-1].argmax()) for m in (one, other)]
        if one.observation[-1].sum() == other.observation[-1].sum() == 1.0:
            action = int(one.parts[0].action)
            assert paddle[1] == np.clip(paddle[0] + action - 1, 0, 4)


def test_greedy_actions_are_the_likeliest(runs, monkeypatch):
    for moment in _moments(runs["Catch"], 2, monkeypatch, greedy=True):
        assert int(moment.parts[0].action) == int(np.argmax(moment.elements[0].numbers))


@pytest.mark.integration
def test_rescaled_values_are_in_units_of_reward(tmp_path, monkeypatch):
    config = builders.config(**{"algorithm": "dqn", "vtrace.lambda_": 0.95})
    config.dqn.rescaling, config.loss.popart = "hyperbolic", False
    config.runtime.mode, config.total_agent_steps = "lockstep", 60
    config.evaluation.episodes, config.evaluation.greedy = 1, True
    program.train(config, str(tmp_path))
    policy = saved_run.SavedRun(str(tmp_path)).agent()
    for moment in _moments(str(tmp_path), 1, monkeypatch, greedy=True):
        seen = torch.tensor(moment.observation)[None]
        row = types.TimeStep(torch.ones(1), torch.zeros(1), torch.ones(1), seen)
        with torch.no_grad():
            _, baseline, _ = policy.look(row, ())
        expected = float(action_returns.restore(baseline))
        assert abs(expected - float(baseline)) > 1e-3
        assert moment.parts[0].value == pytest.approx(expected, rel=1e-4)
        (element,) = moment.parts[0].elements
        assert max(element.numbers) == pytest.approx(expected, rel=1e-4)


def test_a_spectator_may_leave(runs, monkeypatch):
    assert len(_moments(runs["Catch"], 100, monkeypatch)) == 25


def test_nested_spaces_without_a_picture(runs, monkeypatch):
    moments = _moments(runs["tests.support.spaces:Spaces-v0"], 2, monkeypatch)
    assert all(moment.picture is None for moment in moments)
    assert sum(moment.over for moment in moments) == 2
    ends = [moment for moment in moments if moment.over]
    assert [end.parts[0].episode_return for end in ends] == [end.step for end in ends]
    names = [element.name for element in moments[0].elements]
    assert names == [
        *("arm/0[0]", "arm/0[1]", "arm/1[0]", "arm/1[1]"),
        *("gears[0]", "gears[1]", "mode"),
    ]
    assert all(spaces._SPACES["dict"].contains(m.parts[0].action) for m in moments)


def test_a_moment_outlives_the_row_that_it_was_made_of():
    rows = np.zeros((1, 3))
    kept = player._first(rows)
    rows += 1.0
    assert not kept.any()


def test_each_of_several_tasks_is_played(tmp_path, monkeypatch):
    config = builders.config(**{"environment.id": "Recall, CartPole-v1"})
    config.runtime.mode, config.total_agent_steps = "lockstep", 600
    config.evaluation.episodes = 1
    program.train(config, str(tmp_path))
    moments = _moments(str(tmp_path), 1, monkeypatch, most=500)
    assert [m.task for m in moments if m.over] == ["Recall", "CartPole-v1"]
    assert [int(m.observation["task"]) for m in moments if m.over] == [0, 1]
    for moment in moments:
        drawn = moment.picture is not None
        assert drawn or (
            "renders no pictures" in moment.without and moment.task[0] == "C"
        )


# What is seen.


def test_a_plain_line_a_step(runs):
    sleeps = []
    lines = _play(runs["Catch"], 2, sleeps=sleeps).splitlines()
    assert len(lines) == 20
    assert set(sleeps) == {0.0}
    assert lines[0].startswith("episode 1, step 0, action ")
    assert " return 0 | 0 0." in lines[0]
    assert lines[9].startswith("episode 1, step 9, action –, value ")
    assert re.search(r"return -?1: the episode has ended$", lines[9])


def test_on_a_terminal_there_is_a_picture(runs):
    sleeps = []
    console = _console(force_terminal=True, color_system="truecolor")
    seen = _play(runs["Catch"], console=console, sleeps=sleeps)
    assert set(sleeps) == {0.05}
    assert "▀" in seen
    assert "38;2;255;255;255" in seen
    for word in ("episode", "action", "value", "reward", "return", "█"):
        assert word in seen
    assert seen.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_on_a_terminal_without_colours_there_are_numbers(runs):
    console = _console(force_terminal=True, color_system=None)
    sleeps = []
    seen = _play(runs["Catch"], console=console, sleeps=sleeps, delay=0.5)
    assert "▀" not in seen
    assert "[0, 0, 1, 0, 0]" in seen
    assert set(sleeps) == {0.5}


def _moment(value=0.1234, **changes):
    part = spectators.Part(
        player="",
        elements=[_DISCRETE, _BOX],
        action={"arm": np.array([0.5, -2.0], np.float32), "leg": np.array(1)},
        acts=True,
        value=value,
        reward=-1.0,
        episode_return=12.5,
    )
    return spectators.Moment(
        task="",
        episode=2,
        step=7,
        picture=None,
        without="",
        observation={"a": np.array([1.0, 0.125]), "b": np.array(3)},
        parts=[part],
        over=False,
    )._replace(**changes)


def test_each_player_has_a_line():
    moment = _moment()
    (part,) = moment.parts
    pair = [part._replace(player="one"), part._replace(player="two", acts=False)]
    assert spectators.line(moment._replace(parts=pair)) == (
        "episode 2, step 7,"
        " one action arm [0.5, -2], leg 1, value 0.123, reward -1, return 12.5,"
        " two action –, value 0.123, reward -1, return 12.5"
        " | one: 0 0.25, 1 0.75; one arm[1]: mean 0.50, deviation 1.00"
    )


def test_the_words_of_a_line():
    assert spectators.line(_moment()) == (
        "episode 2, step 7, action arm [0.5, -2], leg 1, value 0.123, reward -1,"
        " return 12.5 | 0 0.25, 1 0.75; arm[1]: mean 0.50, deviation 1.00"
    )


def test_one_of_several_tasks_is_named():
    assert spectators.line(_moment(task="Catch")).startswith("task Catch, episode 2, ")


def _text(moment):
    console = _console()
    console.print(spectators.Terminal(console).render(moment))
    return console.file.getvalue()


def test_probabilities_are_bars_and_moments_are_numbers():
    lines = _text(_moment(without="It draws nothing.")).splitlines()
    assert lines[0].startswith("a [1, 0.125]")
    assert lines[1].startswith("b 3")
    assert lines[2].startswith("It draws nothing.")
    assert any(re.search("1 +0.75 █{15}(?!█)", line) for line in lines)
    assert any("arm[1]: mean 0.50, deviation 1.00" in line for line in lines)


def test_an_episode_that_is_over_has_no_action():
    (part,) = _moment().parts
    text = _text(_moment(over=True, parts=[part._replace(acts=False)]))
    assert "–" in text
    assert "█" not in text


_RED, _BLUE = (255, 0, 0), (0, 0, 255)


def _flag(height, width):
    """Red over blue."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2], picture[height // 2 :] = _RED, _BLUE
    return picture


def test_a_character_is_two_pixels():
    text = spectators.half_blocks(_flag(2, 3), 3, 1)
    assert text.plain == "▀▀▀"
    (span,) = text.spans
    assert span.style.color.triplet == _RED
    assert span.style.bgcolor.triplet == _BLUE


@pytest.mark.parametrize(
    ("shape", "columns", "rows", "expected"),
    [
        ((40, 20), 100, 10, (10, 10)),  # too high: two pixels a character
        ((20, 40), 20, 100, (20, 5)),  # too wide
        ((2, 4), 12, 12, (12, 3)),  # enlarged
        ((100, 1), 10, 2, (1, 2)),  # never nothing
    ],
)
def test_a_picture_is_scaled_to_its_place(shape, columns, rows, expected):
    lines = spectators.half_blocks(_flag(*shape), columns, rows).plain.splitlines()
    assert (len(lines[0]), len(lines)) == expected


# In a window.


def test_a_window():
    figure, pauses = _figure(), []
    window = spectators.Window(
        figure, lambda: pauses.append(1), lambda: len(pauses) < 3
    )
    for value in (1, 2, 3):
        picture = np.full((4, 4, 3), value, np.uint8)
        assert window.show(_moment(picture=picture, value=value))
        shown = figure.axes[0].images[0].get_array()
        np.testing.assert_array_equal(shown, picture)
        figure.canvas.draw()
    assert "value    3.000" in figure.axes[1].texts[0].get_text()
    assert "arm[1]: mean 0.50" in figure.axes[1].texts[0].get_text()
    assert not window.show(_moment())
    assert len(pauses) == 3


def test_a_window_without_a_picture_has_the_observation():
    figure = _figure()
    assert spectators.Window(figure, lambda: None).show(_moment())
    assert "b 3" in figure.axes[0].texts[0].get_text()


def _figure():
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    figure = Figure()
    backend_agg.FigureCanvasAgg(figure)
    return figure


def test_without_a_display_a_window_is_refused(runs, monkeypatch):
    from matplotlib import pyplot

    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    pyplot.switch_backend("agg")
    with pytest.raises(errors.BadInput, match="finds no display to open a window on"):
        player.play(runs["Catch"], 1, None, True, None)


# The command.


def _main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["impala-play", *arguments])
    with pytest.raises(SystemExit) as caught:
        play.main()
    return caught.value.code


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "one folder is required, but none is given. Use: impala-play DIR"),
        (["nowhere"], "nowhere has no config.json"),
        (["nowhere", "--episodes=0"], "episodes"),
        (["nowhere", "--delay_secs=-1"], "delay_secs"),
    ],
)
def test_bad_input_is_a_sentence(monkeypatch, capsys, arguments, sentence):
    assert _main(monkeypatch, *arguments) == 2
    assert sentence in capsys.readouterr().err


def test_an_interrupt_is_no_failure(monkeypatch):
    def interrupted(*unused, **flags):
        raise KeyboardInterrupt

    monkeypatch.setattr(player, "play", interrupted)
    monkeypatch.setattr(sys, "argv", ["impala-play", "somewhere"])
    play.main()


def test_an_interrupt_gives_the_terminal_back(runs, monkeypatch):
    console = _console(force_terminal=True, color_system="truecolor")

    def interrupted(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        player.play(runs["Catch"], 1, None, False, None, console, interrupted)
    assert console.file.getvalue().rstrip().endswith("\x1b[?25h")


def test_a_game_that_gives_what_is_no_number_ends_in_a_sentence(runs, monkeypatch):
    step = CatchVectorEnv.step

    def spoiled(self, actions):
        observation, *rest = step(self, actions)
        return np.full_like(observation, np.nan), *rest

    monkeypatch.setattr(CatchVectorEnv, "step", spoiled)
    with pytest.raises(errors.BadInput, match="Catch returned bad data"):
        _play(runs["Catch"])
