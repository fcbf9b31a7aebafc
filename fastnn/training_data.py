"""What a network is trained or measured on: rows, targets, weights, batches, and their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checks, losses
from .layers import BatchNorm1d
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
        self.layers = model.logit_layers(loss)
        outputs = self.x.shape[1]
        for layer in self.layers:
            outputs = layer.outputs(outputs)
        self.targets = loss.targets(self.y, outputs, self.dtype, rows)
        weights = losses.weights_of(sample_weight, rows, self.dtype)
        if class_weight is not None:
            folded = _class_weights(class_weight, self.targets, outputs, loss)
            weights = folded if weights is None else folded * weights
            weights = losses.weights_of(weights, rows, self.dtype)
        self.weights = weights
        self.batch_rows = batch_rows(batch_size, rows)
        self.steps = -(-rows // self.batch_rows)

    def check_normalisation(self) -> None:
        """A batch of one row has no variance: say so before training rather than in its midst."""
        rows = len(self.x)
        single = self.batch_rows == 1 or rows % self.batch_rows == 1
        if single and any(isinstance(layer, BatchNorm1d) for layer in self.layers):
            raise ValueError(
                f"batch_size {self.batch_rows} leaves a batch of one row out of {rows}, which "
                "batch normalisation cannot take; choose another batch_size"
            )

    def mean_loss(self, step_losses: np.ndarray, order: np.ndarray | None) -> float:
        """The mean loss of an epoch: of its steps, each by the weight of its rows."""
        begins = np.arange(0, len(self.x), self.batch_rows)
        if self.weights is None:
            shares = np.minimum(self.batch_rows, len(self.x) - begins).astype(np.float64)
        else:
            weights = self.weights if order is None else self.weights[order]
            shares = np.add.reduceat(weights, begins, dtype=np.float64)
        shares = shares[: len(step_losses)]
        return float((step_losses.astype(np.float64) * shares).sum() / shares.sum())

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

    def of(self, epoch: int, rows: int, backend: Backend) -> np.ndarray | None:
        """Row numbers, or None for the rows as they stand."""
        if self.sampling == "replacement":
            return backend.draws(self.seed, epoch, rows, rows)
        return backend.permutation(self.seed, epoch, rows) if self.shuffle else None


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
