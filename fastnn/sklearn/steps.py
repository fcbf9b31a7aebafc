"""The steps of an epoch: in one compiled call, or one by one in scikit-learn's own arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import backend as backends
from ..kernels.contract import Binding
from ..kernels.interrupts import interrupts_later
from ..optional import require
from .network import (
    Shape,
    count_steps,
    has_penalty,
    loss_offsets,
    loss_share,
    shape_of,
    targets_of,
    training_plan,
    update_of,
)
from .samples import Samples
from .versions import if_weighted

gen_batches = require("sklearn.utils", extra="sklearn").gen_batches


class HandedOver(Exception):
    """The rest of an epoch is scikit-learn's to do; the weights are those of the last good step.

    Parameters
    ----------
    reason : str
    step : int
        The first step that is left.
    total : float
        The sum of the losses of the rows before it.
    """

    def __init__(self, reason: str, step: int, total: float) -> None:
        super().__init__(reason)
        self.reason, self.step, self.total = reason, step, total


class Mirror(NamedTuple):
    """An array of scikit-learn's and the one that a run works on, which may be the same."""

    theirs: np.ndarray
    ours: np.ndarray

    @classmethod
    def of(cls, theirs: np.ndarray, dtype: str, apart: bool) -> Mirror:
        """The array itself where a run can work on it and it need not be apart."""
        flags = theirs.flags
        lies_well = flags.c_contiguous and flags.aligned and flags.writeable
        if lies_well and theirs.dtype == dtype and not apart:
            return cls(theirs, theirs)
        return cls(theirs, np.empty(theirs.shape, dtype))

    def take(self) -> None:
        """Bring ours up to date."""
        if self.ours is not self.theirs:
            self.ours[...] = self.theirs

    def give(self) -> None:
        """Bring theirs up to date."""
        if self.ours is not self.theirs:
            self.theirs[...] = self.ours


def _params(estimator: Any) -> list[np.ndarray]:
    """Weights, then biases: scikit-learn's order."""
    return estimator.coefs_ + estimator.intercepts_


def _arrays(estimator: Any) -> list[np.ndarray]:
    """The parameters, then the first slot of each in that order, then the second."""
    optimizer = estimator._optimizer
    slots = update_of(optimizer).slots
    return _params(estimator) + [array for slot in slots for array in getattr(optimizer, slot)]


def _shape(estimator: Any, samples: Samples) -> Shape:
    """What is trained, in the precision of rows and weights together, as scikit-learn's."""
    dtype = np.result_type(samples.x.dtype, estimator.coefs_[0].dtype)
    return shape_of(estimator)._replace(dtype=dtype.name)


def key_of(estimator: Any, samples: Samples, batch_rows: int, most_threads: int) -> tuple[Any, ...]:
    """What two trainings must have in common for the run of one to do the other."""
    return (
        _shape(estimator, samples),
        update_of(estimator._optimizer).formula,
        has_penalty(estimator),
        estimator._dropout_seed,
        batch_rows,
        samples.x.dtype,
        samples.weights is None,
        most_threads,
        backends.get_backend(),
    )


class CompiledEpochs:
    """Epochs of an estimator's training inside the backend.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With its weights and optimizer.
    samples : Samples
        Dense rows.
    batch_rows : int
    most_threads : int
    staged : bool
        Copy rows and weights to where those of another training can be put, see :meth:`refill`;
        else they are worked on where they lie.
    """

    def __init__(
        self, estimator: Any, samples: Samples, batch_rows: int, most_threads: int, staged: bool
    ) -> None:
        self.key = key_of(estimator, samples, batch_rows, most_threads)
        self._shape = shape = _shape(estimator, samples)
        self._batch_rows = batch_rows
        self.staged = staged
        self.x = samples.x.copy() if staged else samples.x
        targets = targets_of(shape, samples.y)
        # float targets are the caller's own array, which the next training must not write into
        self._targets = targets.copy() if staged else targets
        self._weights = None
        if samples.weights is not None:
            self._weights = np.array(samples.weights, shape.dtype)
        theirs = _arrays(estimator)
        self._mirrors = [Mirror.of(array, shape.dtype, staged) for array in theirs]
        self._begin_training(estimator, samples)
        backend = backends.get_backend()
        plan = training_plan(
            shape,
            batch_rows,
            self._update.formula,
            has_penalty(estimator),
            backend.chunk_rows,
            most_threads,
        )
        self._run = backend.start(plan, self._binding(estimator, plan.threads or 1))

    def _binding(self, estimator: Any, threads: int) -> Binding:
        weights, biases = zip(*self._shape.names, strict=True)
        names = weights + biases
        ours = [mirror.ours for mirror in self._mirrors]
        return Binding(
            self.x,
            dict(zip(names, ours, strict=False)),
            self._targets,
            self._weights,
            slots={name: ours[len(names) + at :: len(names)] for at, name in enumerate(names)},
            threads=threads,
            seed=estimator._dropout_seed,
        )

    def refill(self, estimator: Any, samples: Samples) -> None:
        """Go on with a training of the same key, of no more rows than there is room for."""
        rows = len(samples.x)
        self.x[:rows] = samples.x
        self._targets[:rows] = targets_of(self._shape, samples.y)
        if self._weights is not None:
            self._weights[:rows] = samples.weights
        self._mirrors = [
            Mirror(array, mirror.ours)
            for mirror, array in zip(self._mirrors, _arrays(estimator), strict=True)
        ]
        self._begin_training(estimator, samples)
        self._run.load()

    def _begin_training(self, estimator: Any, samples: Samples) -> None:
        """Take what belongs to this training alone."""
        self._estimator, self._rows = estimator, len(samples.x)
        self._update = update_of(estimator._optimizer)
        self._begins = np.arange(0, self._rows, self._batch_rows)
        counts = np.minimum(self._batch_rows, self._rows - self._begins)
        self._counts = counts.astype(np.float64)
        self._offsets = loss_offsets(self._shape, samples.y)
        for mirror in self._mirrors:
            mirror.take()

    def release(self) -> None:
        """Let go of the estimator."""
        self._estimator = None
        self._mirrors = [Mirror(mirror.ours, mirror.ours) for mirror in self._mirrors]

    # -- epochs --

    def train(self, order: np.ndarray | None, move: Callable[[int], None]) -> float:
        """Train an epoch of rows in this order; the sum of the losses of its rows.

        ``move`` is told of steps as they are done.

        Raises
        ------
        HandedOver
            Where a loss is not finite, or a batch has no weight.
        """
        norms = self._counts
        if self._weights is not None:
            norms = self._sums_by_batch(self._weights[: self._rows], order)
            if not norms.all():
                raise HandedOver("the sample weights of a batch sum to zero", 0, 0.0)
        alpha = self._estimator.alpha
        optimizer, run = self._estimator._optimizer, self._run
        scalars = self._update.scalars(optimizer, alpha / norms, self._shape.dtype)
        run.begin(order, self._rows, scalars, len(self._estimator.loss_curve_))
        outcome, seen = "stopped", 0
        try:
            while outcome == "stopped":
                outcome = run.advance(backends.SLICE_SECONDS)
                move(run.step - seen)
                seen = run.step
        finally:
            count_steps(optimizer, run.step)
        total = self._total(order, norms, alpha)
        if outcome == "diverged":
            raise HandedOver(f"the loss was {run.losses()[-1]}", run.step, total)
        return total

    def _sums_by_batch(self, values: np.ndarray, order: np.ndarray | None) -> np.ndarray:
        values = values if order is None else values[order]
        return np.add.reduceat(values, self._begins, dtype=np.float64)

    def _total(self, order: np.ndarray | None, norms: np.ndarray, alpha: float) -> float:
        """The sum over the rows of the losses that scikit-learn reports."""
        done = self._run.step
        losses = self._run.losses()[:done].astype(np.float64) * loss_share(self._shape)
        norms = norms[:done]
        if has_penalty(self._estimator):
            losses += 0.5 * alpha * self._run.squares()[:done] / norms
        if self._offsets is not None:
            offsets = self._offsets
            if self._weights is not None:
                offsets = offsets * self._weights[: self._rows]
            losses += self._sums_by_batch(offsets, order)[:done] / norms
        return float(losses @ self._counts[:done])

    def store(self) -> None:
        """Bring the estimator's weights and its optimizer's state up to date."""
        with interrupts_later():
            self._run.store()
            for mirror in self._mirrors:
                mirror.give()


class TheirEpochs:
    """Epochs in scikit-learn's own arithmetic, from where fastnn's could not go on.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    samples : Samples
    batch_rows : int
    """

    def __init__(self, estimator: Any, samples: Samples, batch_rows: int) -> None:
        self._estimator, self._samples = estimator, samples
        self._batches = list(gen_batches(len(samples.x), batch_rows))
        self._params = _params(estimator)

    def train(
        self,
        order: np.ndarray | None,
        move: Callable[[int], None],
        first: int = 0,
    ) -> float:
        """Train an epoch from a step on; the sum of the losses of its rows."""
        estimator, total = self._estimator, 0.0
        layers = len(estimator.coefs_)
        for batch in self._batches[first:]:
            rows = batch if order is None else order[batch]
            x, y, weights = (part if part is None else part[rows] for part in self._samples)
            loss, *grads = estimator._backprop(
                x,
                y,
                *if_weighted(weights),
                [x] + [None] * layers,
                [None] * layers,
                [None] * layers,
                [None] * layers,
            )
            total += loss * (batch.stop - batch.start)
            estimator._optimizer.update_params(self._params, grads[0] + grads[1])
            move(1)
        return total

    def store(self) -> None:
        """The weights are where they belong."""
