"""What scikit-learn's estimator trains, in fastnn's terms: layers, loss, optimizer, plan."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .. import backend as backends
from ..kernels.contract import Loss, Plan
from ..kernels.formulas import ACTIVATIONS as FORMULAS
from ..kernels.formulas import (
    BINARY_LOG_LOSS,
    LOSSES,
    POISSON_DEVIANCE,
    UPDATES,
    UpdateFormula,
)
from ..layers import ACTIVATIONS as LAYERS
from ..layers import Dropout, Layer, Linear, Sigmoid, Softmax
from ..optional import require
from ..plan import Training, lower
from ..updates import scalars
from .versions import optimizers

_xlogy = require("scipy.special", extra="sklearn").xlogy

THEIR_ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
"""Names of hidden activations that scikit-learn has."""
_LAYERS = {"logistic": Sigmoid} | {
    name: LAYERS[name] for name, formula in FORMULAS.items() if not formula.learned
}
OUR_ACTIVATIONS = tuple(name for name in _LAYERS if name not in THEIR_ACTIVATIONS)
"""Names of those that fastnn adds: all that train no numbers of their own."""
_OUTPUTS = {"softmax": Softmax, "logistic": Sigmoid}
"""Layers of output activations; others leave the last sums as they are."""


class AdamWOptimizer(optimizers.AdamOptimizer):
    """scikit-learn's Adam with a weight decay, which only fastnn's engine applies.

    Parameters
    ----------
    weight_decay : float
    """

    def __init__(self, *arguments: Any, weight_decay: float) -> None:
        super().__init__(*arguments)
        self.weight_decay = weight_decay


class Shape(NamedTuple):
    """All that a plan depends on besides its batches; hashable.

    Parameters
    ----------
    widths : tuple of int
        Columns of the data, then outputs of each layer.
    activation : str
        Of the hidden layers.
    output : str
        What follows the last layer; scikit-learn's ``out_activation_``.
    loss : str
        "log_loss", "squared_error" or "poisson".
    dropout : tuple of float
        A probability for each hidden layer; empty for none.
    dtype : str
    """

    widths: tuple[int, ...]
    activation: str
    output: str
    loss: str
    dropout: tuple[float, ...]
    dtype: str

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The names that weight and bias of each layer have in a plan."""
        step = 3 if self.dropout else 2
        return tuple(
            (f"{step * number}.weight", f"{step * number}.bias")
            for number in range(len(self.widths) - 1)
        )

    def layers(self, with_output: bool) -> list[Layer]:
        """The network; with the output's activation, or up to the logits."""
        layers: list[Layer] = []
        for number, (inputs, outputs) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            if number:
                layers.append(_LAYERS[self.activation]())
                if self.dropout:
                    layers.append(Dropout(self.dropout[number - 1]))
            layers.append(Linear(inputs, outputs))
        if with_output and self.output in _OUTPUTS:
            layers.append(_OUTPUTS[self.output]())
        return layers


def shape_of(estimator: Any) -> Shape:
    """The shape of an estimator whose weights are there."""
    coefs = estimator.coefs_
    return Shape(
        (coefs[0].shape[0], *(weight.shape[1] for weight in coefs)),
        estimator.activation,
        estimator.out_activation_,
        getattr(estimator, "loss", "squared_error"),
        estimator._dropout_of_layers(),
        coefs[0].dtype.name,
    )


@lru_cache(maxsize=64)
def prediction_plan(shape: Shape, rows: int, chunk_rows: int) -> Plan:
    """The plan that predicts so many rows, the most that are walked at once given."""
    layers = shape.layers(with_output=True)
    return lower(layers, shape.widths[0], rows, shape.dtype, chunk_rows=chunk_rows)


@lru_cache(maxsize=64)
def training_plan(
    shape: Shape,
    rows: int,
    update: UpdateFormula | None,
    penalised: bool,
    chunk_rows: int,
    most_threads: int,
) -> Plan:
    """The plan of a step over so many rows, with the threads that pay for it.

    Without an update it stores gradients instead.
    """
    plan = lower(
        shape.layers(with_output=False),
        shape.widths[0],
        rows,
        shape.dtype,
        loss=_loss(shape),
        training=Training(update, keep_gradients=update is None, record_squares=penalised),
        chunk_rows=chunk_rows,
    )
    threads = 1 if most_threads == 1 else min(backends.threads_for(plan), most_threads)
    return replace(plan, threads=threads)


def _loss(shape: Shape) -> Loss:
    """The loss; gradients are summed over outputs, and so are the losses recorded."""
    if shape.loss == "poisson":
        return Loss(POISSON_DEVIANCE, sums=True)
    if shape.loss == "squared_error":
        # half the squared error is Huber's loss before it turns linear
        return Loss(LOSSES["huber"], (("delta", math.inf),), sums=True)
    eps = np.finfo(shape.dtype).eps
    limits = (-math.log1p(-eps), -math.log(eps))  # it clips the probabilities it reports losses of
    if shape.output == "softmax":
        return Loss(limits=limits)
    return Loss(BINARY_LOG_LOSS, sums=True, limits=limits)


def loss_share(shape: Shape) -> float:
    """What scikit-learn reports of a loss summed over the outputs."""
    return 1.0 / shape.widths[-1] if shape.loss == "squared_error" else 1.0


def loss_offsets(shape: Shape, y: np.ndarray) -> np.ndarray | None:
    """What scikit-learn adds to the loss of each row, by its targets alone; None for nothing."""
    if shape.loss != "poisson":
        return None
    return (_xlogy(y, y) - y).sum(axis=1, dtype=np.float64)


def has_penalty(estimator: Any) -> bool:
    """Whether the loss contains the squares of the weights; a decay takes their place."""
    return estimator.alpha > 0 and not isinstance(estimator._optimizer, AdamWOptimizer)


def targets_of(shape: Shape, y: np.ndarray) -> np.ndarray:
    """Targets (N, O) of scikit-learn's, as the kernels take them."""
    if shape.output == "softmax":
        return y.argmax(axis=1)
    return np.ascontiguousarray(y, shape.dtype)


class Update(NamedTuple):
    """An optimizer's formula and how scikit-learn's settings go into it."""

    formula: UpdateFormula
    settings: dict[str, Any]
    slots: tuple[str, ...]
    """The attributes of scikit-learn's optimizer that hold the slots, in order."""

    def scalars(self, optimizer: Any, penalties: np.ndarray, dtype: str) -> np.ndarray:
        """The scalars of the steps to come, (steps, 2, S), from the penalty factor of each."""
        is_adam = isinstance(optimizer, optimizers.AdamOptimizer)
        rate = optimizer.learning_rate_init if is_adam else optimizer.learning_rate
        settings = {"weight_decay": penalties} | self.settings
        numbers = getattr(optimizer, "t", 0) + 1.0 + np.arange(len(penalties))
        rates = np.full(len(penalties), float(rate))
        return scalars(self.formula, numbers, rates, settings, dtype)


def count_steps(optimizer: Any, steps: int) -> None:
    """Tell scikit-learn's optimizer of steps that were made, as they leave it."""
    if steps and isinstance(optimizer, optimizers.AdamOptimizer):
        optimizer.t += steps
        optimizer.learning_rate = (
            optimizer.learning_rate_init
            * np.sqrt(1 - optimizer.beta_2**optimizer.t)
            / (1 - optimizer.beta_1**optimizer.t)
        )


def update_of(optimizer: Any) -> Update:
    """The update of scikit-learn's optimizer, which may be older than the estimator's settings."""
    if isinstance(optimizer, optimizers.SGDOptimizer):
        formula = UPDATES["nesterov" if optimizer.nesterov else "momentum"]
        settings = {"momentum": optimizer.momentum, "learning_rate_in_velocity": True}
        return Update(formula, settings, ("velocities",))
    settings = {
        "betas": (optimizer.beta_1, optimizer.beta_2),
        "eps": optimizer.epsilon,
        "eps_on_corrected": False,
    }
    if isinstance(optimizer, AdamWOptimizer):
        settings["weight_decay"] = optimizer.weight_decay
        return Update(UPDATES["adamw"], settings, ("ms", "vs"))
    return Update(UPDATES["adam"], settings, ("ms", "vs"))


def optimizer_suits(estimator: Any) -> bool:
    """Whether the optimizer that is there, if one is, has slots of the weights' shapes.

    It may have been made before L-BFGS trained another network.
    """
    optimizer = getattr(estimator, "_optimizer", None)
    if optimizer is None:
        return True
    shapes = [array.shape for array in estimator.coefs_ + estimator.intercepts_]
    slots = update_of(optimizer).slots
    return all(shapes == [array.shape for array in getattr(optimizer, slot)] for slot in slots)


def new_optimizer(estimator: Any) -> Any:
    """scikit-learn's optimizer, as its estimator makes it."""
    params = estimator.coefs_ + estimator.intercepts_
    if estimator.solver == "sgd":
        return optimizers.SGDOptimizer(
            params,
            estimator.learning_rate_init,
            estimator.learning_rate,
            estimator.momentum,
            estimator.nesterovs_momentum,
            estimator.power_t,
        )
    settings = (
        params,
        estimator.learning_rate_init,
        estimator.beta_1,
        estimator.beta_2,
        estimator.epsilon,
    )
    if estimator._decoupled:
        return AdamWOptimizer(*settings, weight_decay=estimator.weight_decay)
    return optimizers.AdamOptimizer(*settings)
