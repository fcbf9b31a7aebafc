"""A stochastic training from its first epoch to its last, as scikit-learn has it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .. import backend as backends
from ..optional import require
from ..progress import Progress
from . import pool, threads
from .network import new_optimizer
from .samples import Samples, batch_rows_of, labels_of, split
from .steps import CompiledEpochs, HandedOver, TheirEpochs
from .versions import if_weighted

_ConvergenceWarning = require("sklearn.exceptions", extra="sklearn").ConvergenceWarning


class StochasticTraining:
    """One call of ``fit`` or ``partial_fit``.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With its weights.
    samples : Samples
        Dense rows.
    validation : Samples or None
        The user's own.
    incremental : bool
        One epoch, with the optimizer that is there.

    Raises
    ------
    ValueError
        For what scikit-learn refuses.
    """

    def __init__(
        self, estimator: Any, samples: Samples, validation: Samples | None, incremental: bool
    ) -> None:
        self._estimator, self._incremental, self._validation = estimator, incremental, validation
        if not incremental or not hasattr(estimator, "_optimizer"):
            estimator._optimizer = new_optimizer(estimator)
        if estimator.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        scored = validation
        if estimator.early_stopping and validation is None:
            samples, scored = split(estimator, samples)
        if not estimator.early_stopping:
            scored = None
        self._samples, self._rows = samples, samples.x.shape[0]
        self._batch_rows = batch_rows_of(estimator, self._rows)
        self._epochs: CompiledEpochs | TheirEpochs
        if estimator.batch_size != "auto" and estimator.batch_size > self._rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped",
                stacklevel=2,
            )
        dtypes = [part.dtype for part in (*samples, estimator.coefs_[0]) if part is not None]
        # of a given size, batches are of NumPy's integers, whose product with float32 is float64
        is_double = hasattr(estimator, "classes_") or estimator.batch_size != "auto"
        self._loss_type = np.float64 if is_double else np.result_type(*dtypes).type
        self._scored: tuple[Any, ...] = (None, None, *if_weighted(None))
        if scored is not None:
            labels = labels_of(estimator, scored)
            self._scored = (scored.x, labels, *if_weighted(scored.weights))

    def run(self) -> None:
        """Train, until an epoch is the last."""
        estimator = self._estimator
        estimator.n_iter_ = 0
        steps = -(-self._rows // self._batch_rows)
        epochs = 1 if self._incremental else estimator.max_iter
        weights = sum(weight.size for weight in estimator.coefs_)
        flops = backends.training_work(weights, self._rows).flops
        with (
            threads.granted(estimator.n_threads, flops) as most_threads,
            Progress(estimator.progress, epochs * steps) as self._bar,
        ):
            self._epochs = pool.epochs_of(estimator, self._samples, self._batch_rows, most_threads)
            order = np.arange(self._rows, dtype=np.int64)
            try:
                for _ in range(estimator.max_iter):
                    if estimator.shuffle:
                        order = _shuffled(order, estimator._random_state)
                    if self._epoch(order if estimator.shuffle else None):
                        break
            except KeyboardInterrupt:
                warnings.warn("Training interrupted by user.", stacklevel=2)
            finally:
                self._epochs.store()
                pool.give_back(self._epochs)
        if estimator.early_stopping:
            estimator.coefs_ = estimator._best_coefs
            estimator.intercepts_ = estimator._best_intercepts

    def _epoch(self, order: np.ndarray | None) -> bool:
        """Train an epoch and do everything that follows it; whether it was the last."""
        estimator = self._estimator
        total = self._train(order)
        estimator.n_iter_ += 1
        estimator.loss_ = self._loss_type(total / self._rows)
        estimator.t_ += self._rows
        estimator.loss_curve_.append(estimator.loss_)
        self._bar.show({"loss": estimator.loss_})
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
        if estimator.early_stopping or self._validation is not None:
            self._epochs.store()
        if self._validation is not None:
            estimator.validation_loss_curve_.append(estimator._loss_of(self._validation))
        estimator._update_no_improvement_count(estimator.early_stopping, *self._scored)
        estimator._optimizer.iteration_ends(estimator.t_)
        if self._gave_up() or self._incremental:
            return True
        if estimator.n_iter_ == estimator.max_iter:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) "
                "reached and the optimization hasn't converged yet.",
                _ConvergenceWarning,
                stacklevel=2,
            )
        return False

    def _train(self, order: np.ndarray | None) -> float:
        """The sum of the losses of an epoch; whoever cannot go on hands over to scikit-learn."""
        try:
            return self._epochs.train(order, self._bar.move)
        except HandedOver as rest:
            self._epochs.store()
            self._estimator._check_honoured(rest.reason)
            self._estimator._hand_over(f"{rest.reason}; the rest is as scikit-learn does it")
            epochs = TheirEpochs(self._estimator, self._samples, self._batch_rows)
            self._epochs = epochs
            return rest.total + epochs.train(order, self._bar.move, rest.step)

    def _gave_up(self) -> bool:
        """Whether training stops because nothing has improved for too long."""
        estimator = self._estimator
        if estimator._no_improvement_count <= estimator.n_iter_no_change:
            return False
        what = "Validation score" if estimator.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={estimator.tol:f} for "
            f"{estimator.n_iter_no_change:d} consecutive epochs."
        )
        if estimator._optimizer.trigger_stopping(message, estimator.verbose):
            return True
        estimator._no_improvement_count = 0
        return False


def _shuffled(order: np.ndarray, random_state: np.random.RandomState) -> np.ndarray:
    """What ``sklearn.utils.shuffle`` gives, which spends a small net's epoch on its checks."""
    places = np.arange(len(order))
    random_state.shuffle(places)
    return order[places]
