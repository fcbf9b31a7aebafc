"""Networks from scikit-learn's multi-layer perceptrons, and back to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import optional
from ..layers import Activation, Layer
from ..losses import BCEWithLogitsLoss, CrossEntropyLoss
from ..model import Sequential
from .arrays import from_numpy, to_numpy

_HIDDEN = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
"""fastnn's name of each of scikit-learn's hidden activations; fastnn.sklearn has more, under
fastnn's own names."""


def from_sklearn(mlp: Any) -> Sequential:
    """A network with the weights of a fitted MLPClassifier or MLPRegressor of scikit-learn.

    Parameters
    ----------
    mlp : MLPClassifier or MLPRegressor
        Fitted, scikit-learn's or one of ``fastnn.sklearn``; its weights are copied.

    Returns
    -------
    Sequential
        Of the dtype of the weights. A classifier's ends in Softmax, or for two classes and for
        several labels a row in Sigmoid, so that ``predict_proba`` agrees, and has its classes as
        names; to train it on, Sigmoid takes ``loss="binary_cross_entropy"``. A regressor's gives
        what its ``predict`` gives.

    Raises
    ------
    TypeError
        Another estimator.
    ValueError
        It is not fitted.

    Examples
    --------
    >>> from sklearn.neural_network import MLPRegressor
    >>> mlp = MLPRegressor(hidden_layer_sizes=3, max_iter=500, solver="lbfgs", random_state=0)
    >>> mlp = mlp.fit([[0.0], [1.0]], [1.0, 2.0])
    >>> bool((abs(from_sklearn(mlp).predict([[0.5]]) - mlp.predict([[0.5]])) < 1e-12).all())
    True
    """
    neural_network = _neural_network()
    if not isinstance(mlp, (neural_network.MLPClassifier, neural_network.MLPRegressor)):
        raise TypeError(
            f"mlp is a {type(mlp).__name__}; expected a fitted MLPClassifier or MLPRegressor"
        )
    if not hasattr(mlp, "coefs_"):
        raise ValueError(f"mlp is {mlp!r}, which is not fitted; call its fit() first")
    hidden = [_HIDDEN.get(mlp.activation, mlp.activation)] * (len(mlp.coefs_) - 1)
    weights = list(zip(mlp.coefs_, mlp.intercepts_, strict=True))
    model = from_numpy(weights, [*hidden, _last(mlp.out_activation_)])
    if hasattr(mlp, "classes_"):
        model.classes = [str(name) for name in mlp.classes_]
    return model


def to_sklearn(model: Sequential) -> Any:
    """A fitted estimator of scikit-learn; see :meth:`Sequential.to_sklearn`."""
    pairs, names = to_numpy(model)
    kind = _kind(model, names[-1])
    weights = [weight for weight, _ in pairs]
    biases = [np.zeros(w.shape[1], w.dtype) if b is None else b for w, b in pairs]
    if kind == "softmax" and weights[-1].shape[1] == 2:
        # scikit-learn has one output for two classes: the logistic function of their difference
        kind = "logistic"
        weights[-1] = weights[-1][:, 1:] - weights[-1][:, :1]
        biases[-1] = biases[-1][1:] - biases[-1][:1]
    classes, y = _targets(kind, weights[-1].shape[1], model.classes)
    mlp = _class(kind)(
        hidden_layer_sizes=tuple(weight.shape[1] for weight in weights[:-1]),
        activation=_hidden(names[:-1]),
    )
    # a step on rows of zeros lets this version of scikit-learn set whatever it sets at first
    mlp.partial_fit(np.zeros((len(y), len(weights[0])), model.dtype), y, **classes)
    mlp.coefs_, mlp.intercepts_ = weights, biases
    mlp.n_iter_, mlp.t_, mlp.loss_curve_ = 0, 0, []
    mlp._no_improvement_count, mlp.best_loss_ = 0, np.inf
    del mlp._optimizer, mlp.loss_
    return mlp


def _neural_network() -> Any:
    return optional.require("sklearn.neural_network", extra="sklearn")


def _last(name: str) -> str | Layer:
    """What follows the last weights of an estimator."""
    if name == "exp":
        return Activation(_exp, name="exp")
    return {"softmax": "softmax", "logistic": "sigmoid", "identity": "identity"}[name]


def _exp(m: Any, x: Any) -> Any:
    return m.exp(x)


def _hidden(names: Sequence[str]) -> str:
    """scikit-learn's name of the one activation that hidden layers have."""
    theirs = {ours: name for name, ours in _HIDDEN.items()}
    if len({*names}) > 1 or not {*names} <= {*theirs}:
        raise ValueError(
            f"to_sklearn does not cover the hidden activations {', '.join(names)}: scikit-learn "
            f"has one for all hidden layers, of {', '.join(theirs)}"
        )
    return theirs[names[0]] if names else "relu"


def _kind(model: Sequential, last: str) -> str:
    """scikit-learn's name of what the outputs are: "softmax", "logistic" or "identity"."""
    if last == "softmax" or (last == "identity" and isinstance(model.loss, CrossEntropyLoss)):
        return "softmax"
    if last == "sigmoid" or (last == "identity" and isinstance(model.loss, BCEWithLogitsLoss)):
        return "logistic"
    if last != "identity":
        raise ValueError(
            f"to_sklearn does not cover the last activation, {last}: scikit-learn's are softmax, "
            "sigmoid and identity"
        )
    return "identity"


def _class(kind: str) -> type:
    """scikit-learn's own class, whatever has been put in its place."""
    neural_network = _neural_network()
    found = neural_network.MLPRegressor if kind == "identity" else neural_network.MLPClassifier
    return next(c for c in found.__mro__ if c.__module__.startswith("sklearn."))


def _targets(
    kind: str, outputs: int, names: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Classes as ``partial_fit`` takes them at first, and targets in which each of them occurs."""
    if kind == "identity":
        return {}, np.zeros((1, outputs) if outputs > 1 else 1)
    count = 2 if outputs == 1 else outputs
    if kind == "logistic" and outputs > 1:
        return {"classes": np.arange(count)}, np.eye(count, dtype=int)  # several labels a row
    named = range(count) if names is None else names
    if len(named) != count:
        raise ValueError(f"classes of the network are {names}; expected {count} names")
    for classes in (_whole_numbers(named), np.array(named)):
        if classes is not None and (classes[1:] > classes[:-1]).all():
            return {"classes": classes}, classes
    raise ValueError(
        f"classes of the network are {names}; scikit-learn takes different ones, in their order"
    )


def _whole_numbers(names: Sequence[Any]) -> np.ndarray | None:
    """The numbers that names spell, if all do, each as a number prints itself."""
    if not all(re.fullmatch(r"0|-?[1-9]\d{0,17}", str(name), re.ASCII) for name in names):
        return None
    return np.array([int(name) for name in names])
