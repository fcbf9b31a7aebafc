"""Optimizer updates one by one, in place on a caller's arrays; formulas in ``kernels/formulas``.

Every function moves ``weight`` and the state that it names, all NumPy arrays of one dtype, float32
or float64, of any one shape and layout, or all CuPy arrays. State begins at zero. ``settings`` are
the formula's, with PyTorch's defaults; what scikit-learn and the from-scratch books do differently
is a setting too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checks, operands
from .backend import for_array
from .kernels.formulas import UPDATES, UpdateFormula


def sgd_update(weight: np.ndarray, grad: ArrayLike, lr: float, **settings: Any) -> None:
    """weight -= lr grad (Robbins & Monro 1951).

    Parameters
    ----------
    weight : ndarray
        Changed in place.
    grad : array_like of weight's shape
        The gradient; converted to weight's dtype.
    lr : float
        Learning rate, not negative.
    **settings
        ``weight_decay`` (0): what is added to the gradient, times the weight.

    Raises
    ------
    TypeError, ValueError
        Arrays do not match one another, or a setting is unknown or out of range; nothing has then
        changed.

    >>> weight = np.array([1.0, 2.0])
    >>> sgd_update(weight, [1.0, 1.0], lr=0.5)
    >>> weight
    array([0.5, 1.5])
    """
    _update("sgd", weight, grad, {}, lr, settings)


def momentum_update(
    weight: np.ndarray, grad: ArrayLike, velocity: np.ndarray, lr: float, **settings: Any
) -> None:
    """velocity = momentum velocity + grad; weight -= lr velocity (Polyak 1964).

    See :func:`sgd_update`.

    Parameters
    ----------
    weight, grad, lr
        As there.
    velocity : ndarray of weight's shape and dtype
        Changed in place.
    **settings
        ``momentum`` (0.9), ``weight_decay`` (0), and ``learning_rate_in_velocity`` (False) for
        velocity = momentum velocity - lr grad; weight += velocity.

    >>> weight, velocity = np.ones(1), np.zeros(1)
    >>> for _ in range(2):
    ...     momentum_update(weight, [1.0], velocity, lr=0.1)
    >>> weight.round(3), velocity
    (array([0.71]), array([1.9]))
    """
    _update("momentum", weight, grad, {"velocity": velocity}, lr, settings)


def nesterov_update(
    weight: np.ndarray, grad: ArrayLike, velocity: np.ndarray, lr: float, **settings: Any
) -> None:
    """Momentum that looks a step ahead (Sutskever et al. 2013); see :func:`momentum_update`.

    A further setting, ``looks_ahead_twice`` (False), applies the gradient once more.

    >>> weight, velocity = np.ones(1), np.zeros(1)
    >>> nesterov_update(weight, [1.0], velocity, lr=0.1)
    >>> weight.round(3), velocity
    (array([0.81]), array([1.]))
    """
    _update("nesterov", weight, grad, {"velocity": velocity}, lr, settings)


def adagrad_update(
    weight: np.ndarray, grad: ArrayLike, square_sum: np.ndarray, lr: float, **settings: Any
) -> None:
    """Steps over the root of the sum of squares (Duchi et al. 2011, fig. 1).

    See :func:`sgd_update`.

    Parameters
    ----------
    weight, grad, lr
        As there.
    square_sum : ndarray of weight's shape and dtype
        Changed in place.
    **settings
        ``eps`` (1e-10), added to the root, and ``weight_decay`` (0).

    >>> weight, square_sum = np.ones(1), np.zeros(1)
    >>> adagrad_update(weight, [2.0], square_sum, lr=0.5)
    >>> weight.round(3), square_sum
    (array([0.5]), array([4.]))
    """
    _update("adagrad", weight, grad, {"square_sum": square_sum}, lr, settings)


def rmsprop_update(
    weight: np.ndarray,
    grad: ArrayLike,
    square_average: np.ndarray,
    lr: float,
    *,
    grad_average: np.ndarray | None = None,
    velocity: np.ndarray | None = None,
    **settings: Any,
) -> None:
    """Steps over a running root mean square (Tieleman & Hinton 2012); see :func:`sgd_update`.

    Parameters
    ----------
    weight, grad, lr
        As there.
    square_average : ndarray of weight's shape and dtype
        Changed in place.
    grad_average, velocity : ndarray of weight's shape and dtype, optional
        Changed in place: with the first, steps are divided by the deviation (Graves 2013); with the
        second, they gather momentum.
    **settings
        ``alpha`` (0.99), the share of an average that stays; ``eps`` (1e-8), added to the root;
        ``weight_decay`` (0); with a velocity, ``momentum`` (0.9).

    >>> weight, square_average = np.ones(1), np.zeros(1)
    >>> rmsprop_update(weight, [2.0], square_average, lr=0.1, alpha=0.75)
    >>> weight.round(3), square_average
    (array([0.8]), array([1.]))
    """
    slots = {"square_average": square_average}
    name = "rmsprop"
    if grad_average is not None:
        slots["grad_average"] = grad_average
        name += "_centered"
    if velocity is not None:
        slots["velocity"] = velocity
        name += "_momentum"
    _update(name, weight, grad, slots, lr, settings)


def adam_update(
    weight: np.ndarray,
    grad: ArrayLike,
    mean: np.ndarray,
    square: np.ndarray,
    lr: float,
    step: int,
    **settings: Any,
) -> None:
    """Running mean over running root mean square (Kingma & Ba 2015); see :func:`sgd_update`.

    Parameters
    ----------
    weight, grad, lr
        As there.
    mean, square : ndarray of weight's shape and dtype
        Running averages of the gradient and of its square, changed in place.
    step : int
        The number of this update, from 1.
    **settings
        ``betas`` (0.9, 0.999), the shares of the averages that stay; ``eps`` (1e-8);
        ``weight_decay`` (0); ``eps_on_corrected`` (True), or False to add eps to the root as it is
        before its bias is corrected.

    >>> weight, mean, square = np.ones(1), np.zeros(1), np.zeros(1)
    >>> adam_update(weight, [2.0], mean, square, lr=0.1, step=1)
    >>> weight.round(3), mean.round(3), square.round(3)
    (array([0.9]), array([0.2]), array([0.004]))
    """
    _update("adam", weight, grad, {"mean": mean, "square": square}, lr, settings, step)


def adamw_update(
    weight: np.ndarray,
    grad: ArrayLike,
    mean: np.ndarray,
    square: np.ndarray,
    lr: float,
    step: int,
    **settings: Any,
) -> None:
    """Adam after weight -= lr weight_decay weight (Loshchilov & Hutter 2019).

    See :func:`adam_update`; ``weight_decay`` is 0.01 by default.

    >>> weight, mean, square = np.ones(1), np.zeros(1), np.zeros(1)
    >>> adamw_update(weight, [2.0], mean, square, lr=0.1, step=1, weight_decay=0.5)
    >>> weight.round(3)
    array([0.85])
    """
    _update("adamw", weight, grad, {"mean": mean, "square": square}, lr, settings, step)


# ---- settings ----


def checked_settings(**settings: Any) -> dict[str, Any]:
    """Settings of update formulas, each in its range.

    Raises
    ------
    TypeError, ValueError
        One is not.

    >>> checked_settings(momentum=0.5)
    {'momentum': 0.5}
    """
    return {name: _SETTINGS[name](name, value) for name, value in settings.items()}


def scalars(
    formula: UpdateFormula,
    steps: np.ndarray,
    rates: np.ndarray,
    settings: Mapping[str, Any],
    dtype: str | np.dtype,
) -> np.ndarray:
    """The scalars of updates (steps, 2, S): without weight decay, then with it.

    Parameters
    ----------
    formula : UpdateFormula
    steps, rates : ndarray of float64
        The number of each update, from 1, and its learning rate.
    settings : mapping
        Of the formula.
    dtype : str or dtype
        What to round to.
    """
    values = formula.prepare(steps, rates, **settings)
    table = np.empty((rates.size, 2, len(formula.scalars)), dtype)
    for column, name in enumerate(formula.scalars):
        table[:, 1, column] = values[name]
        table[:, 0, column] = 0.0 if name in formula.decay else values[name]
    return table


def _not_negative(name: str, value: Any) -> float:
    return checks.number(name, value, at_least=0.0)


def _betas(name: str, betas: Any) -> tuple[float, float]:
    if not (isinstance(betas, (tuple, list)) and len(betas) == 2):
        raise TypeError(f"{name} is {betas!r}; expected two numbers")
    first, second = (checks.fraction(f"{name}[{n}]", beta) for n, beta in enumerate(betas))
    return first, second


_SETTINGS: dict[str, Callable[[str, Any], Any]] = {
    "alpha": checks.fraction,
    "betas": _betas,
    "dampening": checks.number,
    "eps": _not_negative,
    "eps_on_corrected": checks.boolean,
    "initial_accumulator_value": _not_negative,
    "learning_rate_in_velocity": checks.boolean,
    "looks_ahead_twice": checks.boolean,
    "lr_decay": _not_negative,
    "momentum": _not_negative,
    "weight_decay": _not_negative,
}
_OF_OPTIMIZERS = {"dampening", "initial_accumulator_value", "lr_decay"}
"""Settings that speak of the first step: those who call step by step have it in their hands."""


# ---- one update ----


def _update(
    name: str,
    weight: Any,
    grad: ArrayLike,
    slots: Mapping[str, Any],
    lr: float,
    settings: Mapping[str, Any],
    step: int = 1,
) -> None:
    """One update by the formula of this name, of arrays of any layout."""
    targets = {"weight": weight, **slots}
    for target, array in targets.items():
        _check_target(target, array, weight)
    if len({id(array) for array in targets.values()}) < len(targets):
        raise ValueError(f"{' and '.join(targets)} must be different arrays")
    if type(weight) is not np.ndarray or type(grad) is not np.ndarray:
        arrays.require_same_place(**targets, grad=grad)
    given = arrays.as_array("grad", grad)
    if given.dtype.kind not in "fiub" or given.shape != weight.shape:
        raise ValueError(
            f"grad must hold real numbers of shape {weight.shape}, got {given.dtype} of shape"
            f" {given.shape}"
        )
    for setting in settings:
        if setting not in _known_settings(name):
            raise checks.unknown_name(f"setting of {name}", setting, _known_settings(name))
    values = _scalars(
        name,
        checks.number("lr", lr, at_least=0.0),
        checks.positive_int("step", step),
        tuple(checked_settings(**settings).items()),
        weight.dtype,
    )
    gradient = arrays.contiguous(given, weight.dtype)
    moved = [arrays.contiguous(array, array.dtype) for array in targets.values()]
    (gradient,) = operands.apart(moved, gradient, elementwise=True)
    for_array(weight).update(moved[0], gradient, moved[1:], values, UPDATES[name])
    for array, result in zip(targets.values(), moved, strict=True):
        if result is not array:
            array[...] = result


def _check_target(name: str, array: Any, weight: Any) -> None:
    """Raise unless an array can be moved along with a weight."""
    is_array = isinstance(array, np.ndarray) or arrays.is_cupy(array)
    if not is_array or array.dtype not in operands.DTYPES:
        kind = array.dtype if is_array else arrays.kind_of(array)
        raise TypeError(f"{name} must be an array of float32 or float64, got {kind}")
    if (array.dtype, array.shape) != (weight.dtype, weight.shape):
        raise ValueError(
            f"{name} must be like weight, {weight.dtype} of shape {weight.shape}, got"
            f" {array.dtype} of shape {array.shape}"
        )
    if not arrays.is_writable(array):
        raise ValueError(f"{name} is written in place, but it is read-only")


@functools.cache
def _known_settings(name: str) -> frozenset[str]:
    """The settings that a single update takes."""
    return frozenset(UPDATES[name].defaults) - _OF_OPTIMIZERS


@functools.lru_cache(maxsize=64)
def _scalars(
    name: str, lr: float, step: int, settings: tuple[tuple[str, Any], ...], dtype: np.dtype
) -> np.ndarray:
    """The scalars of one update, which those of a network's other weights have too."""
    formula = UPDATES[name]
    values = formula.prepare(np.float64(step), np.float64(lr), **dict(settings))
    return np.array([values[scalar] for scalar in formula.scalars], dtype)
