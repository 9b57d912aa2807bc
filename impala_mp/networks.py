"""Torsos (observation to features), and the network from torso to heads."""

from typing import Any

import numpy as np
import torch
from torch import nn

from impala_mp import (
    cores,
    distributions,
    errors,
    factories,
    initialisers,
    popart,
    specs,
    types,
)


def to_float(observation: torch.Tensor) -> torch.Tensor:
    """float32; bytes are pixels, and become [0, 1]."""
    if observation.dtype == torch.uint8:
        return observation.float() / 255.0
    return observation.float()


class MLP(nn.Sequential):
    """Flattened observation, then tanh layers."""

    def __init__(self, observation: specs.ArraySpec, hidden_sizes: tuple[int, ...]):
        size = 1
        for n in observation.shape:
            size *= n
        layers: list[nn.Module] = []
        for hidden in hidden_sizes:
            layers += [nn.Linear(size, hidden), nn.Tanh()]
            size = hidden
        super().__init__(*layers)
        initialisers.orthogonal(self)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return super().forward(to_float(observation).flatten(1))


class ConvTorso(nn.Module):
    """Convolutions over images [N, H, W, C], then one fully connected layer."""

    def __init__(
        self, observation: specs.ArraySpec, convolutions: nn.Module, size: int
    ) -> None:
        super().__init__()
        self.convolutions = convolutions
        height, width, channels = observation.shape
        with torch.no_grad():
            probe = torch.zeros(1, channels, height, width)
            num_features = convolutions(probe).numel()
        self.output = nn.Sequential(nn.Linear(num_features, size), nn.ReLU())
        initialisers.orthogonal(self)
        # NHWC in memory from slot to kernel: on a CPU 2.4 times faster, and what
        # tensor cores want.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        images = to_float(observation).permute(0, 3, 1, 2)
        return self.output(self.convolutions(images).flatten(1))


def _stack(channels: int, *layers: tuple[int, int, int]) -> nn.Sequential:
    """Convolutions of (channels, kernel, stride), each with a ReLU."""
    modules: list[nn.Module] = []
    for out, kernel, stride in layers:
        modules += [nn.Conv2d(channels, out, kernel, stride), nn.ReLU(inplace=True)]
        channels = out
    return nn.Sequential(*modules)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def _residual_stack(channels: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for out in (16, 32, 32):
        modules += [
            nn.Conv2d(channels, out, 3, padding=1),
            nn.MaxPool2d(3, 2, padding=1),
            _ResidualBlock(out),
            _ResidualBlock(out),
        ]
        channels = out
    return nn.Sequential(*modules, nn.ReLU())


# Smallest side of an image that the convolutions leave anything of.
_MINIMUM_SIDE = {"minatar": 3, "shallow": 20, "nature": 36, "deep": 1}


def _convolutions(name: str, channels: int) -> tuple[nn.Module, int]:
    """The convolutions of a torso, and the width of its last layer."""
    if name == "minatar":  # Young and Tian 2019, section 3
        return _stack(channels, (16, 3, 1)), 128
    if name == "shallow":  # IMPALA, figure 3, left
        return _stack(channels, (16, 8, 4), (32, 4, 2)), 256
    if name == "nature":  # Mnih et al. 2015
        return _stack(channels, (32, 8, 4), (64, 4, 2), (64, 3, 1)), 512
    return _residual_stack(channels), 256  # IMPALA, figure 3, right


def _conv_torso(name: str, observation: specs.ArraySpec) -> nn.Module:
    shape, side = observation.shape, _MINIMUM_SIDE[name]
    if len(shape) != 3 or min(shape[:2]) < side:
        raise errors.BadInput(
            f"network.torso ({name!r}) needs images [height, width, channels] of at"
            f" least {side}x{side}, but observations are {list(shape)}: set"
            " config.network.torso to mlp, or to one that fits."
        )
    return ConvTorso(observation, *_convolutions(name, shape[2]))


def make_torso(config: Any, observation: types.Nest) -> nn.Module:
    """The torso that `config.network` names: observations [N, ...] to [N, F].

    Raises:
      BadInput: no such torso, or it does not fit the observation.
    """
    name = config.torso
    if ":" in name:
        factory = factories.load(
            "network.torso", name, "(observation_spec, config) -> Module"
        )
        return factory(observation, config)
    if name == "mlp":
        return MLP(observation, tuple(config.hidden_sizes))
    if name in _MINIMUM_SIDE:
        return _conv_torso(name, observation)
    raise errors.BadInput(
        f"network.torso ({name!r}) must be mlp, {', '.join(_MINIMUM_SIDE)} or"
        " module:factory: set config.network.torso."
    )


class Network(nn.Module):
    """Torso, optional last reward and action, core, and the two heads."""

    def __init__(
        self,
        config: Any,
        environment: specs.EnvironmentSpec,
        distribution: distributions.ActionDistribution,
        *,
        with_popart: bool = False,
    ) -> None:
        super().__init__()
        self._distribution = distribution
        self.last_reward, self.last_action = config.last_reward, config.last_action
        self.torso = make_torso(config, environment.observation)
        size = self._torso_features(environment.observation)
        size += int(self.last_reward) + self.last_action * distribution.encoding_size
        self.core = cores.make(config, size)
        size = self.core.output_size
        self.policy = initialisers.orthogonal(
            nn.Linear(size, distribution.num_logits), 0.01
        )
        head = popart.PopArtHead(size) if with_popart else nn.Linear(size, 1)
        self.baseline = initialisers.orthogonal(head, 1.0)

    def _torso_features(self, observation: specs.ArraySpec) -> int:
        zeros = np.zeros((1, *observation.shape), observation.dtype)
        with torch.no_grad():
            output = self.torso(torch.from_numpy(zeros))
        if output.dim() != 2 or output.shape[0] != 1:
            raise errors.BadInput(
                f"the torso maps [1, ...] to {list(output.shape)}, not to"
                " [1, features]: flatten its output."
            )
        return output.shape[1]

    def forward(
        self,
        time_step: types.TimeStep,
        last_action: torch.Tensor,
        state: cores.CoreState,
    ) -> tuple[torch.Tensor, torch.Tensor, cores.CoreState]:
        """[T, B, ...] -> policy_logits [T, B, L], baseline [T, B], core state."""
        first = time_step.step_type == types.StepType.FIRST
        rows, batch = first.shape
        features = self.torso(time_step.observation.flatten(0, 1))
        inputs = [features.view(rows, batch, -1)]
        if self.last_reward:
            inputs.append(time_step.reward.clamp(-1.0, 1.0).unsqueeze(-1))
        if self.last_action:
            encoded = self._distribution.encode(last_action)
            inputs.append(encoded * (~first).unsqueeze(-1))
        merged = torch.cat(inputs, -1) if len(inputs) > 1 else inputs[0]
        output, state = self.core(merged, first, state)
        return self.policy(output), self.baseline(output).squeeze(-1), state
