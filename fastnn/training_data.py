"""What a network is trained or measured on: rows, targets, weights, batches, and their order."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checks, losses
from .layers import BatchNorm1d, Layer
from .losses import BCEWithLogitsLoss, CrossEntropyLoss, Loss

if TYPE_CHECKING:
    from .kernels.contract import Backend
    from .model import Sequential

ClassWeight = Mapping[int, float] | Sequence[float] | str


class TrainingData:
    """Data, checked: rows, targets, weights, and how they fall into batches.

    Parameters
    ----------
    model : Sequential
    X : array (N, I), or (N, ...) with rows that flatten to I
    y : array
        As the loss takes them.
    loss : Loss
    sample_weight : array (N,), optional
    class_weight : dict, array or "balanced", optional
        Multiplied into the sample weights.
    batch_size : int or "full", default "full"

    Attributes
    ----------
    x : ndarray, or CuPy array where X lies on a GPU
        Rows as the kernels read them.
    y : ndarray
        Targets as they came.
    layers : sequence of Layer
        Those up to the logits.
    targets, weights : ndarray
        As the kernels take them; weights may be None.
    rows : ndarray or None
        Numbers of the rows that are meant, where those are not all.
    count : int
        How many rows are meant.
    batch_rows, steps : int
        Rows of a batch but the last, and batches of an epoch.

    Raises
    ------
    ValueError, TypeError
        For data that do not fit the network or the loss.
    """

    def __init__(
        self,
        model: Sequential,
        X: ArrayLike,
        y: ArrayLike,
        loss: Loss,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        batch_size: int | str = "full",
    ) -> None:
        self.loss, self.dtype = loss, model.dtype
        self.x = model.rows("X", X)
        self.y = arrays.to_host("y", y)
        rows = checks.same_rows("y", self.y, "X", self.x)
        self.layers, self._inputs = model.logit_layers(loss), model.inputs
        self._outputs = self._outputs_of(self.layers)
        self.targets = loss.targets(self.y, self._outputs, self.dtype, rows)
        self._sample_weights = losses.weights_of(sample_weight, rows, self.dtype)
        self._class_weight, self._batch_size = class_weight, batch_size
        self._choose(None)

    def _outputs_of(self, layers: Sequence[Layer]) -> int:
        width = self.x.shape[1]
        for layer in layers:
            width = layer.outputs(width)
        return width

    def suits(self, model: Sequential) -> bool:
        """Whether another network takes the same arrays."""
        if (model.dtype, model.inputs) != (self.dtype, self._inputs):
            return False
        return self._outputs_of(model.logit_layers(self.loss)) == self._outputs

    def of(self, model: Sequential, rows: np.ndarray | None) -> TrainingData:
        """The same arrays for a network that they suit, and some of the rows: nothing is copied.

        Raises
        ------
        ValueError
            For numbers that X has no rows for, or sample weights that are all zero there.
        """
        if rows is not None and not 0 <= rows.min() <= rows.max() < len(self.x):
            raise ValueError(
                f"rows has numbers from {rows.min()} to {rows.max()}; expected 0 to "
                f"{len(self.x) - 1}"
            )
        other = copy.copy(self)
        other.layers = model.logit_layers(self.loss)
        if rows is not None:
            other._choose(rows)
        return other

    def _choose(self, rows: np.ndarray | None) -> None:
        self.rows = rows
        self.count = len(self.x) if rows is None else len(rows)
        self.weights = self._weights()
        self.batch_rows = batch_rows(self._batch_size, self.count)
        self.steps = -(-self.count // self.batch_rows)

    def _weights(self) -> np.ndarray | None:
        """Sample weights times class weights, each where its row is."""
        weights, rows, dtype = self._sample_weights, self.rows, self.dtype
        if rows is not None and weights is not None:
            chosen = losses.weights_of(weights[rows], self.count, dtype)
        else:
            chosen = weights
        if self._class_weight is None:
            return weights
        targets = self.targets if rows is None else self.targets[rows]
        folded = _class_weights(self._class_weight, targets, self._outputs, self.loss)
        folded = folded if chosen is None else folded * chosen
        chosen = losses.weights_of(folded, self.count, dtype)
        if rows is None:
            return chosen
        weights = np.zeros(len(self.x), dtype)
        weights[rows] = chosen
        return weights

    def check_normalisation(self) -> None:
        """A batch of one row has no variance: say so before training rather than in its midst."""
        rows = self.count
        single = self.batch_rows == 1 or rows % self.batch_rows == 1
        if single and any(isinstance(layer, BatchNorm1d) for layer in self.layers):
            raise ValueError(
                f"batch_size {self.batch_rows} leaves a batch of one row out of {rows}, which "
                "batch normalisation cannot take; choose another batch_size"
            )

    def places(self, order: np.ndarray | None, epochs: int) -> np.ndarray | None:
        """Row numbers in ``x``, from an order of the rows that are meant, epoch by epoch."""
        if self.rows is None:
            return order
        return np.tile(self.rows, epochs) if order is None else self.rows[order]

    def mean_losses(
        self, step_losses: np.ndarray, places: np.ndarray | None, epochs: int
    ) -> list[float]:
        """The mean loss of each of some epochs: of its steps, each by the weight of its rows."""
        begins = np.arange(0, self.count, self.batch_rows)
        if self.weights is None:
            shares = np.minimum(self.batch_rows, self.count - begins).astype(np.float64)
        else:
            weights = self.weights.astype(np.float64)
            weights = weights if places is None else weights[places[: epochs * self.count]]
            weights = weights.reshape(-1, self.count)
            shares = np.add.reduceat(weights, begins, axis=1)
        by_epoch = step_losses[: epochs * self.steps].astype(np.float64).reshape(epochs, self.steps)
        return ((by_epoch * shares).sum(axis=1) / shares.sum(axis=-1)).tolist()

    def meant(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that are meant, and their targets as they came."""
        if self.rows is None:
            return self.x, self.y
        return self.x[arrays.beside(self.x, self.rows)], self.y[self.rows]

    def measure(
        self, rows: np.ndarray | slice, outputs: np.ndarray, grad: np.ndarray | None = None
    ) -> tuple[float, float]:
        """Mean loss and hits of some rows; their gradient goes into ``grad``, if that is given."""
        weights = None if self.weights is None else self.weights[rows]
        return self.loss.measure(outputs, self.targets[rows], weights, grad)


@dataclass(frozen=True)
class Order:
    """In which order an epoch takes the rows.

    Parameters
    ----------
    shuffle : bool
        Take them in a new order each epoch.
    sampling : "shuffle" or "replacement"
        "replacement" draws each row anew.
    seed : int
        From 0, below 2**64.

    Raises
    ------
    ValueError
    """

    shuffle: bool
    sampling: str
    seed: int

    def __post_init__(self) -> None:
        checks.lookup("sampling", self.sampling, {"shuffle": 0, "replacement": 0})
        if self.seed >= 2**64:
            raise ValueError(f"seed is {self.seed}; expected less than 2**64")

    def of(self, epoch: int, epochs: int, rows: int, backend: Backend) -> np.ndarray | None:
        """Row numbers of some epochs, one behind the other, or None for the rows as they stand."""
        if self.sampling == "replacement":
            numbers = range(epoch, epoch + epochs)
            return np.concatenate([backend.draws(self.seed, n, rows, rows) for n in numbers])
        return backend.permutation(self.seed, epoch, rows, epochs) if self.shuffle else None


def batch_rows(batch_size: int | str, rows: int) -> int:
    """Rows of a batch, out of so many; "full" is all."""
    if batch_size == "full":
        return rows
    if isinstance(batch_size, str):
        raise ValueError(f"batch_size is {batch_size!r}; expected a whole number or 'full'")
    return min(checks.positive_int("batch_size", batch_size), rows)


def _class_weights(
    class_weight: ClassWeight, targets: np.ndarray, outputs: int, loss: Loss
) -> np.ndarray:
    """The weight of each row by its class."""
    if isinstance(loss, CrossEntropyLoss):
        members = np.eye(outputs)[targets] if targets.ndim == 1 else targets.astype(np.float64)
    elif isinstance(loss, BCEWithLogitsLoss) and outputs == 1:
        members = np.hstack([1.0 - targets, targets]).astype(np.float64)
    else:
        raise ValueError("class_weight needs a cross-entropy, or a binary one with one output")
    table = _weight_of_each_class(class_weight, members)
    if not (np.isfinite(table).all() and (table >= 0.0).all()):
        raise ValueError(
            f"class_weight is {class_weight!r}; expected finite weights, none negative"
        )
    return members @ table


def _weight_of_each_class(class_weight: ClassWeight, members: np.ndarray) -> np.ndarray:
    """The weights, (classes,); ``members`` (N, classes) holds each row's share of each class."""
    rows, classes = members.shape
    if isinstance(class_weight, str):
        checks.lookup("class_weight", class_weight, {"balanced": None})
        counts = members.sum(axis=0)
        return np.divide(rows, classes * counts, where=counts > 0, out=np.zeros(classes))
    if isinstance(class_weight, Mapping):
        wrong = [number for number in class_weight if number not in range(classes)]
        if wrong:
            raise ValueError(f"class_weight names class {wrong[0]!r}; expected 0 to {classes - 1}")
        class_weight = [class_weight.get(number, 1.0) for number in range(classes)]
    try:
        table = np.asarray(class_weight, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"class_weight is {class_weight!r}; expected numbers") from None
    if table.shape != (classes,):
        raise ValueError(f"class_weight has shape {table.shape}; expected ({classes},)")
    return table
