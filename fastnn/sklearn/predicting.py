"""Outputs of a trained estimator."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from operator import is_
from typing import Any

import numpy as np

from .. import backend as backends
from ..kernels.contract import FEW_ROWS, Binding
from . import engine, kept, threads
from .network import THEIR_ACTIVATIONS, Shape, prediction_plan, shape_of
from .sparse import rows_of

MOST_AT_ONCE = 4 * FEW_ROWS
"""Rows up to which predictions by a few are faster than scikit-learn's check and products."""
LEAST_FLOPS = 100_000_000
"""Work from which a run of its own pays for predictions: below, NumPy's products are as fast as
what its start takes."""


def few_outputs(estimator: Any, X: Any) -> np.ndarray | None:
    """Outputs of a few rows that need no check, (B, O); None for any others.

    They need none where they are a plain array of the weights' dtype and the right width, finite,
    and the estimator knows no names of features.
    """
    if type(X) is not np.ndarray or X.ndim != 2 or not 0 < len(X) <= MOST_AT_ONCE:
        return None
    known = estimator.__dict__
    if "coefs_" not in known or "feature_names_in_" in known:
        return None
    local = kept.of(estimator)
    way = getattr(local, "way", None)
    if way is None or not way.is_current(known):
        way = local.way = Way(estimator)
    return way(X)


class Way:
    """How one thread predicts a few rows, with the weights as they now are and where they lie."""

    def __init__(self, estimator: Any) -> None:
        known = estimator.__dict__
        self._arrays = [*known["coefs_"], *known["intercepts_"]]
        self._names = known["activation"], known["out_activation_"]
        self._predict: Callable[[np.ndarray], np.ndarray | None] | None = None
        self._backend = backend = engine.usable()
        lies_well = all(array.flags.c_contiguous for array in self._arrays)
        if backend is not None and is_ours(estimator) and lies_well:
            shape = shape_of(estimator)
            plan = prediction_plan(shape, FEW_ROWS, backend.chunk_rows)
            self._dtype, self._inputs = np.dtype(shape.dtype), shape.widths[0]
            self._finish = finish_of(shape)
            self._predict = backend.predictor(plan, named_arrays(estimator, shape))

    def is_current(self, known: dict[str, Any]) -> bool:
        """Whether the estimator still has these arrays and activations."""
        arrays = [*known["coefs_"], *known["intercepts_"]]
        return (
            len(arrays) == len(self._arrays)
            and all(map(is_, arrays, self._arrays))
            and self._names == (known["activation"], known["out_activation_"])
            and self._backend is engine.usable()
        )

    def __call__(self, x: np.ndarray) -> np.ndarray | None:
        """Outputs, or None."""
        if self._predict is None or x.dtype != self._dtype or x.shape[1] != self._inputs:
            return None
        if len(x) <= FEW_ROWS:
            outputs = self._predict(x)
        else:
            slices = range(0, len(x), FEW_ROWS)
            parts = [self._predict(x[begin : begin + FEW_ROWS]) for begin in slices]
            known = [part for part in parts if part is not None]
            outputs = np.concatenate(known) if len(known) == len(parts) else None
        return outputs if outputs is None or self._finish is None else self._finish(outputs)


def many_outputs(estimator: Any, x: Any) -> np.ndarray | None:
    """Outputs of rows that were checked, (B, O); None where scikit-learn's way is as fast.

    Raises
    ------
    RuntimeError
        For an activation that scikit-learn has not, where no backend works.
    """
    flops = 2 * x.shape[0] * sum(weight.size for weight in estimator.coefs_)
    if estimator.activation in THEIR_ACTIVATIONS:
        is_small = flops < LEAST_FLOPS or not isinstance(x, np.ndarray)
        if is_small or engine.why_not() or not is_ours(estimator):
            return None
        if np.result_type(x, estimator.coefs_[0]) != estimator.coefs_[0].dtype:
            return None
    elif reason := engine.why_not():
        raise RuntimeError(f"activation={estimator.activation!r} needs fastnn's engine: {reason}")
    with threads.granted(estimator.n_threads, flops) as most:
        return Outputs(estimator, x, shape_of(estimator), most)()


class Outputs:
    """Predicts the same rows again and again, with the weights of the moment.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Such that :func:`is_ours`.
    x : ndarray (N, I)
    shape : Shape
    most_threads : int
    """

    def __init__(self, estimator: Any, x: np.ndarray, shape: Shape, most_threads: int) -> None:
        backend, x = backends.get_backend(), rows_of(x)
        plan = prediction_plan(shape, min(len(x), backend.chunk_rows), backend.chunk_rows)
        self._finish = finish_of(shape)
        self._out = np.empty((len(x), plan.outputs), shape.dtype)
        count = min(most_threads, backends.threads_for(plan))
        binding = Binding(x, named_arrays(estimator, shape), out=self._out, threads=count)
        self._run = backend.start(plan, binding)

    def __call__(self) -> np.ndarray:
        run = self._run
        run.begin(None, len(self._out), None)
        while run.advance(backends.SLICE_SECONDS) == "stopped":
            pass
        return self._out if self._finish is None else self._finish(self._out)


def is_ours(estimator: Any) -> bool:
    """Whether the weights are such that a plan can be made for them."""
    coefs, intercepts = estimator.coefs_, estimator.intercepts_
    arrays = [*coefs, *intercepts]
    dtypes = {getattr(array, "dtype", None) for array in arrays}
    if len(dtypes) != 1 or not dtypes <= {np.dtype("float32"), np.dtype("float64")}:
        return False
    return all(
        weight.ndim == 2 and bias.shape == weight.shape[1:] and bias.size
        for weight, bias in zip(coefs, intercepts, strict=True)
    ) and all(before.shape[1] == after.shape[0] for before, after in itertools.pairwise(coefs))


def suits(estimator: Any, layer_units: list[int]) -> bool:
    """Whether the weights lead from so many columns to so many outputs in so many layers.

    scikit-learn does not look at the hidden widths once there are weights.
    """
    coefs = estimator.coefs_
    ends = coefs[0].shape[0], coefs[-1].shape[1]
    return len(coefs) == len(layer_units) - 1 and ends == (layer_units[0], layer_units[-1])


def check_widths(estimator: Any, layer_units: list[int]) -> None:
    """Raise ValueError for weights of another network, where scikit-learn writes past their end."""
    widths = [len(estimator.coefs_[0]), *(len(bias) for bias in estimator.intercepts_)]
    if widths != layer_units:
        raise ValueError(
            f"the layers that are to be trained further are {widths} wide; expected {layer_units}, "
            "as X, hidden_layer_sizes and y have it"
        )


def named_arrays(estimator: Any, shape: Shape) -> dict[str, np.ndarray]:
    """Weights and biases by their names in a plan, C-contiguous."""
    arrays: dict[str, np.ndarray] = {}
    for names, pair in zip(
        shape.names, zip(estimator.coefs_, estimator.intercepts_, strict=True), strict=True
    ):
        arrays |= zip(names, map(np.ascontiguousarray, pair), strict=True)
    return arrays


def finish_of(shape: Shape) -> Callable[[np.ndarray], np.ndarray] | None:
    """What follows the plan of a network: an exponential output has no layer."""
    return _exponential if shape.output == "exp" else None


def _exponential(outputs: np.ndarray) -> np.ndarray:
    return np.exp(outputs, out=outputs)
