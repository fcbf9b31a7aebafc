"""What differs between the versions of scikit-learn that the estimators stand on."""

from __future__ import annotations

import inspect
from typing import Any

from ..optional import require

network: Any = require("sklearn.neural_network._multilayer_perceptron", extra="sklearn")
"""Where scikit-learn has its estimators."""
optimizers: Any = require("sklearn.neural_network._stochastic_optimizers", extra="sklearn")
"""Where it has their optimizers."""
validation: Any = require("sklearn.utils.validation", extra="sklearn")
"""Where it checks data."""
TAKES_WEIGHTS = (
    "sample_weight" in inspect.signature(network.BaseMultilayerPerceptron._backprop).parameters
)
"""Whether it trains with sample weights (from 1.7 on)."""


def if_weighted(weights: object) -> tuple[object, ...]:
    """The argument for sample weights, where this version has one."""
    return (weights,) if TAKES_WEIGHTS else ()


def validated(estimator: Any, X: Any) -> Any:
    """Rows to predict, checked as scikit-learn checks them."""
    check = getattr(validation, "validate_data", None)
    arguments = {"accept_sparse": ["csr", "csc"], "reset": False}
    if check is None:  # before 1.6 it was a method
        return estimator._validate_data(X, **arguments)
    return check(estimator, X, **arguments)
