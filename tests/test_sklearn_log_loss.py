"""The binary log loss as scikit-learn reports it, of data that nobody scaled."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn import neural_network
from sklearn.datasets import load_breast_cancer

import fastnn.sklearn
from fastnn.kernels.formulas import binary_log_loss
from fastnn.kernels.tracing import NumpyMath, value_and_derivative

OUTPUTS = np.array([-800.0, -720, -40, -30.2, -1, 0, 1, 20.7, 30.2, 36.5, 40, 720, 800])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-10), ("float32", 1e-3)])
@pytest.mark.parametrize("targets", ["binary", "multilabel"])
def test_saturated_outputs_lose_what_scikit_learn_says(
    dtype: str, bound: float, targets: str
) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    y = np.stack([y, 1 - y], 1) if targets == "multilabel" else y
    settings = {"hidden_layer_sizes": (20,), "max_iter": 3, "random_state": 0}
    theirs, ours = (
        home.MLPClassifier(**settings).fit(x.astype(dtype), y)
        for home in (neural_network, fastnn.sklearn)
    )
    assert ours.engine_ == "fastnn"
    assert max(theirs.loss_curve_) > 5  # far from what a sensible network loses
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=bound)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_the_slope_is_that_of_the_probability(target: float) -> None:
    math = NumpyMath("float64")
    losses, slopes = math.evaluate(
        value_and_derivative(binary_log_loss), OUTPUTS, np.full_like(OUTPUTS, target)
    )
    truth = np.logaddexp(0.0, -OUTPUTS if target else OUTPUTS)
    # 1 - p, and p - p^2 in the slope, where NumPy rounds both terms, are off by roundings of 1
    eps = np.finfo(float).eps
    bound = 2 * eps / np.maximum(np.exp(-truth), eps)
    assert (np.abs(losses - truth) <= bound + 4 * eps * truth).all()
    assert (np.abs(slopes - (expit(OUTPUTS) - target)) <= bound + 4 * eps).all()


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_nan_stays_nan(target: float) -> None:
    loss, slope = NumpyMath("float64").evaluate(
        value_and_derivative(binary_log_loss), np.array([np.nan]), np.array([target])
    )
    assert np.isnan(loss).all() and np.isnan(slope).all()
