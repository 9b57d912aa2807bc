"""Vector environments in the form that actors and evaluators use."""

from impala_mp.environments.factory import make, probe

__all__ = ["make", "probe"]
