"""The estimators: scikit-learn's own classes with fastnn's arithmetic."""

from __future__ import annotations

from ..optional import require

_network = require("sklearn.neural_network", extra="sklearn")


class MLPClassifier(_network.MLPClassifier):
    """scikit-learn's classifier, trained by fastnn."""


class MLPRegressor(_network.MLPRegressor):
    """scikit-learn's regressor, trained by fastnn."""
