"""Packaging of impala_mp."""

import setuptools

_ATARI = ["ale-py>=0.11"]
_MINATAR = ["MinAtar>=1.0.15"]
_MINIGRID = ["minigrid>=3.0"]
_MUJOCO = ["gymnasium[mujoco]>=1.1"]
_CLASSIC_CONTROL = ["gymnasium[classic-control]"]  # pygame, for films of CartPole
_ONNX = ["onnx", "onnxruntime", "onnxscript"]
_DOCS = ["mkdocs-material"]  # for the site alone: constraints.txt does not pin it

setuptools.setup(
    name="impala_mp",
    version="0.1.0",
    description="IMPALA with V-trace on one machine, in PyTorch",
    packages=setuptools.find_packages(include=["impala_mp", "impala_mp.*"]),
    package_data={"impala_mp.cli": ["template/*", "template/my_project/*"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py",
        "gymnasium>=1.1",
        "matplotlib",
        "ml-collections>=1.0",
        "numpy",
        "pillow",
        "rich",
        "tensorboard",
        "torch>=2.6",
    ],
    extras_require={
        "atari": _ATARI,
        "minatar": _MINATAR,
        "classic-control": _CLASSIC_CONTROL,
        "minigrid": _MINIGRID,
        "mujoco": _MUJOCO,
        "onnx": _ONNX,
        "docs": _DOCS,
        "test": [
            *_ATARI,
            *_MINATAR,
            *_MINIGRID,
            *_ONNX,
            "hypothesis",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
        ],
    },
    entry_points={
        "console_scripts": [
            "impala-train = impala_mp.cli.train:main",
            "impala-ctl = impala_mp.cli.ctl:main",
            "impala-status = impala_mp.cli.status:main",
            "impala-diagnose = impala_mp.cli.diagnose:main",
            "impala-replay = impala_mp.cli.diagnose:main",  # its name until 0.1
            "impala-eval = impala_mp.cli.evaluate:main",
            "impala-export = impala_mp.cli.export:main",
            "impala-play = impala_mp.cli.play:main",
            "impala-new = impala_mp.cli.new:main",
        ]
    },
)
