"""Torsos: the MLP and the convolutional networks of the papers."""

import torch
from torch import nn

from impala_mp import errors, specs
from impala_mp.networks import activations, initialisers, linear


class MLP(nn.Sequential):
    """Tanh layers over inputs that are flattened to `size` numbers."""

    def __init__(
        self, size: int, hidden_sizes: tuple[int, ...], layer_norm: bool = False
    ) -> None:
        layers: list[nn.Module] = []
        for hidden in hidden_sizes:
            norm = [nn.LayerNorm(hidden)] if layer_norm else []
            layers += [linear.Linear(size, hidden), *norm, activations.Tanh()]
            size = hidden
        super().__init__(*layers)
        initialisers.orthogonal(self)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        # Not len(): torch.export would treat it as a constant.
        return super().forward(numbers.reshape(numbers.shape[0], -1))


class _ConvEncoder(nn.Module):
    """Convolutions over images [N, H, W, C], then one fully connected layer."""

    def __init__(
        self,
        spec: specs.ArraySpec,
        convolutions: nn.Module,
        size: int,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        self.convolutions = convolutions
        height, width, channels = spec.shape
        with torch.no_grad():
            probe = torch.zeros(1, channels, height, width)
            num_features = convolutions(probe).numel()
        norm = [nn.LayerNorm(size)] if layer_norm else []
        self.output = nn.Sequential(linear.Linear(num_features, size), *norm, nn.ReLU())
        initialisers.orthogonal(self)
        # NHWC in memory from slot to kernel: 2.4 times faster on a CPU, and the layout
        # for tensor cores.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        planes = self.convolutions(observation.permute(0, 3, 1, 2))
        if torch.is_grad_enabled() and planes.requires_grad:
            return self._learned_output(planes)
        features: torch.Tensor = self.output(planes.flatten(1))
        return features

    def _learned_output(self, planes: torch.Tensor) -> torch.Tensor:
        """Computes `output` with another order of the weights, faster to learn from.

        Planes are NHWC in memory. Flattened as NCHW they are copied, and gradients of
        both layouts meet in the ReLU before, which is slow on a CPU.
        """
        first: nn.Linear
        first, *others = self.output  # type: ignore[assignment]
        weight = first.weight.unflatten(1, (planes.shape[1], -1)).transpose(1, 2)
        flat = planes.permute(0, 2, 3, 1).flatten(1)
        features = linear.linear(flat, weight.flatten(1), first.bias)
        for layer in others:
            features = layer(features)
        return features


def _stack(
    channels: int, layer_norm: bool, *layers: tuple[int, int, int]
) -> nn.Sequential:
    """Returns convolutions of (channels, kernel, stride), each with a ReLU."""
    modules: list[nn.Module] = []
    for out, kernel, stride in layers:
        # One group: all planes and pixels of a picture, with a weight a plane.
        norm = [nn.GroupNorm(1, out)] if layer_norm else []
        convolution = nn.Conv2d(channels, out, kernel, stride)
        modules += [convolution, *norm, nn.ReLU(inplace=True)]
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


# Smallest side of an image for which the convolutions have any output.
MINIMUM_SIDE = {"minatar": 3, "shallow": 20, "nature": 36, "deep": 1}


def _convolutions(name: str, channels: int, norm: bool) -> tuple[nn.Module, int]:
    """Returns the convolutions of a torso, and the width of its last layer."""
    if name == "minatar":  # Young and Tian 2019, section 3
        return _stack(channels, norm, (16, 3, 1)), 128
    if name == "shallow":  # IMPALA, figure 3, left
        return _stack(channels, norm, (16, 8, 4), (32, 4, 2)), 256
    if name == "nature":  # Mnih et al. 2015
        return _stack(channels, norm, (32, 8, 4), (64, 4, 2), (64, 3, 1)), 512
    return _residual_stack(channels), 256  # IMPALA, figure 3, right


def conv_encoder(
    field: str, name: str, spec: specs.ArraySpec, layer_norm: bool = False
) -> nn.Module:
    """Makes the convolutional encoder `name`, from `field` of the config.

    Raises:
      BadInput: the observations do not fit it, or it has no layer norm.
    """
    shape, side = spec.shape, MINIMUM_SIDE[name]
    is_image = len(shape) == 3 and not isinstance(spec, specs.CategoriesSpec)
    if not is_image or min(shape[:2]) < side:
        raise errors.BadInput(
            f"{field} ({name!r}) does not fit observations {list(shape)}. It needs"
            f" images [height, width, channels] of at least {side}x{side}. Set"
            f" config.{field} to mlp, or to one that fits."
        )
    if layer_norm and name == "deep":
        raise errors.BadInput(
            "network.layer_norm has no place in the deep network. Set"
            f" config.network.layer_norm=False, or config.{field} to nature."
        )
    convolutions, size = _convolutions(name, shape[2], layer_norm)
    return _ConvEncoder(spec, convolutions, size, layer_norm)
