"""What an update on one sample does to the loss of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import figures
from ...backend import get_backend
from ...cli_data import Parts
from ...losses import CrossEntropyLoss
from ...model import Sequential
from ...optim import SGD
from ...perceptron import network
from ...words import Words
from ..results import Table

_MOST_NAMES, _MOST_LETTERS, _UPRIGHT_LETTERS = 20, 12, 3
"""Classes whose names have room along an axis, how much of each has, and how much upright."""


@dataclass(frozen=True)
class Responses:
    """Changes of losses by updates, each on one sample A from the same weights.

    Attributes
    ----------
    epochs : int
        Of stochastic descent that the network had had.
    classes : list of str
    own : ndarray (A,)
        Of the loss on A itself.
    same, others : float
        The share of samples of A's class, and of other classes, on which the loss rises; NaN
        where no class has two samples.
    whole : ndarray (A,)
        Of the mean loss of all samples.
    by_class : ndarray (C, C)
        The mean over the samples A of the row's class, and all others of the column's.
    """

    epochs: int
    classes: list[str]
    own: np.ndarray
    same: float
    others: float
    whole: np.ndarray
    by_class: np.ndarray

    def finding(self) -> str:
        """The shares, in a sentence."""
        when = f"After {self.epochs} epochs" if self.epochs else "Before training"
        unchanged, same = float(np.mean(self.own == 0.0)), ""
        if not math.isnan(self.same):
            same = f"{self.same:.0%} of the other samples of its class and on "
        return (
            f"{when}, an update on one sample lowers its own loss in "
            f"{np.mean(self.own < 0.0):.0%} of cases"
            + (f" and leaves it as small as it is in {unchanged:.0%}" if unchanged else "")
            + f". The loss rises on {same}{self.others:.0%} of "
            f"those of other classes, and the mean over all samples rises in "
            f"{np.mean(self.whole > 0.0):.0%} of cases."
        )


def responses(
    parts: Parts, *, hidden: int, per_class: int, epochs: int, learning_rate: float, seed: int
) -> list[Responses]:
    """Measure before training, and after some epochs of stochastic descent.

    Parameters
    ----------
    parts : Parts
    hidden : int
        Width of the network's hidden layer.
    per_class : int
        The most samples of each class that updates are made on.
    epochs : int
    learning_rate : float
        Of the descent, and of the updates.
    seed : int
    """
    assert parts.classes is not None
    (X, y), classes = parts.train, parts.classes
    model = network(parts, [hidden], seed=seed)
    updated = np.concatenate(
        [np.flatnonzero(y == number)[:per_class] for number in range(len(classes))]
    )
    before = _changes(model, X, y, updated, learning_rate)
    descent = SGD(learning_rate)
    model.fit(X, y, optimizer=descent, batch_size=1, epochs=epochs, seed=seed, progress=False)
    after = _changes(model, X, y, updated, learning_rate)
    return [
        _summed_up(change, y, updated, passed, classes)
        for passed, change in ((0, before), (epochs, after))
    ]


def table(measured: list[Responses]) -> Table:
    """The mean changes, class by class."""
    rows = [
        (one.epochs, updated, other, one.by_class[i, j])
        for one in measured
        for i, updated in enumerate(one.classes)
        for j, other in enumerate(one.classes)
    ]
    names = ("epochs", "updated on class", "loss of class", "mean change")
    return Table.of_rows(names, rows)


def draw(measured: list[Responses], say: Words) -> Any:
    """The mean changes as colours: blue where the loss falls, red where it rises."""
    figure = figures.new(9.5, 4.4)
    for axis, one in zip(figure.subplots(1, len(measured)), measured, strict=True):
        is_other = ~np.eye(len(one.classes), dtype=bool)
        limit = np.nanmax(np.abs(one.by_class[is_other]))
        image = axis.imshow(one.by_class, cmap="RdBu_r", vmin=-limit, vmax=limit)
        bar = figure.colorbar(image, ax=axis, shrink=0.8, extend="both")
        bar.set_label(say("mean change of the loss"))
        title = say("after {epochs} epochs", epochs=one.epochs)
        axis.set(
            title=title if one.epochs else say("before training"),
            xlabel=say("class of the samples whose loss it is"),
            ylabel=say("class of the sample of the update"),
        )
        if len(one.classes) <= _MOST_NAMES:
            names = [_short(name) for name in one.classes]
            slant = 45 if max(map(len, names)) > _UPRIGHT_LETTERS else 0
            axis.set_xticks(range(len(names)), names, parse_math=False, rotation=slant)
            axis.set_yticks(range(len(names)), names, parse_math=False)
    return figure


def _changes(
    model: Sequential, X: np.ndarray, y: np.ndarray, updated: np.ndarray, learning_rate: float
) -> np.ndarray:
    """Of the loss of every sample, (A, N), by an update on each of some."""
    weights, before = model.arena.flat.copy(), _losses(model, X, y)
    changes = np.empty((len(updated), len(X)))
    for number, row in enumerate(updated):
        one = slice(row, row + 1)
        model.backward(CrossEntropyLoss()(model(X[one]), y[one])[1])
        model.arena.flat[:] = weights - learning_rate * model.grads.flat
        changes[number] = _losses(model, X, y) - before
        model.arena.flat[:] = weights
    return changes


def _losses(model: Sequential, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The cross-entropy of each sample, float64."""
    losses, hits = np.empty((2, len(X)))
    logits = model(X).astype(np.float64)
    get_backend().loss(logits, y, None, 1.0, None, losses, hits, CrossEntropyLoss().use)
    return losses


def _summed_up(
    change: np.ndarray, y: np.ndarray, updated: np.ndarray, epochs: int, classes: list[str]
) -> Responses:
    is_itself = updated[:, np.newaxis] == np.arange(len(y))
    is_same = (y[updated][:, np.newaxis] == y) & ~is_itself
    is_other = y[updated][:, np.newaxis] != y
    of_class = np.eye(len(classes))[y]
    pairs = of_class[updated].T @ ~is_itself @ of_class
    total = of_class[updated].T @ np.where(is_itself, 0.0, change) @ of_class
    return Responses(
        epochs,
        classes,
        change[is_itself],
        float(np.mean(change[is_same] > 0.0)) if is_same.any() else math.nan,
        float(np.mean(change[is_other] > 0.0)),
        change.mean(axis=1),
        np.divide(total, pairs, out=np.full_like(total, np.nan), where=pairs > 0.0),
    )


def _short(name: str) -> str:
    """A class's name as far as there is room.

    >>> _short("versicolor"), _short("chrysanthemum indicum")
    ('versicolor', 'chrysanthem\u2026')
    """
    return (
        name
        if len(name) <= _MOST_LETTERS
        else name[: _MOST_LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )
