"""impala_mp: IMPALA with V-trace on one machine.

import impala_mp as im

run = im.train(MyEnv, total_agent_steps=300_000)
print(run.evaluate(episodes=100).mean)
action, state = run.policy(observation)
"""

# Nothing is imported here: under `python -m` it might come from the current folder.
TYPE_CHECKING = False  # True for type checkers

if TYPE_CHECKING:
    from impala_mp.api.run import Evaluation, Image, Policy, Run, load
    from impala_mp.api.train import train
    from impala_mp.errors import BadInput, RunFailed

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "Evaluation",
    "Image",
    "Policy",
    "Run",
    "RunFailed",
    "load",
    "train",
]

_PLACES = {
    **dict.fromkeys(("Evaluation", "Image", "Policy", "Run", "load"), "api.run"),
    **dict.fromkeys(("BadInput", "RunFailed"), "errors"),
    "train": "api.train",
}


def __getattr__(name: str) -> object:
    """Imports a public name at its first use; the commands start without torch."""
    import importlib

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
