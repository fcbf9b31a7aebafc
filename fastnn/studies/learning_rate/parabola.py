"""Gradient descent on a parabola of curvature L, where every step has a formula."""

from __future__ import annotations

import numpy as np

from ...optim import SGD
from ..descent import descend

RATES_BY_CURVATURE = (0.2, 1.0, 1.8, 2.0, 2.1)
"""Rates on the parabola, times its curvature L."""

STEPS = 12
"""How many are made on the parabola."""


def on_parabola() -> np.ndarray:
    """x after each step, from 1, at each of the rates, (R, steps + 1); on x^2 / 2, where L is 1."""
    start = np.ones((1, 1))
    ways = [descend(SGD(rate), lambda x, _: x, start, STEPS) for rate in RATES_BY_CURVATURE]
    return np.stack(ways)[:, :, 0, 0]
