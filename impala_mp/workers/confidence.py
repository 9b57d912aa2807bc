"""95 % confidence interval of a mean, by Student's t."""

import numpy as np

# 97.5 % points of Student's t, by degrees of freedom from 1, and of the normal.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
_NORMAL = 1.959964


def half_width(values: np.ndarray) -> np.ndarray:
    """Returns the half width of the interval around the mean over axis 0.

    With a single value it is 0, because nothing is known about the spread.
    """
    count = len(values)
    if count < 2:
        return np.zeros(values.shape[1:])
    deviation: np.ndarray = values.std(0, ddof=1)
    return _factor(count - 1) * deviation / count**0.5


def _factor(freedom: int) -> float:
    """Returns the 97.5 % point of Student's t.

    Beyond the table it is the expansion of Cornish and Fisher around the normal's:

        t = z + (z^3 + z) / (4 n) + (5 z^5 + 16 z^3 + 3 z) / (96 n^2)
    """
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z = _NORMAL
    first, second = z**3 + z, 5 * z**5 + 16 * z**3 + 3 * z
    return z + first / (4 * freedom) + second / (96 * freedom**2)
