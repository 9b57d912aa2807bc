"""What calibration chooses from measured costs."""

import pytest

from impala_mp import errors
from impala_mp.config import validation
from impala_mp.environments import factory
from impala_mp.networks import agent, precision as precision_lib
from impala_mp.runtime import calibration, resources
from tests.support import builders


@pytest.mark.parametrize(
    ("costs", "cores", "expected"),
    [
        (calibration.Costs(0.3, 0.3, 0.6), 2, (1, 1)),
        (calibration.Costs(0.3, 0.3, 0.2), 2, (2, 1)),
        (calibration.Costs(0.1, 0.1, 0.8), 8, (3, 7)),
        (calibration.Costs(4.0, 1.0, 0.01), 64, (64, 1)),
        (calibration.Costs(0.0, 0.1, 9.0), 1, (1, 1)),
    ],
)
def test_each_side_gets_its_share_of_the_cores(costs, cores, expected):
    assert calibration.choose(costs, cores) == expected


def test_a_calibration_replaces_what_is_automatic(monkeypatch):
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    config = builders.config(**{"actors.count": 0, "learner.micro_batches": 0})
    config.learner.threads = 0
    environment = factory.make(config.environment, 1).spec
    sentence = calibration.resolve(config, environment, num_cores=2)
    assert 1 <= config.actors.count <= 2
    assert config.batch_size % config.learner.micro_batches == 0
    assert f"actors.count = {config.actors.count}" in sentence
    validation.validate(config, 2)
    assert calibration.resolve(config, environment, num_cores=2) == ""


@pytest.mark.parametrize(
    ("count", "environments", "ratio", "expected"),
    [
        (1, 8, 0.0, 8),
        (2, 8, 0.0, 16),
        (3, 32, 0.0, 64),
        (4, 100, 0.0, 100),
        (2, 8, 0.5, 32),
        (0, 8, 0.0, 16),  # two actors by calibration
    ],
)
def test_a_batch_is_an_unroll_of_each_environment(
    monkeypatch, count, environments, ratio, expected
):
    monkeypatch.setattr(calibration, "choose", lambda costs, cores: (2, 1))
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    automatic = {"batch_size": 0, "actors.count": count, "replay.ratio": ratio}
    config = builders.config(**automatic, **{"actors.environments": environments})
    environment = factory.make(config.environment, 1).spec
    validation.validate(config, 2)
    sentence = calibration.resolve(config, environment, 2)
    assert f"batch_size = {expected}" in sentence
    assert config.batch_size == expected
    validation.validate(config, 2)
    config.batch_size, config.actors.count = 0, 1
    stored = builders.config(batch_size=77)
    calibration.resolve(config, environment, 2, stored)
    assert config.batch_size == 77


def test_environments_that_cost_least_are_chosen(monkeypatch, tmp_path):
    costs = {1: 1.0, 2: 1.1, 3: 1.2, 4: 1.4, 6: 1.9, 12: 3.9}
    monkeypatch.setattr(
        calibration,
        "_environment_secs",
        lambda settings, count: costs[count],
    )
    monkeypatch.setattr(calibration, "_inference_secs", lambda *unused: 0.0)
    config = builders.config(**{"actors.environments": 0, "batch_size": 12})
    environment = factory.make(config.environment, 1).spec
    stored = builders.config(**{"actors.environments": 4})
    assert "environments = 6" in calibration.resolve(config, environment, 2)
    config.actors.environments = 0
    assert "environments = 4" in calibration.resolve(config, environment, 2, stored)
    config.actors.environments = 0
    config.inference.mode = "server"
    costs[6] = 9.0
    assert "environments = 12" in calibration.resolve(config, environment, 2)


def test_there_are_enough_actors_to_fill_a_batch(monkeypatch):
    monkeypatch.setattr(calibration, "choose", lambda costs, cores: (1, 1))
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    config = builders.config(**{"actors.count": 0, "actors.slots": 1})
    environment = factory.make(config.environment, 1).spec
    calibration.resolve(config, environment, num_cores=2)
    assert config.actors.count == 2


@pytest.mark.parametrize("mode", ["processes", "lockstep"])
def test_each_task_has_an_actor(monkeypatch, mode):
    monkeypatch.setattr(calibration, "choose", lambda costs, cores: (1, 1))
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    config = builders.config(**{"actors.count": 0, "runtime.mode": mode})
    config.environment.id = "CartPole-v1, Acrobot-v1"
    environment = factory.make(config.environment, 1).spec
    calibration.resolve(config, environment, 1)
    assert config.actors.count == 2


@pytest.mark.parametrize("mode", ["processes", "lockstep"])
def test_the_fastest_cut_is_chosen(monkeypatch, mode):
    seconds = {1: 3.0, 2: 2.0, 4: 1.0, 8: 4.0, 16: 9.0}
    tried = []

    def measured(config, environment):
        tried.append(config.learner.micro_batches)
        return seconds[config.learner.micro_batches]

    monkeypatch.setattr(calibration, "_update_secs", measured)
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    config = builders.config(**{"learner.micro_batches": 0, "runtime.mode": mode})
    environment = factory.make(config.environment, 1).spec
    for batch_size, fastest in ((24, 4), (6, 2), (9, 1), (24, 4)):
        config.batch_size, config.learner.micro_batches = batch_size, 0
        tried.clear()
        sentence = calibration.resolve(config, environment, num_cores=2)
        assert f"learner.micro_batches = {fastest}" in sentence
        assert config.learner.micro_batches == fastest
        assert set(tried) == {n for n in seconds if batch_size % n == 0}


@pytest.mark.parametrize(("threads", "expected"), [(0, 15), (1, 14), (4, 11)])
def test_a_gpu_leaves_the_cores_to_actors_and_server(threads, expected):
    config = builders.config(**{"actors.count": 0, "learner.device": "cuda"})
    if threads:
        config.inference.mode, config.inference.threads = "server", threads
    environment = factory.make(config.environment, 1).spec
    sentence = calibration.resolve(config, environment, 16)
    assert f"actors.count = {expected}" in sentence


def test_a_server_has_cores_and_takes_inference_off_the_actors(monkeypatch):
    costs = calibration.Costs(environment=0.2, inference=9.9, learning=0.2)
    monkeypatch.setattr(calibration, "measure", lambda *unused: costs)
    config = builders.config(**{"actors.count": 0, "inference.mode": "server"})
    config.learner.threads, config.inference.threads = 0, 2
    environment = factory.make(config.environment, 1).spec
    sentence = calibration.resolve(config, environment, 10)
    assert (config.actors.count, config.learner.threads) == (4, 4)
    assert "there are 10 cores, 2 of them for the inference server" in sentence


_FUNCTIONS = {"learner": "_update_secs", "inference": "_inference_secs"}
_each_group = pytest.mark.parametrize("group", list(_FUNCTIONS))


def _with_precision(monkeypatch, group, secs, stored=None, native=True, **overrides):
    """Precision that calibration chooses from `secs`, and its sentences."""

    def measured(config, environment):
        return secs[config[group].precision]

    monkeypatch.setattr(resources, "_num_gpus", lambda: 0)
    monkeypatch.setattr(precision_lib, "is_native", lambda: native)
    monkeypatch.setattr(calibration, _FUNCTIONS[group], measured)
    config = builders.config(**{f"{group}.precision": "auto", **overrides})
    environment = factory.make(config.environment, 1).spec
    policy = agent.make(config, environment)
    sentences = calibration.fill_in(config, environment, policy, 2, stored)
    return config[group].precision, " ".join(sentences)


@_each_group
@pytest.mark.parametrize(
    ("bfloat16", "expected"),
    [(0.010, "bfloat16"), (0.0181, "bfloat16"), (0.0182, "float32"), (0.1, "float32")],
)
@pytest.mark.parametrize("automatic", [{}, {"batch_size": 0}])
def test_bfloat16_is_taken_where_it_is_faster(
    monkeypatch, group, bfloat16, expected, automatic
):
    secs = {"float32": 0.020, "bfloat16": bfloat16}
    overrides = {"actors.count": 1, **automatic}
    precision, sentences = _with_precision(monkeypatch, group, secs, **overrides)
    assert precision == expected
    assert f"{group}.precision = {expected} (auto): " in sentences
    assert f"20 ms in float32 and {1e3 * bfloat16:.3g} ms in bfloat16." in sentences


@_each_group
def test_a_cpu_without_bfloat16_is_not_measured(monkeypatch, group):
    chosen, sentences = _with_precision(monkeypatch, group, {}, native=False)
    assert chosen == "float32"
    assert "this CPU lacks bfloat16" in sentences


@_each_group
def test_a_resumed_run_keeps_its_precision(monkeypatch, group):
    stored = builders.config(**{f"{group}.precision": "float32"})
    secs = {"float32": 1.0, "bfloat16": 0.1}
    precision, sentences = _with_precision(monkeypatch, group, secs, stored)
    assert precision == "float32"
    assert "the run began with it" in sentences


@pytest.mark.parametrize(
    "overrides",
    [
        {"learner.device": "cuda"},
        {
            "inference.device": "cuda",
            "inference.mode": "server",
            "actors.environments": 4,
            "batch_size": 4,
        },
    ],
)
def test_on_a_gpu_the_precision_is_not_measured(monkeypatch, overrides):
    group = next(iter(overrides)).partition(".")[0]
    precision, sentences = _with_precision(monkeypatch, group, {}, **overrides)
    assert precision == "float32"
    assert "it is on a GPU" in sentences


def test_an_actor_without_a_server_is_on_the_cpu(monkeypatch):
    secs = {"float32": 1.0, "bfloat16": 0.1}
    on_a_gpu = {"inference.device": "cuda"}
    assert _with_precision(monkeypatch, "inference", secs, **on_a_gpu)[0] == "bfloat16"


@_each_group
def test_each_precision_is_measured(monkeypatch, group):
    """The networks that are measured enter the context of each precision."""
    seen, context = [], precision_lib.context

    def watched(name, *others, **more):
        seen.append(name)
        return context(name, *others, **more)

    monkeypatch.setattr(precision_lib, "context", watched)
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    monkeypatch.setattr(calibration, "_LEAST_GAIN", 0.0)
    config = builders.config(**{f"{group}.precision": "auto", "batch_size": 4})
    environment = factory.make(config.environment, 1).spec
    chosen, why = calibration._faster_precision(config, environment, group)
    assert chosen == "bfloat16"
    assert " ms in float32 and " in why
    assert list(dict.fromkeys(seen)) == ["float32", "bfloat16"]
    assert config[group].precision == "auto"


def test_what_a_device_does_not_go_with_is_refused_before_a_measurement(monkeypatch):
    monkeypatch.setattr(resources, "_num_gpus", lambda: 0)
    automatic = {"learner.device": "auto", "learner.precision": "auto"}
    config = builders.config(**automatic, **{"learner.cuda_graph": True})
    environment = factory.make(config.environment, 1).spec
    with pytest.raises(errors.BadInput, match="cuda_graph needs a GPU"):
        calibration.fill_in(config, environment, agent.make(config, environment), 2)


def test_the_actors_of_all_members_are_within_the_limit():
    config = builders.config(**{"actors.count": 0, "population.size": 3})
    config.population.ranges.entropy_cost = (0.001, 0.1)
    calibration.fill_in_several(config, 1, 240)
    assert config.actors.count == 198
