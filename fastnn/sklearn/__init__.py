"""scikit-learn's multi-layer perceptrons, trained by fastnn.

>>> from fastnn.sklearn import MLPClassifier
>>> classifier = MLPClassifier(hidden_layer_sizes=(16,), random_state=0)
"""

from __future__ import annotations

from .estimators import MLPClassifier as MLPClassifier
from .estimators import MLPRegressor as MLPRegressor
from .patching import patch as patch
from .patching import unpatch as unpatch

__all__ = ["MLPClassifier", "MLPRegressor", "patch", "unpatch"]
