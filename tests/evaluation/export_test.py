"""An exported policy says what the agent says, whatever the spaces and the core."""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.algorithms import action_returns
from impala_mp.environments import factory
from impala_mp.evaluation import export, saved_run
from impala_mp.networks import agent
from impala_mp.runtime import program
from tests.support import builders, spaces

_ROWS = 3


_GTRXL = {"network.gtrxl.layers": 1, "network.gtrxl.heads": 2}
_GTRXL |= {"network.gtrxl.window": 3}


def _config(observation, action, core, **overrides):
    config = builders.config(
        **{
            "environment.id": "tests.support.spaces:Spaces-v0",
            "network.core": core,
            "network.joint_size": 16,
            **(_GTRXL if core == "gtrxl" else {}),
            "network.normalise_observations": True,
            "agent.action_mask_key": "allowed" if observation == "masked" else "",
            **overrides,
        }
    )
    config.environment.kwargs = {"observation": observation, "action": action}
    return config


def _play(config, task, steps=14):
    """The agent, and what it saw and said of episodes that end after 4 to 8 steps."""
    environment = factory.make(config.environment, _ROWS, task=task)
    torch.manual_seed(0)
    policy = agent.make(config, environment.spec)
    time_step = nest.tensors(environment.reset(range(_ROWS)))
    _disturb(policy, time_step)
    state, tape = policy.initial_state(_ROWS), []
    for _ in range(steps):
        with torch.no_grad():
            outputs, *_ = policy.look(time_step, state)
            output, after = policy.step(time_step, state, greedy=True)
            output = output._replace(policy_logits=outputs)  # of action values, those
        action = nest.map_structure(torch.Tensor.numpy, output.action)
        tape.append((nest.map_structure(torch.clone, time_step), state, output, after))
        state = after
        time_step = nest.tensors(environment.step(action)[0])
    assert any((row[0].step_type == 0).any() for row in tape[1:])
    return policy, environment.spec, tape


def _disturb(policy, time_step):
    """Parameters and statistics that are not those of a fresh network."""
    network = policy.network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    rows = nest.map_structure(lambda leaf: leaf.unsqueeze(0), time_step.observation)
    network.adapt(rows, torch.ones(()))


def _check(config, format_name, task=0):
    """Each row through a file; states go around in it, as its user has them."""
    policy, spec, tape = _play(config, task)
    restore = saved_run.restorer(config)
    module = export.GreedyPolicy(policy, spec, restore)
    module.eval().requires_grad_(False)
    example = module.rows(*tape[0][:2])
    make, load, _ = export.FORMATS[format_name]
    data = make(module, example)
    run = load(data)
    carried = {name: example[name] for name in module.carried.values()}
    for time_step, state, output, after in tape:
        found = run({**module.rows(time_step, state), **carried})
        action = specs.to_environment(spec.action)(output.action)
        expected = {
            **dict(_named("action", action)),
            policy.outputs_name: restore(output.policy_logits),
            "baseline": restore(output.baseline),
            **{f"next_core_state/{i}": leaf for i, leaf in enumerate(after)},
        }
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        carried = {module.carried[n]: found[n] for n in module.carried}
    _check_batch_sizes(module, run, example)


def _named(prefix, structure):
    for path, leaf in nest.flatten_with_path(structure):
        yield f"{prefix}/{path}" if path else prefix, leaf


def _check_batch_sizes(module, run, example):
    for rows in (1, 5):
        inputs = {
            n: leaf[:1].expand(rows, *leaf.shape[1:]) for n, leaf in example.items()
        }
        found = run({name: leaf.contiguous() for name, leaf in inputs.items()})
        torch.testing.assert_close(found, module(inputs), rtol=1e-5, atol=1e-5)


_CORES = ("none", "lstm", "none", "gru", "none", "lstm", "gtrxl", "gru")
_LAST = {"network.last_action": True, "network.last_reward": True}


def _cases():
    """Every observation, every action and every core, in as few cases as will do."""
    for i, observation in enumerate(spaces.OBSERVATIONS):
        action = spaces.ACTIONS[i % len(spaces.ACTIONS)]
        action = "discrete" if observation == "masked" else action
        core = _CORES[i % len(_CORES)]
        yield pytest.param(
            observation, action, core, id=f"{observation}-{action}-{core}"
        )


_CASES = list(_cases())


@pytest.mark.integration
@pytest.mark.parametrize(("observation", "action", "core"), _CASES)
def test_an_exported_program_equals_the_agent(observation, action, core):
    alone = {"loss.popart": True, "network.last_reward": observation != "box"}
    _check(
        _config(observation, action, core, **(alone if core == "none" else _LAST)),
        "torch",
    )


@pytest.mark.integration
def test_a_last_action_needs_no_core():
    _check(_config("box", "tuple", "none", **{"network.last_action": True}), "torch")


@pytest.mark.integration
def test_several_tasks_with_a_mask_and_a_scale_each():
    names = (
        "tests.environments.tasks_test:TaskA-v0, tests.environments.tasks_test:TaskB-v0"
    )
    config = _config("box", "box", "none", **{"loss.popart": True})
    config.environment.id, config.environment.kwargs = names, {}
    _check(config, "torch", task=1)


_DQN = {"algorithm": "dqn", "target.period": 5, "network.dueling": True}


@pytest.mark.integration
def test_action_values_and_the_best_action_are_exported():
    _check(_config("masked", "discrete", "lstm", **_LAST, **_DQN), "torch")


_RESCALED = {**_DQN, "dqn.rescaling": "hyperbolic", "loss.popart": False}


@pytest.mark.integration
def test_rescaled_values_are_exported_in_units_of_reward(tmp_path):
    settings = {"runtime.mode": "lockstep", "total_agent_steps": 60}
    settings |= {"evaluation.episodes": 2, "evaluation.greedy": True}
    settings |= {"vtrace.lambda_": 0.95, **_RESCALED}
    program.train(builders.config(**settings), str(tmp_path))
    path, _ = export.export(str(tmp_path), "torch", None)
    seen = torch.ones(2, 10, 5)
    found = torch.export.load(path).module()({"observation": seen})
    policy = saved_run.SavedRun(str(tmp_path)).agent()
    row = types.TimeStep(torch.ones(2), torch.zeros(2), torch.ones(2), seen)
    with torch.no_grad():
        values, baseline, _ = policy.look(row, ())
    assert (values.abs() > 1e-3).all()
    torch.testing.assert_close(found["q_values"], action_returns.restore(values))
    torch.testing.assert_close(found["baseline"], action_returns.restore(baseline))


_IQN = {"algorithm": "iqn", "target.period": 5, "loss.popart": True}
_QR = {**_IQN, "iqn.fractions": "fixed"}


@pytest.mark.integration
@pytest.mark.parametrize("kind", [_IQN, _QR], ids=["iqn", "qr"])
def test_means_of_quantiles_are_exported(kind):
    """The fractions are constants of the program: the file draws no numbers."""
    _check(_config("masked", "discrete", "lstm", **_LAST, **kind), "torch")


@pytest.mark.slow
@pytest.mark.parametrize("core", sorted(set(_CORES)))
@pytest.mark.parametrize("observation", spaces.OBSERVATIONS)
def test_every_observation_with_every_core(observation, core):
    _check(_config(observation, "discrete", core, **_LAST), "torch")


# ONNX, where it is installed.


def _onnx(function):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        missing = importlib.util.find_spec(name) is None
        function = pytest.mark.skipif(missing, reason=f"no {name}")(function)
    return function


@pytest.mark.integration
@_onnx
@pytest.mark.parametrize(
    ("observation", "action", "core"),
    [("tuple", "multi", "lstm"), ("image", "half", "none")],
)
def test_an_onnx_model_equals_the_agent(observation, action, core):
    overrides = dict(_LAST) if core != "none" else {}
    # Pixels, or else the convolutions' sums are so large that 1e-5 is their rounding.
    overrides["network.normalise_observations"] = observation != "image"
    _check(_config(observation, action, core, **overrides), "onnx")


@pytest.mark.integration
@_onnx
def test_an_onnx_model_has_the_action_values():
    _check(_config("masked", "discrete", "none", **_DQN), "onnx")


@pytest.mark.integration
@_onnx
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(_IQN, id="iqn"),
        pytest.param(_QR, id="qr", marks=pytest.mark.slow),
    ],
)
def test_an_onnx_model_has_means_of_quantiles(kind):
    _check(_config("masked", "discrete", "none", **kind), "onnx")


@pytest.mark.integration
@_onnx
@pytest.mark.slow
@pytest.mark.parametrize(("observation", "action", "core"), _CASES)
def test_an_onnx_model_of_every_space(observation, action, core):
    pixels = {"network.normalise_observations": observation != "image"}
    _check(_config(observation, action, core, **_LAST, **pixels), "onnx")


# The command.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a training of two updates, on nested spaces with an LSTM."""
    path = str(tmp_path_factory.mktemp("run"))
    settings = {"runtime.mode": "lockstep", "total_agent_steps": 60}
    settings |= {"evaluation.episodes": 2, "network.last_action": True}
    program.train(_config("dict", "tuple", "lstm", **settings), path)
    return path


_ALONE = """
import json, sys
sys.modules["impala_mp"] = None  # any import of it fails
import torch

policy = torch.export.load(sys.argv[1]).module()
with open(sys.argv[1] + ".json") as file:
    layout = json.load(file)
inputs = {
    name: torch.zeros([5, *leaf["shape"][1:]], dtype=getattr(torch, leaf["dtype"]))
    for name, leaf in layout["inputs"].items()
}
inputs["observation/mode"] += 1
inputs["first"] |= True
for _ in range(3):
    outputs = policy(inputs)
    for name, leaf in layout["outputs"].items():
        assert outputs[name].dtype == getattr(torch, leaf["dtype"]), name
        assert list(outputs[name].shape) == [5, *leaf["shape"][1:]], name
    for output, name in layout["core_state"]["next"].items():
        inputs[name] = outputs[output]
    inputs["first"] &= False
print(*layout["inputs"], "->", *layout["outputs"])
"""


@pytest.mark.integration
def test_a_file_stands_alone_and_is_described(run):
    done = _call("-m", "impala_mp.cli.export", run)
    path, description = done.stdout.split()
    assert path == os.path.join(run, "policy.pt2"), done.stderr
    done = _call("-W", "ignore", "-c", _ALONE, path)
    observation = [f"observation/{x}" for x in ("arm/0", "arm/1", "gears", "mode")]
    state = [f"core_state/{i}" for i in range(4)]
    expected = [*observation, "first", *state, "->"]
    expected += ["action/0", "action/1", "policy_logits", "baseline"]
    expected += [f"next_{name}" for name in state]
    assert done.stdout.split() == expected, done.stderr
    with open(description) as file:
        origin = json.load(file)["run"]
    assert origin["environment"]["kwargs"] == {"observation": "dict", "action": "tuple"}
    assert (origin["agent_steps"], origin["updates"]) == (60, 2)


def _call(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.integration
@_onnx
def test_an_onnx_file_names_its_inputs_and_rows(run, tmp_path):
    path, _ = export.export(run, "onnx", str(tmp_path / "mine.onnx"))
    assert sorted(os.listdir(tmp_path)) == ["mine.onnx", "mine.onnx.json"]
    session = importlib.import_module("onnxruntime").InferenceSession(path)
    leaves = {leaf.name: leaf for leaf in session.get_inputs()}
    assert leaves["observation/arm/1"].shape == ["N", 2]
    assert leaves["first"].type == "tensor(bool)"
    assert "next_core_state/3" in {leaf.name for leaf in session.get_outputs()}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "one folder is required, but none is given. Use: impala-export DIR"),
        (["a", "b"], "not 'a', 'b'"),
        (["a", "--format=tf"], "should be one of <torch|onnx>"),
    ],
)
def test_bad_flags_are_a_sentence(arguments, sentence):
    done = _call("-m", "impala_mp.cli.export", *arguments)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (None, "nowhere has no config.json"),
        ("policy.onnx", "Use a name that ends in .pt2"),
        ("nowhere/policy.pt2", "there is no folder nowhere"),
    ],
)
def test_files_and_folders_that_are_not_there(output, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        export.export("nowhere", "torch", output)


def test_a_run_without_a_checkpoint_is_refused(run, tmp_path):
    shutil.copy(os.path.join(run, "config.json"), tmp_path)
    with pytest.raises(errors.BadInput, match="has no checkpoint yet"):
        export.export(str(tmp_path), "torch", None)


def test_a_missing_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        errors.BadInput, match=r"\(onnxscript\)\. Run pip install 'impala_mp"
    ):
        export.export(run, "onnx", None)


class _Torso(torch.nn.Module):
    """With one fault that no file can hold."""

    def __init__(self, fault):
        super().__init__()
        self._fault = fault
        self.layer = torch.nn.Linear(3, 4)
        self.dropout = torch.nn.Dropout(0.5 if fault == "dropout" else 0.0)

    def forward(self, observation):
        features = self.layer(observation)
        if self._fault == "branches" and bool(features.sum() > 0.0):
            features = -features
        if self._fault == "counts":
            return torch.stack([features[i] for i in range(len(features))])
        if self._fault == "random":
            return torch.nn.functional.dropout(features, 0.5)
        return self.dropout(features)


def branches(observation_spec, config):
    return _Torso("branches")


def counts(observation_spec, config):
    return _Torso("counts")


def random(observation_spec, config):
    return _Torso("random")


def dropout(observation_spec, config):
    return _Torso("dropout")


def _train_with(torso, path):
    overrides = {"runtime.mode": "lockstep", "total_agent_steps": 60}
    overrides |= {"evaluation.episodes": 2, "network.normalise_observations": False}
    overrides["network.torso"] = f"{__name__}:{torso}"
    program.train(_config("box", "discrete", "none", **overrides), str(path))


@pytest.mark.integration
def test_layers_for_training_only_are_off(tmp_path):
    _train_with("dropout", tmp_path)
    path, _ = export.export(str(tmp_path), "torch", None)
    policy = torch.export.load(path).module()
    outputs = [policy({"observation": torch.ones(2, 3)}) for _ in range(2)]
    torch.testing.assert_close(*outputs, rtol=0.0, atol=0.0)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("branches", r"data-dependent.*export_test.py:\d+, in forward\)"),
        ("counts", "Constraints violated"),
        ("random", "its policy_logits differs between network and file"),
    ],
)
def test_a_network_that_cannot_be_exported(tmp_path, fault, sentence):
    _train_with(fault, tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(errors.BadInput, match=sentence) as caught:
        export.export(str(tmp_path), "torch", None)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before
