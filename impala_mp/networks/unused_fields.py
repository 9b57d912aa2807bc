"""Fields of `config.network` that no encoder of a run reads."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from impala_mp import errors, nest, specs, types
from impala_mp.config import base
from impala_mp.networks import encoders, inputs

Encoded = tuple[types.Nest, list[inputs.Choice]]  # an observation, and its encoders


def _has_several_arrays(encoded: Encoded) -> bool:
    return not isinstance(encoded[0], specs.ArraySpec)


def _has_planes(encoded: Encoded) -> bool:
    images = [choice.image for choice in encoded[1]]
    return any(image is not None and len(image.axes) > 2 for image in images)


# By field: whether it is read, and what it needs.
_READERS: dict[str, tuple[Callable[[Encoded], bool], str]] = {
    "joint_size": (_has_several_arrays, "observations of several arrays"),
    "image_layout": (_has_planes, "pictures with planes, and an encoder of them"),
}


def check(networks: Sequence[tuple[Any, specs.EnvironmentSpec]]) -> None:
    """Refuses changed values that would have no effect in any network of a run.

    Args:
      networks: `config.network` and the environment of each policy.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    default = base.get_base_config().network
    for field, (is_read, needed) in _READERS.items():
        changed = [each for each in networks if each[0][field] != default[field]]
        if changed and not any(_reads(is_read, *each) for each in changed):
            value = changed[0][0][field]
            raise errors.BadInput(
                f"network.{field} ({value!r}) has no effect without {needed}. Leave"
                f" config.network.{field} at {default[field]!r}."
            )


def _reads(
    is_read: Callable[[Encoded], bool],
    settings: Any,
    environment: specs.EnvironmentSpec,
) -> bool:
    """Returns whether a network reads a field; a module of the user's may."""
    for own, observation in _encoded(settings, environment):
        if ":" in own.torso:
            return True
        choices = list(encoders.choices(own, observation).values())
        if any(":" in choice.name for choice in choices):
            return True
        if is_read((observation, choices)):
            return True
    return False


def _encoded(
    settings: Any, environment: specs.EnvironmentSpec
) -> Iterator[tuple[Any, types.Nest]]:
    """Yields the settings of each encoder, and what it encodes."""
    yield settings, specs.network_inputs(environment)[0]
    if environment.privileged:
        privileged = nest.at(environment.observation, environment.privileged)
        yield encoders.by_kind(settings), privileged
