"""Flattens, compares, saves and loads a config."""

import difflib
import json
from typing import Any

from ml_collections import config_dict

from impala_mp import errors
from impala_mp.config import arguments, base

_WITH_ARGUMENTS = ("environment", "evaluation")  # groups with `kwargs` of a constructor
_MAX_DEPTH = 32  # of a stored config
# What holds in a config that was stored before the field existed, if not its default.
_BEFORE = {"impact.normalise_advantages": False}
# Names in other frameworks, by their last part.
_ELSEWHERE = {
    "clip_coef": "impact.clip_range",
    "clip_range": "impact.clip_range",
    "ent_coef": "loss.entropy_cost",
    "entropy_coeff": "loss.entropy_cost",
    "epochs": "learner.passes",
    "gae_lambda": "vtrace.lambda_",
    "gamma": "loss.discount_factor",
    "learners": "learner.processes",
    "lr": "optimizer.learning_rate",
    "max_grad_norm": "optimizer.clip_norm",
    "minibatches": "learner.minibatches",
    "n_envs": "actors.environments",
    "n_epochs": "learner.passes",
    "n_steps": "unroll_length",
    "net_arch": "network.hidden_sizes",
    "num_envs": "actors.environments",
    "num_epochs": "learner.passes",
    "num_minibatches": "learner.minibatches",
    "num_steps": "unroll_length",
    "num_workers": "actors.count",
    "rollout": "unroll_length",
    "steps": "total_agent_steps",
    "timesteps": "total_agent_steps",
    "total_steps": "total_agent_steps",
    "total_timesteps": "total_agent_steps",
    "train_for_env_steps": "total_agent_steps",
    "update_epochs": "learner.passes",
    "vf_coef": "loss.baseline_cost",
    "workers": "actors.count",
}


def flatten(config: Any) -> dict[str, Any]:
    """Returns dotted field names and their values, as JSON returns them.

    Raises:
      BadInput: an argument of the environment cannot be saved.
    """
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: dict[str, Any]) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and not arguments.is_tagged(value):
                visit(f"{prefix}{key}.", value)
            else:
                flat[f"{prefix}{key}"] = value

    visit("", json.loads(to_json(config)))
    return flat


def to_json(config: config_dict.ConfigDict) -> str:
    """Returns the config as JSON, with exact arguments of the environment.

    Raises:
      BadInput: an argument of the environment cannot be saved.
    """
    encoded = {
        group: arguments.encode(config[group].kwargs, f"{group}.kwargs")
        for group in _WITH_ARGUMENTS
        if isinstance(config.get(group), config_dict.ConfigDict)
        and config[group].get("kwargs")
    }
    if not encoded:
        return config.to_json_best_effort(indent=2, sort_keys=True)
    rest = config.copy_and_resolve_references()
    with rest.unlocked():
        for group in encoded:
            rest[group].kwargs = config_dict.ConfigDict()
    tree = json.loads(rest.to_json_best_effort())
    for group, values in encoded.items():
        tree[group]["kwargs"] = values
    return json.dumps(tree, indent=2, sort_keys=True)


def from_json(text: str) -> config_dict.ConfigDict:
    """Returns the config that `to_json` wrote, by this version or an older one.

    Raises:
      BadInput: it is damaged, or was written by a version with other kinds of fields.
    """
    config = base.get_base_config()
    try:
        fields = json.loads(text)
        if _is_deeper(fields, _MAX_DEPTH):
            raise RecursionError
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested deeply"
        raise errors.BadInput(
            f"this config is damaged ({reason}). Restore the file, or start a new run."
        ) from error
    try:
        kwargs = {g: fields.get(g, {}).pop("kwargs", {}) for g in _WITH_ARGUMENTS}
        _update_older(fields)
        stored = config_dict.ConfigDict(fields, convert_dict=True)
        with config.unlocked():
            config.update_from_flattened_dict(_BEFORE)
            config.update(stored)
            for group, encoded in kwargs.items():
                for name, value in arguments.decode(encoded).items():
                    config[group].kwargs[name] = value
        for field in base.FIELDS:
            if get(config, field.name) is None:
                raise TypeError(f"{field.name} has no value")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise errors.BadInput(
            f"this config is of another impala_mp version ({error}). Start a new run."
        ) from error
    return config


def _update_older(fields: Any) -> None:
    """Converts fields that had another type in older versions."""
    replay = fields.get("replay", {})
    if "burn_in" in replay:  # was a number of rows
        replay["burn_in"] = bool(replay["burn_in"])


def _is_deeper(node: Any, levels: int) -> bool:
    """Returns whether JSON is nested in more than `levels` levels."""
    if not isinstance(node, (dict, list)):
        return False
    children = node.values() if isinstance(node, dict) else node
    return not levels or any(_is_deeper(child, levels - 1) for child in children)


def nearest(key: str, keys: list[str]) -> str:
    """Returns a hint at the nearest key with the last part or the meaning; or ""."""
    last = key.rpartition(".")[2].replace("-", "_")
    same = [each for each in keys if each.rpartition(".")[2] == last]
    if _ELSEWHERE.get(last) in keys:
        same.append(_ELSEWHERE[last])
    found, cutoff = (same, 0.0) if same else (keys, 0.5)
    close = difflib.get_close_matches(key, found, n=1, cutoff=cutoff)
    return f" Did you mean {close[0]!r}?" if close else ""


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Returns the fields whose values differ: name to (old, new)."""
    a, b = flatten(old), flatten(new)
    return {
        key: (arguments.decode(a.get(key)), arguments.decode(b.get(key)))
        for key in sorted({*a, *b})
        if a.get(key) != b.get(key)
    }


def without_policy(field: str) -> str:
    """Returns the field that `policies.NAME.FIELD` is for one policy."""
    return field.split(".", 2)[-1] if field.startswith("policies.") else field


def is_operational(field: str) -> bool:
    field = without_policy(field)
    return any(
        field == name or field.startswith(f"{name}.") for name in base.OPERATIONAL
    )


class NoVariant(errors.BadInput):
    """An experiment has no such variant."""

    def __init__(self, variant: str, variants: tuple[str, ...]) -> None:
        super().__init__(
            f"there is no variant {variant!r}. Choose among {', '.join(variants)}."
            f"{nearest(variant, list(variants))}"
        )
        self.variants = variants  # those that there are


def one_of(variant: str, variants: tuple[str, ...]) -> str:
    """Returns `variant` if it is one of `variants`.

    Raises:
      NoVariant: it is not.
    """
    if variant not in variants:
        raise NoVariant(variant, variants)
    return variant


def get(config: config_dict.ConfigDict, field: str) -> Any:
    """Returns the value of a dotted field."""
    for part in field.split("."):
        config = config[part]
    return config
