"""Description of what happens between environment and network, a line per array.

It is made from the spec and the config, by the choices that the network is made of.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from impala_mp import nest, specs
from impala_mp.config import derived
from impala_mp.networks import encoders, inputs


class Line(NamedTuple):
    """Description of one array of an observation or an action."""

    subject: str  # "observations", "actions arm/0", ...
    text: str
    concern: str = ""  # why it is hard to learn from, with the cure


def describe(config: Any, environment: specs.EnvironmentSpec) -> list[Line]:
    """Describes every array of observations, then of actions.

    Raises:
      BadInput: the network does not fit the environment.
    """
    mask = config.agent.action_mask_key or environment.action_mask
    by_value = derived.learns_action_values(config)
    whole = environment.observation
    masked = dataclasses.replace(environment, action_mask=mask)
    seen, inside = specs.network_inputs(masked)
    choices = {
        f"{inside}/{path}".strip("/"): choice
        for path, choice in encoders.choices(config.network, seen).items()
    }
    masks, lines = ([mask] if mask else []), []
    own = environment.privileged
    if own:
        by_kind = encoders.by_kind(config.network)
        choices |= {own: encoders.choices(by_kind, nest.at(whole, own))[""]}
    for path, leaf in nest.flatten_with_path(whole):
        subject = f"observations {path}".rstrip()
        line = _observation(subject, leaf, choices.get(path), path in masks)
        if own and path == own:
            line = line._replace(text=f"{line.text[:-1]}, for values alone.")
        lines.append(line)
    lines += [
        Line(f"actions {path}".rstrip(), _action(leaf, by_value))
        for path, leaf in nest.flatten_with_path(environment.action)
    ]
    frames = environment.frames_per_step
    if frames > 1:
        text = f"{frames} frames each, by ale-py; returns are not clipped."
        lines.append(Line("steps", text))
    return lines


def sentences(config: Any, environment: specs.EnvironmentSpec) -> list[str]:
    """Returns the lines of `describe` as sentences, for the start of a run."""
    found = []
    for subject, text, concern in describe(config, environment):
        sentence = f"{subject[0].upper()}{subject[1:]}: {text}"
        found.append(f"{sentence} Warning: {concern}" if concern else sentence)
    return found


def _layout(leaf: specs.ArraySpec) -> str:
    return f"{leaf.dtype} {list(leaf.shape)}"


def _observation(
    subject: str,
    leaf: specs.ArraySpec,
    choice: inputs.Choice | None,
    is_mask: bool,
) -> Line:
    if is_mask:
        return Line(subject, f"{_layout(leaf)}, the action mask; no network input.")
    if choice is None:
        return Line(subject, f"{_layout(leaf)}, unchanged, to the custom torso.")
    steps = ", ".join(_steps(choice))
    text = f"{_layout(leaf)}, {steps}, to the encoder {choice.name}."
    return Line(subject, text, _concern(choice))


def _steps(choice: inputs.Choice) -> list[str]:
    given = choice.given
    if isinstance(given, specs.CategoriesSpec):
        return ["categories, one-hot" if choice.name == "mlp" else "categories"]
    if choice.unchanged:
        return ["unchanged"]
    steps = []
    if choice.image is not None:
        steps.append(_picture(choice.image))
    if given.dtype == np.uint8:
        steps.append(_division(inputs.divisor(given)))
    if choice.normalise:
        steps.append("normalised to mean 0 and variance 1")
    elif given.dtype.kind != "f":
        steps.append("cast to float32")
    else:
        steps.append("values unchanged")
    return steps


def _picture(image: inputs.Picture) -> str:
    height, width, planes = image.spec.shape
    size = f"a picture of {height}x{width} with {planes} planes"
    if len(image.axes) == 2:
        return size
    if len(image.axes) == 4:
        return f"{size}, stacked"
    if image.is_moved:  # the shape decides, and may mislead
        return f"{size}, first (otherwise set config.network.image_layout)"
    return f"{size}, last"


def _division(by: np.ndarray) -> str:
    if by.ndim:
        return f"each element divided by its bound ({by.min():g} to {by.max():g})"
    return f"divided by {float(by):g}" if by != 1.0 else "not divided (its bound is 1)"


def _concern(choice: inputs.Choice) -> str:
    given = choice.given
    is_quantity = not isinstance(given, specs.CategoriesSpec)
    if not is_quantity or choice.normalise or choice.unchanged:
        return ""
    # A bound at the limit of the dtype is none.
    bounds = np.abs(np.array([*given.low, *given.high, 0.0]))
    kind = np.finfo if given.dtype.kind == "f" else np.iinfo
    if given.dtype.kind != "b":
        bounds = bounds[bounds < min(float(kind(given.dtype).max), 3e38)]
    return specs.concern_of_size(given, float(bounds.max()))


def _action(leaf: Any, by_value: bool) -> str:
    if isinstance(leaf, specs.DiscreteSpec):
        shifted = f", from {leaf.start} on" if leaf.start else ""
        way = "the one of the largest value, or any" if by_value else "drawn from a"
        end = " with probability epsilon" if by_value else " categorical"
        return f"one of {leaf.num_actions}{shifted}, {way}{end}."
    if isinstance(leaf, specs.MultiDiscreteSpec):
        return f"{list(leaf.shape)}, each drawn from a categorical."
    if isinstance(leaf, specs.MultiBinarySpec):
        return f"{list(leaf.shape)}, each 0 or 1 by its own probability."
    layout, low, high = (
        f"{leaf.dtype} {list(leaf.shape)}",
        min(leaf.low),
        max(leaf.high),
    )
    if leaf.is_bounded:
        return f"{layout}, tanh of a normal, scaled to {low:g} to {high:g}."
    return (
        f"{layout}, a normal that is not scaled, because a bound of {low:g} to"
        f" {high:g} is missing or as wide as the dtype; clipped to the bounds."
    )
