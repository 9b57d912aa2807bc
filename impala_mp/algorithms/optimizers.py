"""Optimizers on one flat vector, whose steps can be gated on the device.

`finite` is a float32 scalar tensor, 1 or 0. With 0 neither the parameters nor the state
change, and the host does not have to decide.
"""

from typing import Protocol

import torch

State = dict[str, torch.Tensor]


class Optimizer(Protocol):
    """Optimizer that changes `parameters` in place."""

    state: State

    def step(
        self, gradient: torch.Tensor, learning_rate: torch.Tensor, finite: torch.Tensor
    ) -> None:
        """Makes one step.

        Args:
          gradient: of all parameters, without NaN.
          learning_rate: a scalar on the device.
          finite: a scalar, 0 or 1; with 0 nothing changes.
        """


class RMSProp:
    """RMSProp without centring (Tieleman and Hinton 2012), in two dialects.

    TensorFlow's, which IMPALA used, divides by sqrt(mean square + epsilon), from a mean
    square of 1. torch's divides by sqrt(mean square) + epsilon, from 0: its first
    updates are up to ten times larger.
    """

    def __init__(
        self,
        parameters: torch.Tensor,
        *,
        decay: float,
        momentum: float,
        epsilon: float,
        tensorflow: bool,
    ) -> None:
        self._parameters = parameters
        self._decay, self._momentum, self._epsilon = decay, momentum, epsilon
        self._tensorflow = tensorflow
        start = parameters.new_ones if tensorflow else parameters.new_zeros
        self.state: State = {"mean_square": start(parameters.shape)}
        if momentum:
            self.state["momentum"] = parameters.new_zeros(parameters.shape)

    def step(
        self, gradient: torch.Tensor, learning_rate: torch.Tensor, finite: torch.Tensor
    ) -> None:
        mean_square = self.state["mean_square"]
        mean_square.lerp_(gradient * gradient, finite * (1.0 - self._decay))
        if self._tensorflow:
            direction = gradient * (mean_square + self._epsilon).rsqrt_()
        else:
            direction = gradient / (mean_square.sqrt() + self._epsilon)
        if self._momentum:
            # TensorFlow multiplies by the learning rate before, torch after. With a
            # slow schedule they agree, and one rule serves both.
            moving = self.state["momentum"]
            moving.lerp_(self._momentum * moving + direction, finite)
            direction = moving * finite
        self._parameters.sub_(direction.mul_(learning_rate))


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), with bias correction."""

    def __init__(
        self, parameters: torch.Tensor, *, beta1: float, beta2: float, epsilon: float
    ) -> None:
        self._parameters = parameters
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        # zeros_like would import sympy, on the meta device.
        self.state: State = {
            "first_moment": parameters.new_zeros(parameters.shape),
            "second_moment": parameters.new_zeros(parameters.shape),
            "steps": torch.zeros((), device=parameters.device),
        }

    def step(
        self, gradient: torch.Tensor, learning_rate: torch.Tensor, finite: torch.Tensor
    ) -> None:
        first, second = self.state["first_moment"], self.state["second_moment"]
        first.lerp_(gradient, finite * (1.0 - self._beta1))
        second.lerp_(gradient * gradient, finite * (1.0 - self._beta2))
        steps = self.state["steps"].add_(finite).clamp(min=1.0)
        scale = finite * learning_rate / (1.0 - self._beta1**steps)
        root = (second / (1.0 - self._beta2**steps)).sqrt_().add_(self._epsilon)
        self._parameters.sub_(first / root * scale)


def make(settings, parameters: torch.Tensor) -> Optimizer:  # type: ignore[no-untyped-def]
    """Makes the optimizer that `config.optimizer` names, over a flat vector."""
    if settings.name == "adam":
        return Adam(
            parameters,
            beta1=settings.momentum,
            beta2=settings.decay,
            epsilon=settings.epsilon,
        )
    return RMSProp(
        parameters,
        decay=settings.decay,
        momentum=settings.momentum,
        epsilon=settings.epsilon,
        tensorflow=settings.name == "rmsprop_tensorflow",
    )
