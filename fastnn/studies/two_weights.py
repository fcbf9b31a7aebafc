"""A linear unit with two weights on real data: a loss whose whole surface can be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..cli_data import Parts

_MOST_CORRELATION = 0.9
"""Between the two inputs; more, and the loss would be a ditch with hardly a slope along it."""


@dataclass(frozen=True)
class TwoWeights:
    """A linear unit ``w1 x1 + w2 x2``; its loss is half the squared error (Widrow & Hoff 1960).

    Attributes
    ----------
    inputs : ndarray (N, 2)
        Two columns of the data, each of mean 0 and deviation 1.
    targets : ndarray (N,)
        Whether a sample is of the first class, of mean 0 and deviation 1 over the samples.
    columns : (int, int)
        Their numbers in the data.

    Examples
    --------
    >>> unit = TwoWeights(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([3.0, 2.0]), (0, 1))
    >>> unit.minimum
    array([3., 1.])
    >>> unit.loss(np.zeros((1, 2))), unit.loss(np.zeros((1, 2)), rows=[0])
    (array([3.25]), array([4.5]))
    >>> unit.gradient(np.zeros((1, 2)), np.array([[0]]))
    array([[-3.,  0.]])
    """

    inputs: np.ndarray
    targets: np.ndarray
    columns: tuple[int, int]

    @property
    def minimum(self) -> np.ndarray:
        """The weights (2,) of the least loss."""
        return np.linalg.lstsq(self.inputs, self.targets)[0]

    @property
    def safe_rate(self) -> float:
        """At which an update on the largest sample takes its loss to 0; at twice that, it rises."""
        return 1.0 / float((self.inputs**2).sum(axis=1).max())

    def loss(
        self, weights: np.ndarray, rows: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """The mean loss of some samples, or of all.

        Parameters
        ----------
        weights : array (..., 2)
        rows : integer array, optional

        Returns
        -------
        ndarray (...)
        """
        inputs, targets = self.inputs, self.targets
        if rows is not None:
            inputs, targets = inputs[rows], targets[rows]
        return 0.5 * ((weights @ inputs.T - targets) ** 2).mean(axis=-1)

    def gradient(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The gradient of the mean loss of each point's own samples.

        Parameters
        ----------
        weights : array (S, 2)
        rows : integer array (S, B)

        Returns
        -------
        ndarray (S, 2)
        """
        inputs = self.inputs[rows]
        error = np.einsum("sbi,si->sb", inputs, weights) - self.targets[rows]
        return np.einsum("sb,sbi->si", error, inputs) / rows.shape[1]

    def surface(
        self, around: np.ndarray, rows: Sequence[int] | np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The loss on a grid around some points (S, 2) and the minimum; for the rows of ``loss``.

        Returns
        -------
        w1, w2 : ndarray (X,), (Y,)
        loss : ndarray (Y, X)
        """
        points = np.concatenate([around, self.minimum[np.newaxis]])
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.15 * (high - low).max()
        w1, w2 = (np.linspace(a - margin, b + margin, 60) for a, b in zip(low, high, strict=True))
        return w1, w2, self.loss(np.stack(np.meshgrid(w1, w2), axis=-1), rows)


def two_weights(parts: Parts) -> TwoWeights:
    """The unit that tells the first class from the rest by two inputs of the training part.

    They are the two that correlate most with the class, but not too much with each other.

    Raises
    ------
    ValueError
        Where there are no two such inputs.

    Examples
    --------
    >>> from fastnn.studies.samples import parts_of
    >>> two_weights(parts_of(None, 0)).columns
    (36, 28)
    """
    inputs, labels = parts.train
    varied = np.flatnonzero(inputs.std(axis=0) > 0.0)
    columns = _standardized(inputs[:, varied].astype(np.float64))
    targets = _standardized((labels == labels.min()).astype(np.float64))
    best = np.argsort(-np.abs(targets @ columns), kind="stable")
    for second in best[1:]:
        pair = columns[:, [best[0], second]]
        if abs(pair[:, 0] @ pair[:, 1]) <= _MOST_CORRELATION * len(pair):
            return TwoWeights(pair, targets, (int(varied[best[0]]), int(varied[second])))
    raise ValueError(
        f"no two of X's columns ({inputs.shape[1]}) will do; expected two that vary and have a "
        f"correlation of at most {_MOST_CORRELATION}"
    )


def batches(rows: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of one batch after the other, without end; each epoch in an order of its own.

    >>> [len(batch) for batch, _ in zip(batches(5, 2, 0), range(4))]
    [2, 2, 1, 2]
    """
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(rows)
        for begin in range(0, rows, batch_size):
            yield order[begin : begin + batch_size]


def _standardized(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0)
