"""Gradients of a network against central differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import losses
from .layers import Dropout

if TYPE_CHECKING:
    from .model import Sequential

_TOLERANCE = 1e-6


class GradientError(AssertionError):
    """A gradient differs from the central difference."""


def check_gradients(
    model: Sequential,
    x: ArrayLike,
    y: ArrayLike,
    *,
    loss: losses.Loss | str | None = None,
    step: float = 1e-6,
    elements: int = 50,
    seed: int = 0,
) -> dict[str, float]:
    """Compare the gradients of every parameter, and of the inputs, with central differences.

    Parameters
    ----------
    model : Sequential
        Of dtype "float64": in float32 the differences are mostly rounding. Dropout is left out.
    x, y : array
        Some rows of data.
    loss : Loss or str, optional
        By the kind of ``y`` by default.
    step : float, default 1e-6
        What each number is moved by, either way.
    elements : int, default 50
        The most elements of an array that are tried, chosen at random.
    seed : int, default 0
        Of that choice.

    Returns
    -------
    dict
        The largest error by name, relative to the largest gradient of the array (at least 1e-3).

    Raises
    ------
    AssertionError
        Where an error is above 1e-6; the message names the element.
    ValueError
        For a network that is not float64.

    Examples
    --------
    >>> import fastnn
    >>> model = fastnn.Sequential(fastnn.Linear(3, 4), fastnn.Tanh(), fastnn.Linear(4, 2),
    ...                           dtype="float64")
    >>> errors = check_gradients(model, np.ones((5, 3)), np.array([0, 1, 0, 1, 1]))
    >>> max(errors.values()) <= 1e-6
    True
    """
    if model.dtype != "float64":
        raise ValueError(f"model has dtype {model.dtype}; expected float64")
    x = np.array(x, np.float64)
    chosen = losses.as_loss(loss, y)
    layers = model.logit_layers(chosen)
    state = _State(model)

    def outputs() -> np.ndarray:
        state.restore_constants()
        values = x
        for layer in layers:
            values = layer.forward(values)
        return values

    try:
        _, grad = chosen(outputs(), y)
        for layer in reversed(layers):
            grad = layer.backward(grad)
        gradients = {"x": (x, grad)} | {
            name: (array, model.grads[name].copy()) for name, array in model.arena.items()
        }
        generator = np.random.Generator(np.random.Philox(seed))
        return {
            name: _compare(
                name, array, gradient, lambda: chosen.value(outputs(), y), step, elements, generator
            )
            for name, (array, gradient) in gradients.items()
        }
    finally:
        state.restore()


class _State:
    """What the check changes on its way: modes, dropout, running statistics."""

    def __init__(self, model: Sequential) -> None:
        self.model, self.training = model, model.training
        self.constants = model.constants.flat.copy()
        model.train()
        for layer in model.layers:
            if isinstance(layer, Dropout):
                layer.eval()

    def restore_constants(self) -> None:
        self.model.constants.flat[:] = self.constants

    def restore(self) -> None:
        self.restore_constants()
        self.model.train() if self.training else self.model.eval()


def _compare(
    name: str,
    array: np.ndarray,
    gradient: np.ndarray,
    value: Any,
    step: float,
    elements: int,
    generator: np.random.Generator,
) -> float:
    """The largest relative error of the gradient of one array."""
    flat, worst = array.reshape(-1), 0.0
    scale = max(float(np.abs(gradient).max(initial=0.0)), 1e-3)
    for place in generator.permutation(flat.size)[:elements]:
        before = flat[place]
        values = []
        for moved in (before + step, before - step):
            flat[place] = moved
            values.append(value())
        flat[place] = before
        difference = (values[0] - values[1]) / (2.0 * step)
        error = float(abs(difference - gradient.reshape(-1)[place])) / scale
        if not error <= _TOLERANCE:
            where = tuple(int(i) for i in np.unravel_index(place, array.shape))
            raise GradientError(
                f"gradient of {name} at {where} is {gradient.reshape(-1)[place]:.9g}; the central "
                f"difference is {difference:.9g}"
            )
        worst = max(worst, error)
    return worst
