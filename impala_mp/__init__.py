"""impala_mp: IMPALA with V-trace on one machine."""

__version__ = "0.1.0"
