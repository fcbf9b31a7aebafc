"""The estimators: scikit-learn's own classes with fastnn's arithmetic."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from .. import backend as backends
from . import engine, extras, predicting, sparse, threads
from .full_batch import FullBatch
from .network import optimizer_suits
from .samples import Samples
from .training import StochasticTraining
from .versions import TAKES_WEIGHTS, if_weighted, network, validated

_OF_A_TRAINING = ("_decoupled", "_validation_data", "_full_batch")
"""Attributes that an estimator has while it trains."""


class _Swapped(network.BaseMultilayerPerceptron):
    """What both estimators have in place of scikit-learn's arithmetic.

    Constructor, checks, random stream, warnings and attributes are those of the class that stands
    behind it.
    """

    solver: str
    # of estimators that were pickled before there were these arguments
    dropout: Any = 0.0
    weight_decay = 0.01
    class_weight: Any = None
    n_threads: int | None = None
    progress: bool | None = False

    _decoupled = False
    _dropout_seed = 0
    _validation_data: Any = None
    _full_batch: FullBatch | None = None

    # -- copies, which another thread may make amid a training --

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name, and those of estimators among them if ``deep``."""
        params = super().get_params(deep)
        return params | {"solver": "adamw"} if self._decoupled else params

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if state.get("_decoupled"):
            state["solver"] = "adamw"
        return {name: value for name, value in state.items() if name not in _OF_A_TRAINING}

    # -- training --

    def _fit(self, X: Any, y: Any, *arguments: Any, **keywords: Any) -> Any:
        if self.solver != "adamw":
            return super()._fit(X, y, *arguments, **keywords)
        # scikit-learn asks for its own names in many places
        self.solver, self._decoupled = "adam", True
        try:
            return super()._fit(X, y, *arguments, **keywords)
        finally:
            self.solver = "adamw"
            del self._decoupled

    def _check_solver(self) -> bool:
        return self.solver == "adamw" or super()._check_solver()

    def _dropout_of_layers(self) -> tuple[float, ...]:
        return extras.dropout_of_layers(self)

    def _fit_stochastic(self, X: Any, y: np.ndarray, *arguments: Any) -> None:
        incremental = arguments[-1]
        samples = Samples(X, y, arguments[0] if TAKES_WEIGHTS else None)
        reason = self._why_theirs(samples, arguments[-2], incremental)
        if reason is not None:
            self._hand_over(reason)
            super()._fit_stochastic(X, y, *arguments)
            return
        samples = extras.weighted_by_class(self, samples, incremental)
        validation = extras.validation_samples(self, self._validation_data)
        if not self.loss_curve_:
            self.__dict__.pop("validation_loss_curve_", None)
        if validation is not None and not hasattr(self, "validation_loss_curve_"):
            self.validation_loss_curve_: list[float] = []
        if self._dropout_of_layers() and not (incremental and hasattr(self, "_optimizer")):
            self._dropout_seed = int(self._random_state.randint(2**31 - 1))
        self._note_engine("fastnn", sparse.how_dense(samples.x))
        StochasticTraining(self, sparse.dense(samples), validation, incremental).run()

    def _fit_lbfgs(self, X: Any, y: np.ndarray, *arguments: Any) -> None:
        extras.check_lbfgs(self)
        predicting.check_widths(self, arguments[-1])
        samples = Samples(X, y, arguments[0] if TAKES_WEIGHTS else None)
        reason = self._why_theirs(samples, arguments[-1], incremental=False)
        if reason is not None:
            self._hand_over(reason)
            super()._fit_lbfgs(X, y, *arguments)
            return
        samples = extras.weighted_by_class(self, samples, incremental=False)
        self._note_engine("fastnn", sparse.how_dense(X))
        samples = sparse.dense(samples)
        flops = backends.training_work(sum(it.size for it in self.coefs_), len(y)).flops
        with threads.granted(self.n_threads, flops) as most:
            self._full_batch = FullBatch(self, samples, self._dtype_of_lbfgs(samples), most)
            try:
                super()._fit_lbfgs(X, y, *arguments)
            finally:
                del self._full_batch

    def _dtype_of_lbfgs(self, samples: Samples) -> str:
        """What scikit-learn computes in: SciPy leaves the weights their dtype."""
        dtypes = [samples.x.dtype, self.coefs_[0].dtype]
        return np.result_type(*dtypes, *([] if samples.y.dtype == bool else [samples.y.dtype])).name

    def _loss_grad_lbfgs(self, packed: np.ndarray, *arguments: Any) -> Any:
        if self._full_batch is None:
            return super()._loss_grad_lbfgs(packed, *arguments)
        self._unpack(packed)
        return self._full_batch(packed)

    def _loss_of(self, samples: Samples) -> float:
        """scikit-learn's loss on samples, without the penalty."""
        name = getattr(self, "loss", "squared_error")
        if name == "log_loss" and self.out_activation_ == "logistic":
            name = "binary_log_loss"
        outputs = self._forward_pass_fast(samples.x, check_input=False)
        loss = network.LOSS_FUNCTIONS[name]
        return loss(samples.y, outputs, *if_weighted(samples.weights))

    # -- who trains --

    def _why_theirs(
        self, samples: Samples, layer_units: list[int], incremental: bool
    ) -> str | None:
        """Why scikit-learn must train; None where fastnn can.

        Parameters
        ----------
        samples : Samples
        layer_units : list of int
            Widths that the data and the arguments ask for, which those of weights that are there
            may not be.
        incremental : bool

        Raises
        ------
        ValueError
            Where scikit-learn would drop an argument that is in use.
        """
        reason = engine.why_not() or sparse.why_not_dense(self, samples.x, incremental)
        if not predicting.is_ours(self):
            reason = "the weights are not all float32 or all float64"
        elif not predicting.suits(self, layer_units):
            reason = f"the weights are those of another network than {layer_units}"
        elif incremental and self.solver != "lbfgs" and not optimizer_suits(self):
            reason = "the optimizer is that of another network"
        elif not all(array.flags.writeable for array in self.coefs_ + self.intercepts_):
            reason = "the weights are read-only"
        self._check_honoured(reason)
        return reason

    def _check_honoured(self, reason: str | None) -> None:
        extra = None if reason is None else extras.uses_extras(self)
        if extra is not None:
            raise ValueError(f"{extra} needs fastnn's engine, which cannot go on: {reason}")

    def _hand_over(self, reason: str) -> None:
        """Note that scikit-learn trains from here on, unless it would drop an argument."""
        self._check_honoured(reason)
        self._note_engine("scikit-learn", reason)

    def _note_engine(self, name: str, reason: str) -> None:
        self.engine_, self.engine_reason_ = name, reason
        if self.verbose or os.environ.get("FASTNN_VERBOSE") == "1":
            print(f"{type(self).__name__}: {name} trains ({reason})", file=sys.stderr)

    # -- prediction --

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> np.ndarray:
        if check_input:
            X = validated(self, X)
        outputs = predicting.many_outputs(self, X)
        if outputs is not None:
            return outputs
        return self._their_outputs(X)

    def _their_outputs(self, X: Any) -> np.ndarray:
        return super()._forward_pass_fast(X, check_input=False)


class MLPClassifier(_Swapped, network.MLPClassifier):
    """scikit-learn's ``MLPClassifier``, trained by fastnn.

    Arguments, attributes and results are those of :class:`sklearn.neural_network.MLPClassifier`,
    results to rounding; what follows is added, by keyword, and changes nothing when left out.

    Parameters
    ----------
    activation : str
        Any activation of fastnn besides scikit-learn's: "leaky_relu", "elu", "selu", "gelu",
        "gelu_tanh", "silu", "softplus".
    solver : str
        "adamw" besides scikit-learn's: Adam after each weight has shrunk by ``weight_decay`` times
        the learning rate; ``alpha`` does nothing then.
    weight_decay : float, default 0.01
        Of "adamw".
    dropout : float or sequence of float, default 0.0
        The share of each hidden layer's outputs that training drops, or one for each layer.
    class_weight : dict or "balanced", optional
        Weights by class, multiplied into the sample weights; "balanced" makes every class count
        the same.
    n_threads : int, optional
        At most so many; by default the machine's, shared with others that train at once.
    progress : bool or None, default False
        Show a bar; None where standard error is a terminal.

    Attributes
    ----------
    engine_ : str
        Who trained last: "fastnn", or "scikit-learn" where it had to or is faster.
    engine_reason_ : str
        Why, in words; with ``verbose``, or ``FASTNN_VERBOSE=1`` in the environment, standard error
        has it too.
    validation_loss_curve_ : list of float
        With ``fit(..., validation_data=...)``, its loss after each epoch.

    Examples
    --------
    >>> import fastnn
    >>> X, y = fastnn.data.digits()
    >>> classifier = MLPClassifier(hidden_layer_sizes=(32,), random_state=0, tol=0.02)
    >>> classifier.fit(X[:1500], y[:1500]).score(X[1500:], y[1500:]) > 0.8
    True
    >>> classifier.engine_
    'fastnn'
    """

    __init__ = extras.constructor(network.MLPClassifier, extras.CLASSIFIER)
    fit = extras.fit_method(network.MLPClassifier.fit)
    _parameter_constraints = extras.constraints(
        network.MLPClassifier._parameter_constraints, extras.CLASSIFIER
    )

    def predict(self, X: Any) -> np.ndarray:
        """Classes of rows, (N,), or (N, O) where rows have several labels."""
        outputs = predicting.few_outputs(self, X)
        if outputs is None:
            return super().predict(X)
        binarizer = self._label_binarizer
        if binarizer.y_type_ == "multiclass" and not binarizer.sparse_input_:
            return binarizer.classes_.take(outputs.argmax(axis=1))
        return binarizer.inverse_transform(outputs.ravel() if self.n_outputs_ == 1 else outputs)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (N, classes)."""
        outputs = predicting.few_outputs(self, X)
        if outputs is None:
            return super().predict_proba(X)
        return np.hstack([1 - outputs, outputs]) if self.n_outputs_ == 1 else outputs


class MLPRegressor(_Swapped, network.MLPRegressor):
    """scikit-learn's ``MLPRegressor``, trained by fastnn.

    Arguments, attributes and results are those of :class:`sklearn.neural_network.MLPRegressor`,
    results to rounding; added are those of :class:`MLPClassifier`, but for ``class_weight``.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> regressor = MLPRegressor(hidden_layer_sizes=(16,), solver="lbfgs", random_state=0)
    >>> regressor = regressor.fit(X, np.sin(3 * X[:, 0]))
    >>> regressor.score(X, np.sin(3 * X[:, 0])) > 0.99
    True
    """

    __init__ = extras.constructor(network.MLPRegressor, extras.COMMON)
    fit = extras.fit_method(network.MLPRegressor.fit)
    _parameter_constraints = extras.constraints(
        network.MLPRegressor._parameter_constraints, extras.COMMON
    )

    def predict(self, X: Any) -> np.ndarray:
        """Values for rows, (N,), or (N, O) where there are several."""
        outputs = predicting.few_outputs(self, X)
        if outputs is None:
            return super().predict(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs
