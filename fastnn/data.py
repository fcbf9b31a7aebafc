"""Data: digits that come with the package, readers for common files, and a reproducible split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import checks

PARTS = ("train", "test")


class _Pair(NamedTuple):
    X: np.ndarray
    y: np.ndarray


class Dataset(_Pair):
    """A pair ``X, y`` that also knows the names of its classes.

    Attributes
    ----------
    X : ndarray, shape (B, I)
        Inputs, float32 or float64.
    y : ndarray, shape (B,) or (B, O)
        Class numbers, int64, or float targets.
    classes : tuple of str, or None
        The name of each class number, where the labels were text or names came with them.

    >>> X, y = Dataset(np.zeros((2, 3)), np.array([0, 1]), classes=("cat", "dog"))
    >>> y
    array([0, 1])
    """

    classes: tuple[str, ...] | None

    def __new__(
        cls, X: np.ndarray, y: np.ndarray, classes: tuple[str, ...] | None = None
    ) -> Dataset:
        dataset = super().__new__(cls, X, y)
        dataset.classes = classes
        return dataset


def digits() -> Dataset:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with fastnn.

    Source: Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0.

    Returns
    -------
    Dataset
        X (1797, 64) float32 from 0 to 1, row by row; y (1797,) int64, the digits.

    >>> X, y = digits()
    >>> X.shape, X.dtype, y[:5]
    ((1797, 64), dtype('float32'), array([0, 1, 2, 3, 4]))
    """
    with np.load(Path(__file__).with_name("datasets") / "digits.npz", allow_pickle=False) as file:
        return Dataset(file["X"].astype(np.float32) / 16, file["y"].astype(np.int64))


def load(path: str | PathLike[str], label: str | None = None, part: str = "all") -> Dataset:
    """Inputs and labels from a file, or from a folder of IDX or CIFAR files.

    What may be read:

    - IDX, plain or .gz: an image file with MNIST's names ("train-images-idx3-ubyte", labels in
      "train-labels-idx1-ubyte" beside it), or the folder that holds such pairs.
    - CIFAR-10 or CIFAR-100, binary version: one .bin file, the folder of them, or the folder that
      holds that folder. Class names are read from beside; of CIFAR-100 they are the 100 fine ones.
    - .npz: arrays "X" and "y", or "x_train", "y_train", "x_test", "y_test"; in either case.
    - .csv: comma-separated with a header; every column but the label's is a number.

    uint8 inputs are pixels and come out as float32 from 0 to 1. Images become rows, those in colour
    with red, green and blue of each pixel side by side: ``X.reshape(-1, 32, 32, 3)`` is CIFAR's,
    and ``shape=(32, 32, 3)`` tells `fastnn.augment.Compose`. Labels that are whole numbers become
    class numbers, text becomes the number of its place in sorted order (`Dataset.classes` has the
    names), other numbers stay float targets.

    Parameters
    ----------
    path : str or path
        The file or folder.
    label : str, default None
        The label's column in CSV; None takes the last of those named "label", "y", "target" or
        "class". The labels' array in .npz; None takes "y".
    part : "all", "train" or "test", default "all"
        Of data that come in two parts, the one wanted; "all" puts train before test.

    Returns
    -------
    Dataset
        Unpacks as ``X, y``.

    Raises
    ------
    FileNotFoundError
        Nothing there.
    ValueError
        Damaged, of an unknown kind, without labels, or without the part; the message names the
        file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "flowers.csv")
    ...     _ = path.write_text("width,height,label\\n1,2,rose\\n3,4,lily\\n")
    ...     load(path)
    Dataset(X=array([[1., 2.],
           [3., 4.]]), y=array([1, 0]))
    """
    inputs, labels, classes = _read(path, label, part, labelled=True)
    if labels is None:
        raise ValueError(f"{path}: no labels found beside the images")
    y, names = _as_targets(labels)
    checks.same_rows(f"{path}: inputs", inputs, "labels", y)
    return Dataset(as_inputs(inputs), y, classes or names)


def load_inputs(
    path: str | PathLike[str], label: str | None = None, part: str = "all"
) -> np.ndarray:
    """Only the inputs of what `load` reads; there need be no labels.

    Parameters
    ----------
    path, label, part
        As in `load`. A CSV file's label column, if it has one, is left out.

    Returns
    -------
    ndarray, shape (B, I)

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "flowers.csv")
    ...     _ = path.write_text("width,height\\n1,2\\n3,4\\n")
    ...     load_inputs(path)
    array([[1., 2.],
           [3., 4.]])
    """
    return as_inputs(_read(path, label, part, labelled=False)[0])


def split(
    X: ArrayLike,
    y: ArrayLike,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    *,
    seed: int = 0,
    stratify: bool | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parts of a data set, shuffled: no row in two of them, each row in one.

    Parameters
    ----------
    X : array_like, shape (B, ...)
        Inputs: arrays, memory maps, pandas tables.
    y : array_like, shape (B, ...)
        Labels or targets.
    fractions : sequence of float, default (0.7, 0.15, 0.15)
        The parts' shares; above 0, their sum 1.
    seed : int, default 0
        The same seed gives the same parts.
    stratify : bool, default None
        Whether every part gets its share of every class, and at least one row of each class that
        has as many rows as there are parts. None does it for labels (B,) of whole numbers.

    Returns
    -------
    list of (X, y) pairs of ndarray
        As many as there are fractions.

    Raises
    ------
    ValueError
        Numbers of rows that differ, fractions that are no shares, or a part left empty.

    >>> X, y = digits()
    >>> [len(part_y) for _, part_y in split(X, y, (0.7, 0.15, 0.15), seed=0)]
    [1258, 270, 269]
    """
    X, y = np.asarray(X), np.asarray(y)
    rows = checks.same_rows("X", X, "y", y)
    shares = _shares(fractions)
    if stratify is None:
        stratify = y.ndim == 1 and y.dtype.kind in "iub"
    if stratify and y.ndim != 1:
        raise ValueError(f"stratify needs labels of shape ({rows},), got y of shape {y.shape}")
    bits = np.random.Philox(checks.integer("seed", seed, at_least=0))
    order = np.random.Generator(bits).permutation(rows)
    groups = np.unique(y[order], return_inverse=True)[1] if stratify else np.zeros(rows, np.int64)
    part_of = _deal(groups, shares)
    chosen = [order[part_of == part] for part in range(len(shares))]
    if not all(map(len, chosen)):
        raise ValueError(
            f"fractions {tuple(fractions)} of {rows} rows must leave no part empty,"
            f" got parts of {[len(part) for part in chosen]} rows"
        )
    return [(X[part], y[part]) for part in chosen]


def _shares(fractions: Sequence[float]) -> np.ndarray:
    if not isinstance(fractions, Iterable):
        raise TypeError(f"fractions is {fractions!r}; expected a sequence of shares")
    shares = np.array([checks.number("fractions", share, above=0) for share in fractions])
    if not abs(shares.sum() - 1) <= 1e-6:
        raise ValueError(f"fractions must sum to 1, got {tuple(fractions)}, sum {shares.sum():g}")
    return shares / shares.sum()


def _deal(groups: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The part of every row: each group is shared out in proportion, within one row a part.

    A group's odd rows go to the parts that lag most behind their share of all rows so far, so
    that the totals stay in proportion however many groups there are.
    """
    sizes = np.bincount(groups)
    part_of = np.empty(len(groups), np.int64)
    lag = np.zeros(len(shares))
    by_group = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    for size, members in zip(sizes, by_group, strict=True):
        counts = np.floor(size * shares).astype(np.int64)
        lag += size * shares - counts
        lagging = np.argsort(-lag, kind="stable")[: size - counts.sum()]
        counts[lagging] += 1
        lag[lagging] -= 1
        if size >= len(shares):
            for empty in np.flatnonzero(counts == 0):
                largest = counts.argmax()
                counts[[empty, largest]] += (1, -1)
                lag[[empty, largest]] += (-1, 1)
        part_of[members] = np.repeat(np.arange(len(shares)), counts)
    return part_of


def _read(
    path: str | PathLike[str], label: str | None, part: str, labelled: bool
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
    """Inputs, labels and the classes' names, as they are stored."""
    from . import cifar_files, data_files

    path = Path(path)
    wanted = checks.lookup("part", part, {"all": PARTS, **{name: (name,) for name in PARTS}})
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    kind = path.suffix.lower()
    if kind == ".npz":
        return *data_files.read_npz(path, label, wanted, labelled), None
    if label is not None and kind != ".csv":
        raise ValueError(f"{path}: label={label!r} is for CSV and .npz; others have no such name")
    if path.is_dir():
        images = cifar_files.read_folder(path, wanted)
        return images or (*data_files.read_idx_folder(path, wanted), None)
    if part != "all":
        raise ValueError(f"{path}: part={part!r} is for data in two parts; this file is one")
    if kind == ".bin":
        return cifar_files.read_file(path)
    if kind == ".csv":
        return *data_files.read_csv(path, label, labelled), None
    return *data_files.read_idx_pair(path), None


def as_inputs(values: np.ndarray) -> np.ndarray:
    """Values as the rows of numbers that a data set has: pixels of uint8 as float32 from 0 to 1.

    Parameters
    ----------
    values : array (B, ...)

    Returns
    -------
    ndarray, shape (B, I), float32 or float64

    Raises
    ------
    TypeError
        For what is not numbers.

    >>> as_inputs(np.array([[[0, 51], [255, 0]]], np.uint8))
    array([[0. , 0.2, 1. , 0. ]], dtype=float32)
    """
    rows = values.reshape(len(values), math.prod(values.shape[1:]))
    if rows.dtype == np.uint8:
        return np.divide(rows, 255, dtype=np.float32)
    checks.as_matrix("inputs", rows)
    return rows.astype(np.promote_types(rows.dtype, np.float32), copy=False)


def _as_targets(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if labels.dtype.kind in "iub":
        return labels.astype(np.int64), None
    if labels.dtype.kind == "f":
        return labels.astype(np.promote_types(labels.dtype, np.float32), copy=False), None
    names, numbers = np.unique(labels.astype(np.str_), return_inverse=True)
    return numbers.reshape(labels.shape).astype(np.int64), tuple(names.tolist())
