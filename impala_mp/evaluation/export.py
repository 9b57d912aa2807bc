"""Exports a run's greedy policy as one file that does not need this package."""

import contextlib
import importlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from impala_mp import errors, nest, seeding, specs, types
from impala_mp.config import fields, user_code
from impala_mp.evaluation import saved_run
from impala_mp.networks import agent, cores
from impala_mp.storage import files

Tensors = dict[str, torch.Tensor]


class GreedyPolicy(nn.Module):
    """Module from named inputs [N, ...] to named outputs [N, ...], for any N.

    Inputs, where the agent uses them: `observation`, in the environment's dtype;
    `first`, bool, True at the start of an episode; `reward`, float32, of the step that
    led here, 0 at the first; `core_state/0` and so on. Outputs: `action`, as the
    environment takes it; `policy_logits`, or `q_values` of action values; `baseline`,
    unless it depends on more than the policy; `next_core_state/0` and so on. Each leaf
    of a nested observation or action has a name with its path, such as
    `observation/arm/0`. Values are in units of reward.
    """

    def __init__(
        self,
        policy: agent.Agent,
        environment: specs.EnvironmentSpec,
        restore: saved_run.Restorer = lambda values: values,
    ) -> None:
        """`restore` gives the agent's values in units of reward."""
        super().__init__()
        self._restore = restore
        self.network = policy.network
        self._policy, self.outputs_name = policy, policy.outputs_name
        self._observation = environment.observation
        self._has_value = not environment.privileged
        if environment.privileged:
            self._observation = nest.without(self._observation, environment.privileged)
        self._to_environment = specs.to_environment(environment.action)
        state = policy.core_state_spec()
        self._state = [f"core_state/{i}" for i in range(len(state))]
        self.inputs = dict(_named("observation", self._observation))
        if policy.network.last_action or not isinstance(
            policy.network.core, cores.NoCore
        ):
            self.inputs["first"] = specs.array_spec((), np.bool_)
        if policy.network.last_reward:
            self.inputs["reward"] = specs.array_spec((), np.float32)
        self.inputs.update(zip(self._state, state, strict=True))
        self.carried = {f"next_{name}": name for name in self._state}  # output: input

    def forward(self, inputs: Tensors) -> Tensors:
        """Returns greedy action, outputs, baseline and next core state of each row."""
        policy, state = self._policy, tuple(inputs[name] for name in self._state)
        time_step = self._time_step(inputs)
        values = {}
        if self._has_value:
            outputs, baseline, core = policy.look(time_step, state)
            values["baseline"] = self._restore(baseline)
        else:
            outputs, core = policy.look_for_policy(time_step, state)
        action = policy.distribution.mode(outputs)  # of values, too, the largest
        state = policy.remember(time_step, action, core)
        return {
            **dict(_named("action", self._to_environment(action))),
            self.outputs_name: self._restore(outputs),
            **values,
            **dict(zip(self.carried, state, strict=True)),
        }

    def _time_step(self, inputs: Tensors) -> types.TimeStep:
        leaves = [inputs[name] for name, _ in _named("observation", self._observation)]
        upcoming = iter(leaves)
        rows = leaves[0].shape[0]
        first = inputs.get("first", torch.zeros(rows, dtype=torch.bool))
        return types.TimeStep(
            step_type=torch.where(first, types.StepType.FIRST, types.StepType.MID),
            reward=inputs.get("reward", torch.zeros(rows)),
            discount=torch.ones(rows),
            observation=nest.map_structure(
                lambda spec: next(upcoming), self._observation
            ),
        )

    def rows(self, time_step: types.TimeStep, state: cores.CoreState) -> Tensors:
        """Returns `time_step` [N, ...] and `state` as named inputs."""
        there = {
            **dict(_named("observation", time_step.observation)),
            "first": time_step.step_type == types.StepType.FIRST,
            "reward": time_step.reward,
            **dict(zip(self._state, state, strict=True)),
        }
        return {name: there[name] for name in self.inputs}


def _named(prefix: str, structure: types.Nest) -> list[tuple[str, Any]]:
    """Returns (name, leaf) for each leaf."""
    return [
        (f"{prefix}/{path}" if path else prefix, leaf)
        for path, leaf in nest.flatten_with_path(structure)
    ]


_ROWS = 3  # of the example; torch treats 0 and 1 as constants
_BATCH = "N"
_Function = Callable[[Tensors], Tensors]
_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def export(
    path: str,
    format_name: str,
    output: str | None,
    trust: bool = False,
    which: str | int = "newest",
    name: str = "",
) -> list[str]:
    """Writes the policy of the run in `path`, and a JSON description beside it.

    Args:
      format_name: one of FORMATS.
      output: a file; None: `policy`, or `name`, in the run's folder.
      trust: True loads code that this user has not trained.
      which: newest, best, or the update of a checkpoint.
      name: of the policy, if there are several.

    Returns:
      The paths of the two files.

    Raises:
      BadInput: something is missing, or the network cannot be exported.
    """
    make, load, ending = FORMATS[format_name]
    if output:
        _check_output(output, ending)
    if format_name == "onnx":
        _check_extra()
    run = saved_run.SavedRun(path, trust, which=which, policy=name)
    policy, inputs = _policy_and_rows(run)
    with _silence():
        data = _made(make, policy, inputs)
        _check_equal(policy(inputs), load(data)(inputs), policy.outputs_name)
    description = describe(policy, inputs)
    description["run"] = _origin(run, format_name)
    output = output or os.path.join(path, f"{name or 'policy'}{ending}")
    text = json.dumps(description, indent=2)
    try:
        files.write_atomically(output, data)
        files.write_atomically(f"{output}.json", f"{text}\n")
    except OSError as error:
        raise errors.BadInput(
            f"{output} cannot be written ({error}). Choose another --output."
        ) from error
    finally:
        files.remove_stale(os.path.dirname(output) or ".")
    return [output, f"{output}.json"]


def _check_output(output: str, ending: str) -> None:
    folder = os.path.dirname(output) or "."
    if not output.endswith(ending):
        raise errors.BadInput(
            f"--output={output} has the wrong ending. Use a name that ends in {ending}."
        )
    if not os.path.isdir(folder):
        raise errors.BadInput(
            f"--output={output}: there is no folder {folder}. Create it, or choose"
            " another."
        )


def _check_extra() -> None:
    for name in _EXTRA:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise errors.BadInput(
                f"--format=onnx needs a package that is not installed ({name}). Run"
                " pip install 'impala_mp[onnx]'."
            ) from error


def _policy_and_rows(
    run: saved_run.SavedRun,
) -> tuple[GreedyPolicy, Tensors]:
    """Returns the module to export, and its inputs at the start of some episodes."""
    environment = run.environment(_ROWS * run.num_players)
    try:
        policy = run.agent()
        seeds = seeding.environment_seeds(run.seed(), environment.num_envs)
        rows = environment.split(nest.tensors(environment.reset(seeds)))
    finally:
        environment.close()
    several = len(environment.policies) > 1
    number = environment.policies.index(*run.policies) if several else 0
    (config,) = run.configs()
    restore = saved_run.restorer(config)
    module = GreedyPolicy(policy, environment.specs[number], restore)
    module.eval().requires_grad_(False)
    count = environment.num_columns[number]
    return module, module.rows(rows[number], policy.initial_state(count))


def _made(
    make: Callable[..., bytes],
    policy: GreedyPolicy,
    inputs: Tensors,
) -> bytes:
    """Returns the bytes that `make` creates.

    Raises:
      BadInput: torch cannot trace the network; with torch's reason and the place.
    """
    try:
        return make(policy, inputs)
    except Exception as error:  # the user's network runs, under torch's tracer
        raise errors.BadInput(
            f"the network cannot be exported: {_first_line(error)}"
            f"{user_code.where(error)}. A custom torso or core must not branch on"
            " tensor values and must accept any number of rows."
        ) from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppresses the logs and warnings of torch's exporter."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no reason'}"


def _check_equal(expected: Tensors, found: Tensors, outputs_name: str) -> None:
    """Compares outputs and baseline; not actions, because a tie may go either way.

    Raises:
      BadInput: the file computes something else than the network.
    """
    for name in (n for n in (outputs_name, "baseline") if n in expected):
        try:
            torch.testing.assert_close(
                found[name], expected[name], rtol=1e-3, atol=1e-3
            )
        except AssertionError as error:
            raise errors.BadInput(
                f"the network cannot be exported: its {name} differs between network"
                " and file. It must be the same in each call, and must depend on"
                " inputs and parameters only."
            ) from error


# The formats.


def program(policy: GreedyPolicy, inputs: Tensors) -> torch.export.ExportedProgram:
    """Traces the policy for any number of rows, with `inputs` as an example."""
    rows = torch.export.Dim(_BATCH, min=1)
    shapes = {name: {0: rows} for name in inputs}
    return torch.export.export(policy, (inputs,), dynamic_shapes=(shapes,))


def to_torch(policy: GreedyPolicy, inputs: Tensors) -> bytes:
    """Returns a file for torch.export.load; its program maps a dict to a dict."""
    buffer = io.BytesIO()
    torch.export.save(program(policy, inputs), buffer)
    return buffer.getvalue()


def from_torch(data: bytes) -> _Function:
    """Loads a file of `to_torch` as a function."""
    return torch.export.load(io.BytesIO(data)).module()


def to_onnx(policy: GreedyPolicy, inputs: Tensors) -> bytes:
    """Returns an ONNX model with the policy's names, parameters included."""
    made: Any = torch.onnx.export(
        program(policy, inputs),
        input_names=list(inputs),
        output_names=list(policy(inputs)),
        dynamo=True,
        verbose=False,
    )
    model = made.model_proto
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    rows = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for size in (size for v in values for size in v.type.tensor_type.shape.dim):
        if size.dim_param == rows:
            size.dim_param = _BATCH
    return model.SerializeToString()


def from_onnx(data: bytes) -> _Function:
    """Loads a file of `to_onnx` as a function."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def compute(inputs: Tensors) -> Tensors:
        arrays = session.run(names, {name: x.numpy() for name, x in inputs.items()})
        return {n: torch.from_numpy(x) for n, x in zip(names, arrays, strict=True)}

    return compute


FORMATS = {
    "torch": (to_torch, from_torch, ".pt2"),
    "onnx": (to_onnx, from_onnx, ".onnx"),
}


# The description.


def describe(policy: GreedyPolicy, inputs: Tensors) -> dict[str, Any]:
    """Returns names, dtypes and shapes of inputs and outputs, and the use of state."""
    outputs = policy(inputs)
    return {
        "inputs": {name: _layout(leaf) for name, leaf in inputs.items()},
        "outputs": {name: _layout(leaf) for name, leaf in outputs.items()},
        "core_state": {
            "initial": "zeros, in every input core_state/i",
            "next": policy.carried,
            "how": "feed each output next_core_state/i to the input core_state/i of"
            " the next step; first is true in the first step of every episode",
        }
        if policy.carried
        else None,
    }


def _layout(leaf: torch.Tensor) -> dict[str, Any]:
    dtype = str(leaf.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": [_BATCH, *leaf.shape[1:]]}


def _origin(run: saved_run.SavedRun, format_name: str) -> dict[str, Any]:
    return {
        "environment": json.loads(fields.to_json(run.config))["environment"],
        "agent_steps": run.agent_steps,
        "updates": run.updates,
        "format": format_name,
        "torch": torch.__version__,
    }
