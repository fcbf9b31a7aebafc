"""The rows that an estimator trains on or is scored on, as scikit-learn has checked them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..optional import require
from .versions import TAKES_WEIGHTS

_model_selection = require("sklearn.model_selection", extra="sklearn")


class Samples(NamedTuple):
    """Rows, targets and weights.

    Parameters
    ----------
    x : ndarray or sparse matrix (N, I)
    y : ndarray (N, O)
        A column a class, or values.
    weights : ndarray (N,) or None
    """

    x: Any
    y: np.ndarray
    weights: np.ndarray | None


def split(estimator: Any, samples: Samples) -> tuple[Samples, Samples]:
    """Samples to train on, and those that scikit-learn sets apart to score.

    Raises
    ------
    ValueError
        For a split that scikit-learn refuses.
    """
    stratified = hasattr(estimator, "classes_") and estimator.n_outputs_ == 1
    parts = _model_selection.train_test_split(
        *(part for part in samples if part is not None),
        random_state=estimator._random_state,
        test_size=estimator.validation_fraction,
        stratify=samples.y if stratified else None,
    )
    if samples.weights is None:
        parts += [None, None]
    training, scored = Samples(*parts[::2]), Samples(*parts[1::2])
    if scored.x.shape[0] < 2 and TAKES_WEIGHTS:  # the versions that do so check this too
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' "
            "or the size of your dataset."
        )
    return training, scored


def labels_of(estimator: Any, samples: Samples) -> np.ndarray:
    """Targets as a user gives them: class labels, or values."""
    if hasattr(estimator, "classes_"):
        return estimator._label_binarizer.inverse_transform(samples.y)
    return samples.y


def batch_rows_of(estimator: Any, rows: int) -> int:
    """Rows of a batch, out of so many."""
    return min(200 if estimator.batch_size == "auto" else int(estimator.batch_size), rows)
