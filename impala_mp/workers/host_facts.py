"""Versions and layouts that must be equal on the learner's and on an actor host."""

import platform
from collections.abc import Mapping

import torch

import impala_mp
from impala_mp import nest, specs, types
from impala_mp.networks import flat_parameters

Facts = tuple[tuple[str, str], ...]
_OF = " of "  # between a layout and its policy
_LAYOUTS = ("environment", "slot", "parameters")  # the other facts are versions

_CURES = {
    "impala_mp": "Install the same version of impala_mp on all nodes.",
    "torch": "Install the same version of torch on all nodes.",
    "python": "Use the same Python on all nodes.",
    "environment": "Install the same environment on all nodes.",
    "slot": "Install the same code on all nodes.",
    "parameters": "Install the same code of the network on all nodes.",
}


def of(
    environment: specs.EnvironmentSpec,
    slot: types.Trajectory,
    layout: flat_parameters.ParameterLayout,
) -> Facts:
    """Returns versions and layouts; `slot` is of specs or arrays."""
    leaves = [
        f"{path}{list(leaf.shape)} {leaf.dtype}"
        for path, leaf in nest.flatten_with_path(slot)
    ]
    return (
        ("impala_mp", impala_mp.__version__),
        ("python", ".".join(platform.python_version_tuple()[:2])),
        ("torch", str(torch.__version__)),
        ("environment", repr(environment)),
        ("slot", ", ".join(leaves)),
        ("parameters", f"{layout.num_bytes} bytes, {layout.digest[:16]}"),
    )


def of_all(facts: Mapping[str, Facts]) -> Facts:
    """Returns the facts of several policies, given by the policy's name, as one.

    A layout has the name of its policy, unless that is "": there is a single one.
    """
    return tuple(
        {
            f"{fact}{_OF}{name}" if name and fact in _LAYOUTS else fact: value
            for name, own in facts.items()
            for fact, value in own
        }.items()
    )


def difference(here: Facts, there: Facts) -> str:
    """Returns a sentence on the first difference and its cure, or ""."""
    others = dict(there)
    for name, value in here:
        other = others.get(name, "unknown")
        if other != value:
            return (
                f"{name} is {_around(other, value)}, and {_around(value, other)} where"
                f" the learner is. {_CURES[name.partition(_OF)[0]]}"
            )
    return ""


_SHOWN = 60  # characters before and after the first difference


def _around(text: str, other: str) -> str:
    """Returns the part of a long text where it differs from another."""
    pairs = zip(text, other, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    start, end = max(0, first - _SHOWN), first + _SHOWN
    before, after = "..." * (start > 0), "..." * (end < len(text))
    return f"{before}{text[start:end]}{after}" or "missing"
