"""Encoders: maps from one leaf of an observation, or from all leaves, to features."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from impala_mp import errors, nest, specs, types
from impala_mp.config import user_code
from impala_mp.networks import initialisers, inputs, linear, torsos

_SIGNATURE = "(observation_spec, config) -> Module"


def _as_it_is(observation: torch.Tensor) -> torch.Tensor:
    return observation


class _Categories(nn.Module):
    """Indices into the values of all elements, counted from 0: int64 [N, n]."""

    _offsets: torch.Tensor

    def __init__(self, spec: specs.CategoriesSpec) -> None:
        super().__init__()
        before = list(itertools.accumulate(spec.num_values, initial=0))[:-1]
        offsets = torch.tensor(before) - torch.tensor(spec.start)
        self.register_buffer("_offsets", offsets, persistent=False)
        self.num_elements, self.num_values = len(before), sum(spec.num_values)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        elements = observation.long().reshape(observation.shape[0], self.num_elements)
        return elements + self._offsets


class _OneHot(_Categories):
    """One-hot vectors of all elements: float32 [N, all values]."""

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        indices = super().forward(observation)
        zeros = torch.zeros(
            indices.shape[0],
            self.num_values,
            device=indices.device,
            dtype=torch.float32,
        )
        return zeros.scatter(1, indices, 1.0)


class _Embedding(_Categories):
    """Separate vectors for each value of each element, concatenated: [N, n * size]."""

    def __init__(self, spec: specs.CategoriesSpec, size: int) -> None:
        super().__init__(spec)
        self.table = nn.Embedding(self.num_values, size)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.table(super().forward(observation))
        return embedded.flatten(1)


_EMBEDDING_SIZE = 16


def _make_leaf(
    field: str, name: str, spec: specs.ArraySpec, settings: Any
) -> nn.Module:
    """Makes the encoder `name`, from `field` of the config, of numbers [N, ...]."""
    if ":" in name:
        return _made_by_user(field, name, spec, settings)
    if name == "embedding" and isinstance(spec, specs.CategoriesSpec):
        return _Embedding(spec, _EMBEDDING_SIZE)
    if name == "mlp":
        sizes = tuple(settings.hidden_sizes)
        return torsos.MLP(inputs.num_inputs(spec), sizes, settings.layer_norm)
    if name in torsos.MINIMUM_SIDE:
        return torsos.conv_encoder(field, name, spec, settings.layer_norm)
    raise errors.BadInput(
        f"{field} ({name!r}) is no encoder of this array. It must be auto, mlp,"
        f" {', '.join(torsos.MINIMUM_SIDE)}, embedding (of categories) or"
        f" module:factory. Set config.{field}."
    )


def default(spec: specs.ArraySpec, layout: str = "auto") -> str:
    """Returns the default encoder of a leaf, by its kind and the pictures' layout."""
    if isinstance(spec, specs.CategoriesSpec):
        return "embedding"
    image = inputs.picture(spec, layout)
    side = 0 if image is None else min(image.spec.shape[:2])
    if side < torsos.MINIMUM_SIDE["minatar"]:
        return "mlp"
    return "nature" if side >= torsos.MINIMUM_SIDE["nature"] else "minatar"


def choose(name: str, spec: specs.ArraySpec, settings: Any) -> inputs.Choice:
    """Chooses the encoder of one array, and what happens before it.

    Args:
      name: the encoder in the config: auto, a name or module:factory.
      settings: `config.network`.
    """
    layout, image = settings.image_layout, None
    if name == "auto":
        name = default(spec, layout)
        image = inputs.picture(spec, layout)
    elif name in torsos.MINIMUM_SIDE:
        image = inputs.picture(spec, layout, is_wanted=True)
    if name not in torsos.MINIMUM_SIDE:
        image = None
    is_categories = isinstance(spec, specs.CategoriesSpec)
    normalise = bool(settings.normalise_observations) and not is_categories
    return inputs.Choice(
        name,
        given=spec,
        spec=image.spec if image else spec,
        image=image,
        normalise=normalise,
        unchanged=":" in name and not normalise,
    )


def choices(settings: Any, spec: types.Nest) -> dict[str, inputs.Choice]:
    """Returns what happens to each array, by its path; {} for a custom torso.

    Raises:
      BadInput: `config.network` does not fit the observation.
    """
    if ":" in settings.torso:
        return {}
    leaves = dict(nest.flatten_with_path(spec))
    is_single = isinstance(spec, specs.ArraySpec)
    if not is_single and settings.torso != "auto":
        raise errors.BadInput(
            f"network.torso ({settings.torso!r}) takes a single array. The observations"
            f" have {', '.join(leaves)}. Set"
            " config.network.torso=auto and config.network.encoders for each."
        )
    _check_paths(settings.encoders, list(leaves))
    names = {
        path: settings.encoders.get(path, "auto") if path else settings.torso
        for path in leaves
    }
    return {path: choose(names[path], leaf, settings) for path, leaf in leaves.items()}


def _inputs(choice: inputs.Choice) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns a map from the environment's dtype to the input of the encoder."""
    if isinstance(choice.given, specs.CategoriesSpec):
        return _OneHot(choice.given) if choice.name == "mlp" else _as_it_is
    return _as_it_is if choice.unchanged else choice.numbers()


class Leaf(nn.Module):
    """Encoder of one leaf, from the environment's dtype to features [N, F]."""

    def __init__(
        self, field: str, name: str, spec: specs.ArraySpec, settings: Any
    ) -> None:
        super().__init__()
        choice = choose(name, spec, settings)
        self.inputs = _inputs(choice)
        self.normaliser = choice.normaliser()
        self.encoder = _make_leaf(field, choice.name, choice.spec, settings)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        numbers = self.inputs(observation)
        if self.normaliser is not None:
            numbers = self.normaliser(numbers)
        features: torch.Tensor = self.encoder(numbers)
        return features

    def adapt(self, observation: torch.Tensor, finite: torch.Tensor) -> None:
        """Updates the statistics of this leaf, as in `Encoder.adapt`."""
        if self.normaliser is not None:
            self.normaliser.adapt(self.inputs(observation), finite)


_JOINT_SIZES = 64, 256  # least and most units that are chosen


class Encoder(nn.Module):
    """Encoder of several leaves: the features of each, then a joint layer.

    With a `joint_size` of 0 the layer is as wide as the widest encoder, within bounds.
    """

    def __init__(self, leaves: list[Leaf], spec: types.Nest, joint_size: int) -> None:
        super().__init__()
        self.leaves = nn.ModuleList(leaves)
        pairs = zip(leaves, nest.flatten(spec), strict=True)
        sizes = [num_features(leaf, own) for leaf, own in pairs]
        least, most = _JOINT_SIZES
        width = joint_size or min(most, max(least, *sizes))
        layer = nn.Sequential(linear.Linear(sum(sizes), width), nn.ReLU())
        self.joint = initialisers.orthogonal(layer)

    def forward(self, observation: types.Nest) -> torch.Tensor:
        """[N, ...] -> [N, F]."""
        pairs = zip(self.leaves, nest.flatten(observation), strict=True)
        features = torch.cat([leaf(array) for leaf, array in pairs], -1)
        joined: torch.Tensor = self.joint(features)
        return joined

    def adapt(self, observation: types.Nest, finite: torch.Tensor) -> None:
        """Updates the statistics that normalise observations [N, ...].

        `finite` is a scalar 0 or 1; with 0 nothing changes.
        """
        pairs = zip(self.leaves, nest.flatten(observation), strict=True)
        for leaf, array in pairs:
            leaf.adapt(array, finite)  # type: ignore[operator]


def make(settings: Any, spec: types.Nest) -> nn.Module:
    """Makes the encoder in `config.network`: observations [N, ...] to features [N, F].

    Raises:
      BadInput: there is no such encoder, or it does not fit the observation.
    """
    if ":" in settings.torso:
        return _custom(settings, spec)
    made = []
    for path, choice in choices(settings, spec).items():
        field = f"network.encoders.{path}" if path else "network.torso"
        made.append(Leaf(field, choice.name, choice.given, settings))
    if settings.layer_norm:
        _check_layer_norm(made, choices(settings, spec))
    is_single = isinstance(spec, specs.ArraySpec)
    return made[0] if is_single else Encoder(made, spec, settings.joint_size)


def make_critic(settings: Any, spec: types.Nest) -> nn.Module:
    """Makes the encoder of what only values see, by the kind of each array."""
    return make(by_kind(settings), spec)


def by_kind(settings: Any) -> Any:
    """Returns `config.network` without the names of encoders."""
    own = settings.copy_and_resolve_references()
    with own.unlocked():
        own.torso, own.encoders = "auto", {}
    return own


def _check_layer_norm(made: list[Leaf], chosen: dict[str, inputs.Choice]) -> None:
    """Raises BadInput if no encoder has a layer norm; a custom one may read it."""
    names = list(dict.fromkeys(choice.name for choice in chosen.values()))
    modules = itertools.chain.from_iterable(leaf.modules() for leaf in made)
    has_norm = any(isinstance(each, (nn.LayerNorm, nn.GroupNorm)) for each in modules)
    if has_norm or any(":" in name for name in names):
        return
    raise errors.BadInput(
        f"network.layer_norm (True) has no effect with {', '.join(names)}. It needs an"
        " encoder with hidden layers, such as an mlp with config.network.hidden_sizes."
        " Set config.network.layer_norm=False, or such an encoder in"
        " config.network.torso (in a Dict: config.network.encoders)."
    )


def _custom(settings: Any, spec: types.Nest) -> nn.Module:
    """Makes a custom torso, which takes observations unchanged."""
    _check_paths(settings.encoders, [])
    return _made_by_user("network.torso", settings.torso, spec, settings)


def _made_by_user(field: str, name: str, spec: types.Nest, settings: Any) -> nn.Module:
    made = user_code.load(field, name, _SIGNATURE)(spec, settings)
    if not isinstance(made, nn.Module):
        raise errors.BadInput(
            f"{field} ({name!r}) returns {made!r}. It must return a torch.nn.Module."
            " Return one that maps [N, ...] to features [N, F]."
        )
    return made


def _check_paths(encoders: Any, paths: list[str]) -> None:
    for path, name in encoders.items():
        if not isinstance(name, str):
            raise errors.BadInput(
                f"network.encoders.{path} ({name!r}) must be a name or module:factory."
                f" Set config.network.encoders.{path}."
            )
        if path not in paths:
            there = ", ".join(repr(each) for each in paths if each)
            raise errors.BadInput(
                f"network.encoders has {path!r}, which is no part of the observation."
                f" {f'The parts are {there}' if there else 'Set config.network.torso'}."
            )


def num_features(encoder: nn.Module, spec: types.Nest) -> int:
    """Returns F of an encoder from observations [N, ...] to [N, F].

    Raises:
      BadInput: its output has another shape, or it cannot take the observations. An
        error in a user's own code is not caught.
    """
    example = nest.map_structure(
        lambda leaf: torch.from_numpy(leaf.example()[None].copy()), spec
    )
    try:
        with torch.no_grad():
            output = encoder(example)
    except Exception as error:
        if user_code.where(error):
            raise
        arrays = ", ".join(
            f"{leaf.dtype} {[1, *leaf.shape]}" for leaf in nest.flatten(spec)
        )
        raise errors.BadInput(
            f"the torso cannot take the observations, {arrays} ({error!s:.300}). Make"
            " it for them."
        ) from error
    if output.dim() != 2 or output.shape[0] != 1:
        raise errors.BadInput(
            f"the torso maps [1, ...] to {list(output.shape)}. It must return"
            " [1, features]. Flatten its output."
        )
    return int(output.shape[1])
