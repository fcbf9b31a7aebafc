"""What the ``fastnn`` command reads: a data set in three parts, with targets as a model takes them.

Labels that are whole numbers or text are classes, which a model numbers in sorted order and keeps
the names of. Other numbers are targets of a regression, learnt in units of their own deviation.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import data
from .data import Dataset
from .layers import Linear
from .model import Sequential

EMBEDDED = "digits"
"""The name that stands for the data set that comes with fastnn."""

SHARES = (0.7, 0.15, 0.15)
"""Of the rows that train, watch and judge, where data come in one part."""
_SHARES_BESIDE_TEST = (0.85, 0.15)
_CLASSES_NAMED = 20

Pair = tuple[np.ndarray, np.ndarray]


class Unit:
    """The unit that the targets of a regression are learnt in: their own mean and deviation.

    >>> Unit(np.array([[10.0], [30.0]])).of(np.array([[30.0]]))
    array([[1.]])
    """

    def __init__(self, values: np.ndarray) -> None:
        self.mean, deviation = values.mean(axis=0), values.std(axis=0)
        self.deviation = np.where(deviation > 0.0, deviation, 1.0)

    def of(self, values: np.ndarray) -> np.ndarray:
        """Values in this unit."""
        return (values - self.mean) / self.deviation

    def remove(self, model: Sequential) -> None:
        """Let the last layer give its outputs in the targets' original unit."""
        last = model[-1]
        assert isinstance(last, Linear) and last.bias is not None
        last.weight = last.weight * self.deviation
        last.bias = last.bias * self.deviation + self.mean
        # Its state belongs to the weights as they were.
        model.optimizer = None


class Parts(NamedTuple):
    """Data to train on, to watch and to be judged by.

    Classes are numbered in the order of ``classes``. Without classes the targets of ``train`` and
    ``validation`` are in ``unit``, those of ``test`` as they came.
    """

    train: Pair
    validation: Pair
    test: Pair
    classes: list[str] | None
    unit: Unit | None

    @property
    def outputs(self) -> int:
        """The outputs that a network needs."""
        return len(self.classes) if self.classes else self.train[1].shape[1]


def is_embedded(source: str) -> bool:
    """Whether a DATA argument means the data set that comes with fastnn."""
    return source == EMBEDDED and not Path(source).exists()


def read(source: str, label: str | None, part: str = "all") -> Dataset:
    """The data set that a DATA argument names; arguments as in :func:`fastnn.data.load`."""
    if not is_embedded(source):
        return data.load(source, label, part)
    if label is not None:
        raise ValueError(f"--label {label}: the embedded {EMBEDDED} have no columns to name")
    if part != "all":
        raise ValueError(f"--part {part}: the embedded {EMBEDDED} are one part")
    return data.digits()


def read_inputs(source: str, label: str | None, part: str) -> np.ndarray:
    """Its inputs alone; there need be no labels."""
    if is_embedded(source):
        return read(source, label, part).X
    return data.load_inputs(source, label, part)


def read_parts(source: str, label: str | None, regression: bool, seed: int) -> Parts:
    """A data set in three parts: its own test set, if it has one, or else a share of its rows.

    Parameters
    ----------
    source, label : str
        As for :func:`read`.
    regression : bool
        Take whole numbers as numbers, not as classes.
    seed : int
        Of the split.

    Raises
    ------
    ValueError, OSError
        For what cannot be read or used; the message names it.
    """
    own = None if is_embedded(source) else _read_own_parts(source, label)
    rest = own[0] if own else read(source, label)
    classes = None if regression else _classes_to_learn(source, rest)
    y = targets(source, rest, classes)
    for kind, values in (("inputs", rest.X), ("labels", y)):
        # Their mean and deviation come before any check that training makes.
        if not np.isfinite(values).all():
            raise ValueError(f"{source}: {kind} contain NaN or infinity; expected finite numbers")
    if own:
        train, validation = data.split(rest.X, y, _SHARES_BESIDE_TEST, seed=seed)
        test = own[1].X, targets(f"{source}, test part", own[1], classes)
    else:
        train, validation, test = data.split(rest.X, y, SHARES, seed=seed)
    if classes:
        return Parts(train, validation, test, classes, None)
    unit = Unit(train[1])
    train, validation = ((X, unit.of(values)) for X, values in (train, validation))
    return Parts(train, validation, test, None, unit)


def _read_own_parts(source: str, label: str | None) -> tuple[Dataset, Dataset] | None:
    """The training and the test part of data that come in two; None for others.

    What is damaged is None here, and an error when it is read as a whole.
    """
    try:
        test = data.load(source, label, "test")
        return data.load(source, label, "train"), test
    except ValueError:
        return None


def _classes_to_learn(source: str, dataset: Dataset) -> list[str] | None:
    if dataset.y.dtype.kind == "f":
        return None
    if dataset.y.ndim != 1:
        raise ValueError(f"{source}: labels have shape {dataset.y.shape}; expected one a row")
    names, rows = _names(dataset), len(dataset.y)
    if len(names) < 2:
        raise ValueError(f"{source}: every row has the label {names[0]!r}; expected two classes")
    if dataset.classes is None and 2 * len(names) > rows:
        raise ValueError(
            f"{source}: {len(names)} different labels in {rows} rows; if they are numbers rather "
            "than classes, train with --regression"
        )
    return names


def _names(dataset: Dataset) -> list[str]:
    """The names of the classes that occur, in the order of their numbers."""
    known = dataset.classes
    return [known[number] if known else str(number) for number in np.unique(dataset.y)]


def targets(source: str, dataset: Dataset, classes: list[str] | None) -> np.ndarray:
    """Labels as a network takes them.

    Parameters
    ----------
    source : str
        What messages call the data.
    dataset : Dataset
    classes : list of str or None
        The names of a network's classes, in its order; None for a regression.

    Returns
    -------
    ndarray
        Class numbers (B,) or values (B, O).

    Raises
    ------
    ValueError
        For labels that are none of the classes, or not numbers.

    Examples
    --------
    >>> flowers = Dataset(np.zeros((2, 3)), np.array([1, 0]), classes=("iris", "rose"))
    >>> targets("flowers.csv", flowers, ["lily", "rose", "iris"])
    array([1, 2])
    """
    if classes is None:
        if dataset.classes:
            raise ValueError(
                f"{source}: labels are names, such as {dataset.classes[0]!r}; expected numbers"
            )
        return dataset.y.reshape(len(dataset.y), -1).astype(np.float64)
    number_of = {name: number for number, name in enumerate(classes)}
    found = _names(dataset)
    unknown = [name for name in found if name not in number_of]
    if unknown:
        raise ValueError(
            f"{source}: unknown class {unknown[0]!r}; the training data had "
            + ", ".join(map(repr, classes[:_CLASSES_NAMED]))
            + ", ..." * (len(classes) > _CLASSES_NAMED)
        )
    positions = np.unique(dataset.y, return_inverse=True)[1]
    return np.array([number_of[name] for name in found], np.int64)[positions]
