"""The face of the configuration: what experiments and users' files import."""

from impala_mp.config.base import (
    get_apex_config,
    get_base_config,
    get_dqn_config,
    get_impala_config,
    get_iqn_config,
    get_pqn_config,
    get_r2d2_config,
)
from impala_mp.config.fields import from_json, one_of, to_json
from impala_mp.config.presets import module_of
from impala_mp.config.validation import validate

__all__ = [
    "from_json",
    "get_apex_config",
    "get_base_config",
    "get_dqn_config",
    "get_impala_config",
    "get_iqn_config",
    "get_pqn_config",
    "get_r2d2_config",
    "module_of",
    "one_of",
    "to_json",
    "validate",
]
