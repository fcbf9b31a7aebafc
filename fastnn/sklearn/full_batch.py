"""The loss of all rows and its gradient, for L-BFGS."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backend as backends
from ..kernels.contract import Binding
from .network import loss_offsets, loss_share, shape_of, targets_of, training_plan
from .samples import Samples


class FullBatch:
    """The function that L-BFGS minimises.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With its weights.
    samples : Samples
        Dense rows, read where they lie.
    dtype : str
        What it is computed in.
    most_threads : int
    """

    def __init__(self, estimator: Any, samples: Samples, dtype: str, most_threads: int) -> None:
        self._shape = shape = shape_of(estimator)._replace(dtype=dtype)
        rows = len(samples.x)
        weights = None
        if samples.weights is not None:
            weights = np.asarray(samples.weights, shape.dtype)
        self._weight = float(rows if weights is None else weights.sum())
        self._alpha = estimator.alpha
        self._offset = _mean(loss_offsets(shape, samples.y), weights)
        backend = backends.get_backend()
        # squares by NumPy would wake the threads of its BLAS, which then spin beside ours
        plan = training_plan(shape, rows, None, True, backend.chunk_rows, most_threads)
        sizes = [weight.size for weight in estimator.coefs_]
        self._penalised = sum(sizes)
        sizes += [bias.size for bias in estimator.intercepts_]
        self._arrays, self._grads = (np.zeros(sum(sizes), dtype) for _ in range(2))
        names = [name for group in zip(*shape.names, strict=True) for name in group]
        shapes = [array.shape for array in estimator.coefs_ + estimator.intercepts_]
        binding = Binding(
            samples.x,
            _views(names, shapes, self._arrays),
            targets_of(shape, samples.y),
            weights,
            grads=_views(names, shapes, self._grads),
            threads=plan.threads or 1,
            seed=estimator._dropout_seed,
        )
        self._rows, self._run = rows, backend.start(plan, binding)

    def __call__(self, packed: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss and gradient at these weights and, behind them, biases."""
        self._arrays[:] = packed
        run = self._run
        run.load()
        run.begin(None, self._rows, None)
        while run.advance(backends.SLICE_SECONDS) == "stopped":
            pass
        run.store()
        weights, factor = self._arrays[: self._penalised], self._alpha / self._weight
        grad = self._grads.copy()
        grad[: self._penalised] += factor * weights
        loss = np.float64(run.losses()[0]) * loss_share(self._shape) + self._offset
        return loss + 0.5 * factor * run.squares()[0], grad


def _mean(offsets: np.ndarray | None, weights: np.ndarray | None) -> float:
    return 0.0 if offsets is None else float(np.average(offsets, weights=weights))


def _views(
    names: list[str], shapes: list[tuple[int, ...]], flat: np.ndarray
) -> dict[str, np.ndarray]:
    """Parts of a flat array, one after the other, in these shapes."""
    views, begin = {}, 0
    for name, shape in zip(names, shapes, strict=True):
        end = begin + int(np.prod(shape))
        views[name] = flat[begin:end].reshape(shape)
        begin = end
    return views
