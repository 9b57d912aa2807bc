"""The last full games that were learned from, and how many there were."""

import collections

import numpy as np


class Episodes:
    """The last 100 full games, and how many there were."""

    def __init__(self) -> None:
        self.last: collections.deque[tuple[float, float]] = collections.deque(
            maxlen=100
        )
        self.count = 0

    def add(self, returns: np.ndarray, lengths: np.ndarray) -> None:
        """Takes the games that ended in a batch, as `types.EpisodeEnd` has them."""
        rows, columns = np.nonzero(~np.isnan(returns))
        ended = zip(
            returns[rows, columns].tolist(),
            lengths[rows, columns].tolist(),
            strict=True,
        )
        self.last.extend(ended)
        self.count += len(rows)

    def metrics(self) -> dict[str, float]:
        """The numbers under episode/."""
        if not self.last:
            return {"episode/count": 0}
        returns, lengths = zip(*self.last, strict=True)
        return {
            "episode/return_mean": float(np.mean(returns)),
            "episode/return_min": min(returns),
            "episode/return_max": max(returns),
            "episode/length_mean": float(np.mean(lengths)),
            "episode/count": self.count,
        }
