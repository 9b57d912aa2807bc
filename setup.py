"""Packaging of impala_mp: the metadata is in pyproject.toml, the folders are here.

experiments/ is installed as impala_mp/experiments/, the presets of `impala-train`.
"""

import setuptools

_PRESETS = "impala_mp.experiments"

setuptools.setup(
    packages=[
        *setuptools.find_packages(include=["impala_mp", "impala_mp.*"]),
        _PRESETS,
    ],
    package_dir={_PRESETS: "experiments"},
)
