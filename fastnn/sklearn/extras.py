"""The arguments that fastnn adds to scikit-learn's estimators."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..kernels.contract import MOST_THREADS
from ..optional import require
from .network import OUR_ACTIVATIONS, THEIR_ACTIVATIONS
from .samples import Samples

_checks = require("sklearn.utils._param_validation", extra="sklearn")
_utils = require("sklearn.utils", extra="sklearn")
_validation = require("sklearn.utils.validation", extra="sklearn")
_class_weight = require("sklearn.utils.class_weight", extra="sklearn")

COMMON: dict[str, Any] = {
    "dropout": 0.0,
    "weight_decay": 0.01,
    "n_threads": None,
    "progress": False,
}
"""Arguments of both estimators, with their defaults."""
CLASSIFIER = {**COMMON, "class_weight": None}
_CONSTRAINTS: dict[str, list[Any]] = {
    "activation": [_checks.StrOptions({*THEIR_ACTIVATIONS, *OUR_ACTIVATIONS})],
    "solver": [_checks.StrOptions({"lbfgs", "sgd", "adam", "adamw"})],
    "dropout": [_checks.Interval(Real, 0, 1, closed="left"), "array-like"],
    "weight_decay": [_checks.Interval(Real, 0, None, closed="left")],
    "n_threads": [_checks.Interval(Integral, 1, MOST_THREADS, closed="both"), None],
    "progress": ["boolean", None],
    "class_weight": [dict, list, _checks.StrOptions({"balanced"}), None],
}


def constraints(theirs: dict[str, Any], extras: dict[str, Any]) -> dict[str, Any]:
    """scikit-learn's constraints of parameters, with those of the extras."""
    names = ("activation", "solver", *extras)
    return {**theirs, **{name: _CONSTRAINTS[name] for name in names}}


def constructor(original: type, extras: dict[str, Any]) -> Callable[..., None]:
    """An ``__init__`` with the arguments of an estimator, and the extras behind them."""

    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        own = {name: keywords.pop(name, default) for name, default in extras.items()}
        original.__init__(self, *arguments, **keywords)  # type: ignore[misc]
        vars(self).update(own)

    return _extended(__init__, original.__init__, extras)  # type: ignore[misc]


def fit_method(original: Callable[..., Any]) -> Callable[..., Any]:
    """The ``fit`` of an estimator, with ``validation_data`` behind its arguments."""

    def fit(self: Any, *arguments: Any, validation_data: Any = None, **keywords: Any) -> Any:
        """Train, as scikit-learn's estimator does.

        Parameters
        ----------
        X : array or sparse matrix (N, I)
        y : array (N,) or (N, O)
            Classes, or values.
        sample_weight : array (N,), optional
            From scikit-learn 1.7 on.
        validation_data : (X, y) or (X, y, sample_weight), optional, keyword only
            Its loss after each epoch, without the penalty, goes into ``validation_loss_curve_``;
            ``early_stopping`` scores it instead of a share of the training data.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For data that do not fit one another, and where weights become infinite.
        """
        self._validation_data = validation_data
        try:
            return original(self, *arguments, **keywords)
        finally:
            del self._validation_data

    return _extended(fit, original, {"validation_data": None})


def _extended(
    function: Any, original: Callable[..., Any], extras: dict[str, Any]
) -> Callable[..., Any]:
    """The function, with the signature of another and further arguments behind it."""
    theirs = inspect.signature(original)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in extras.items()
    ]
    function.__signature__ = theirs.replace(parameters=[*theirs.parameters.values(), *added])
    return function


def dropout_of_layers(estimator: Any) -> tuple[float, ...]:
    """The probability for each hidden layer; empty where none drops anything.

    Raises
    ------
    ValueError
        For another number of them, or one that is not from 0 to below 1.
    """
    if type(estimator.dropout) is float and estimator.dropout == 0.0:
        return ()
    hidden = len(estimator.coefs_) - 1
    given = np.asarray(estimator.dropout)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != hidden):
        raise ValueError(
            f"dropout is {estimator.dropout!r}; expected a probability, or one for each of the "
            f"{hidden} hidden layers"
        )
    if given.dtype.kind not in "fiu" or not np.all((given >= 0) & (given < 1)):
        raise ValueError(f"dropout is {estimator.dropout!r}; expected numbers from 0 to below 1")
    return tuple(np.broadcast_to(given, hidden).tolist()) if given.any() else ()


def weighted_by_class(estimator: Any, samples: Samples, incremental: bool) -> Samples:
    """Samples whose weights contain those of their classes.

    Raises
    ------
    ValueError
        For "balanced" in ``partial_fit``, which does not see all the rows.
    """
    class_weight = estimator.class_weight
    if class_weight is None:
        return samples
    if incremental and isinstance(class_weight, str):
        raise ValueError(
            "class_weight is 'balanced', which partial_fit cannot do: it does not see all rows; "
            "expected a dict of weights"
        )
    labels = estimator._label_binarizer.inverse_transform(samples.y)
    weights = _class_weight.compute_sample_weight(class_weight, labels).astype(samples.x.dtype)
    if samples.weights is not None:
        weights *= samples.weights
    return samples._replace(weights=weights)


def validation_samples(estimator: Any, data: Any) -> Samples | None:
    """``validation_data`` as training data are, or None.

    Raises
    ------
    TypeError, ValueError
        For what is not (X, y) or (X, y, sample_weight), or does not fit the training data.
    """
    if data is None:
        return None
    if not isinstance(data, (tuple, list)) or not 2 <= len(data) <= 3:
        raise TypeError(
            f"validation_data is {type(data).__name__}; expected (X, y) or (X, y, sample_weight)"
        )
    try:
        x = _utils.check_array(
            data[0], accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32)
        )
        if x.shape[1] != estimator.n_features_in_:
            raise ValueError(f"X has {x.shape[1]} columns; expected {estimator.n_features_in_}")
        _utils.check_consistent_length(x, data[1])
        y = _targets(estimator, data[1])
        weights = _validation._check_sample_weight(data[2], x) if len(data) == 3 else None
    except ValueError as error:
        raise ValueError(f"validation_data: {error}") from None
    return Samples(x, y, weights)


def _targets(estimator: Any, y: Any) -> np.ndarray:
    if hasattr(estimator, "classes_"):
        unknown = np.setdiff1d(_utils.multiclass.unique_labels(y), estimator.classes_)
        if unknown.size:
            raise ValueError(f"y has classes {unknown}; expected some of {estimator.classes_}")
        return estimator._label_binarizer.transform(y).astype(bool)
    values = _utils.check_array(y, ensure_2d=False, dtype="numeric")
    values = values.reshape(len(values), -1)
    if values.shape[1] != estimator.n_outputs_:
        raise ValueError(f"y has {values.shape[1]} columns; expected {estimator.n_outputs_}")
    return values


def check_lbfgs(estimator: Any) -> None:
    """Raise ValueError for an extra that only stochastic solvers have a use for."""
    if dropout_of_layers(estimator):
        given = f"dropout is {estimator.dropout!r}"
    elif estimator._validation_data is not None:
        given = "validation_data are given"
    else:
        return
    raise ValueError(f"{given}, which needs a solver of epochs; the solver is 'lbfgs'")


def uses_extras(estimator: Any) -> str | None:
    """The extra argument that only fastnn's engine honours and that is in use, or None."""
    if estimator.activation not in THEIR_ACTIVATIONS:
        return f"activation={estimator.activation!r}"
    if estimator._decoupled:
        return "solver='adamw'"
    if dropout_of_layers(estimator):
        return f"dropout={estimator.dropout!r}"
    if getattr(estimator, "class_weight", None) is not None:
        return f"class_weight={estimator.class_weight!r}"
    return "validation_data" if estimator._validation_data is not None else None
