"""The gradients by other means: central differences, and fastnn's own backward pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...layers import Linear, Sigmoid
from ...losses import CrossEntropyLoss
from ...model import Sequential
from .network import INPUTS, WEIGHTS, forward

_STEP = float(np.cbrt(np.finfo(np.float64).eps))
"""Where rounding and curvature disturb a central difference about equally."""


def central_difference(given: Mapping[str, float], target: str, name: str) -> float:
    """The slope of the loss by one weight, from the losses on both sides."""
    above, below = (
        forward({**given, name: given[name] + step}, target)["L"] for step in (_STEP, -_STEP)
    )
    return (above - below) / (2.0 * _STEP)


def by_fastnn(given: Mapping[str, float], target: str) -> dict[str, float]:
    """What a network of fastnn's layers leaves in its gradients."""
    model = Sequential(Linear(2, 2), Sigmoid(), Linear(2, 2), dtype="float64")
    places = [f"{layer}.{array}" for layer in (0, 2) for array in ("weight", "bias")]
    weights = np.array([given[name] for name in WEIGHTS])
    for place, values in zip(places, np.split(weights, (4, 6, 10)), strict=True):
        model.arena[place][...] = values.reshape(model.arena[place].shape)
    logits = model([[given[name] for name in INPUTS]])
    _, grad = CrossEntropyLoss()(logits, [int(target) - 1])
    model.backward(grad)
    gradients = np.concatenate([model.grads[place].ravel() for place in places])
    return dict(zip(WEIGHTS, gradients.tolist(), strict=True))
