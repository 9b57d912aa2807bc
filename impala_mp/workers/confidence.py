"""95 % confidence interval of a mean, by Student's t."""

import numpy as np

# 97.5 % points of Student's t, by degrees of freedom from 1; beyond: the normal's.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


def half_width(values: np.ndarray) -> np.ndarray:
    """Returns the half width of the interval around the mean over axis 0.

    With a single value it is 0, because nothing is known about the spread.
    """
    count = len(values)
    if count < 2:
        return np.zeros(values.shape[1:])
    t = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else 1.96
    deviation: np.ndarray = values.std(0, ddof=1)
    return t * deviation / count**0.5
