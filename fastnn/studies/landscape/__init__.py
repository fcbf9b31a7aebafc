"""Landscape: what does the loss look like around a trained network?

Two random directions span a plane through the network's weights; the loss over it is a landscape.
A direction is scaled neuron by neuron to the length of the neuron's weights, since a network whose
weights are twice as long may be the same function: so a step of 0.5 changes every neuron's weights
by half of their length. Biases stay as they are. Networks of two and of eight hidden layers, of
small and full batches, of ReLU and sigmoid are compared, all else being equal.

Sources: Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, section 4 (filter
normalisation); Keskar et al., "On large-batch training for deep learning: generalization gap and
sharp minima", ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ... import checks, layers
from ...cli_data import Parts
from ...many import fit_many
from ...model import Sequential
from ...optim import SGD
from ...perceptron import network
from ...words import Words
from .. import samples
from ..results import Results, Table
from . import drawing
from .surroundings import RADII, SHARP, Surroundings


class Setting(NamedTuple):
    """A network and how it is trained."""

    name: str
    hidden_layers: int
    activation: Callable[[], layers.Layer]
    batch_size: int | None


SETTINGS = (
    Setting("shallow, mini-batches", 2, layers.ReLU, 8),
    Setting("shallow, full batch", 2, layers.ReLU, None),
    Setting("deep, ReLU", 8, layers.ReLU, 8),
    Setting("deep, sigmoid", 8, layers.Sigmoid, 8),
)
"""Each differs from another one in one thing: the batch, the depth, the activation."""

_LEARNING_RATE, _CLIP_NORM = 0.2, 1.0
_ON_PLATEAU = 0.9
"""A loss above this share of what guessing gives is that of a network that has learnt nothing."""
_WIDTH = 32


def study(
    data: Any = None,
    *,
    seed: int = 0,
    rows: int = 1000,
    updates: int = 1000,
    networks: int = 3,
    directions: int = 10,
    points: int = 41,
) -> Landscape:
    """Train networks of every setting, and measure the training loss around their weights.

    Parameters
    ----------
    data : pair of arrays (X, y) or Parts, optional
        Samples and class numbers; the embedded digits by default.
    seed : int, default 0
    rows : int, default 1000
        The most to train on; the landscape is that of the loss on the same rows.
    updates : int, default 1000
        Of every training, but for what is left of an epoch.
    networks : int, default 3
        With weights and shuffles of their own, of every setting.
    directions : int, default 10
        Random ones from every network, to see how steep the way out is.
    points : int, default 41
        Along each side of the landscape, an odd number: the network is the one in the middle.

    Returns
    -------
    Landscape

    Raises
    ------
    ValueError, TypeError
        For data or sizes that do not fit.

    Examples
    --------
    >>> found = study(rows=200, updates=300, networks=2, directions=4, points=3)
    >>> mini_batches, full_batch, deep, sigmoid = found.sharpness.mean(axis=1)
    >>> bool(deep > 3 * mini_batches > 3 * sigmoid)
    True
    """
    checks.positive_ints(updates=updates, directions=directions)
    checks.integer("networks", networks, at_least=2)
    if checks.integer("points", points, at_least=3) % 2 == 0:
        raise ValueError(f"points is {points}; expected an odd number, with one in the middle")
    parts = samples.with_first(samples.parts_of(data, seed), rows)
    seeds = np.random.Generator(np.random.Philox(seed)).integers(2**31, size=networks).tolist()
    grid = np.linspace(-RADII[-1], RADII[-1], points)
    places: list[Place] = []
    for setting in SETTINGS:
        models, done = _train(setting, parts, updates, seeds)
        around = [Surroundings(model, *parts.train) for model in models]
        generator = np.random.Generator(np.random.Philox(seed))
        plane = around[0].direction(generator), around[0].direction(generator)
        places.append(
            Place(
                setting.name,
                done,
                np.array([near.loss(0.0) for near in around]),
                np.array([m.evaluate(*parts.validation)["accuracy"] for m in models]),
                np.array([near.rises(generator, directions) for near in around]),
                around[0].over(plane, grid),
            )
        )
    return Landscape(places, grid, _entropy(parts.train[1]))


def _train(
    setting: Setting, parts: Parts, updates: int, seeds: list[int]
) -> tuple[list[Sequential], int]:
    """A network of a setting for each seed, and how many updates each had."""
    widths = [_WIDTH] * setting.hidden_layers
    models = [network(parts, widths, setting.activation, seed=own) for own in seeds]
    rows = len(parts.train[0])
    batch_size = min(setting.batch_size or rows, rows)
    an_epoch = math.ceil(rows / batch_size)
    epochs = max(1, updates // an_epoch)
    fit_many(
        models,
        *parts.train,
        optimizers=SGD(_LEARNING_RATE),
        seeds=seeds,
        batch_size=batch_size,
        epochs=epochs,
        clip_norm=_CLIP_NORM,
        progress=False,
    )
    return models, epochs * an_epoch


def _entropy(labels: np.ndarray) -> float:
    """The entropy of class numbers, in nats."""
    counts = np.unique(labels, return_counts=True)[1]
    return float(-(counts / len(labels)) @ np.log(counts / len(labels)))


@dataclass(frozen=True)
class Place:
    """Where N networks of a setting came to.

    Attributes
    ----------
    setting : str
    updates : int
    losses, accuracies : array (N,)
        On training and on validation rows.
    rises : array (N, R)
        Of the loss at each of ``RADII``.
    loss : array (G, G)
        The landscape of the first network.
    """

    setting: str
    updates: int
    losses: np.ndarray
    accuracies: np.ndarray
    rises: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Landscape(Results):
    """The places that the settings came to, in the order of ``SETTINGS``.

    Attributes
    ----------
    places : list of Place
    grid : array (G,)
        Steps along the two directions of every landscape.
    guess : float
        The loss of predicting each class with its share of the training rows.
    """

    name: ClassVar[str] = "landscape"

    places: list[Place]
    grid: np.ndarray
    guess: float

    @property
    def sharpness(self) -> np.ndarray:
        """The mean rise of the loss at radius 0.5, by setting and network, (S, N)."""
        return np.array([place.rises[:, SHARP] for place in self.places])

    def tables(self) -> dict[str, Table]:
        settings = [place.setting for place in self.places]
        shape = (len(settings), len(self.grid), len(self.grid))
        setting, second, first = (index.ravel() for index in np.indices(shape))
        rises = np.array([place.rises for place in self.places])
        of, network, radius = (index.ravel() for index in np.indices(rises.shape))
        return {
            "networks": self.summary(),
            "rises": Table(
                {
                    "network": np.array(settings)[of],
                    "number": network,
                    "radius": np.array(RADII)[radius],
                    "rise": rises.ravel(),
                }
            ),
            "losses": Table(
                {
                    "network": np.array(settings)[setting],
                    "first direction": self.grid[first],
                    "second direction": self.grid[second],
                    "loss": np.array([place.loss for place in self.places]).ravel(),
                }
            ),
        }

    def summary(self) -> Table:
        places = self.places
        return Table(
            {
                "network": [place.setting for place in places],
                "hidden layers": [setting.hidden_layers for setting in SETTINGS],
                "updates": [place.updates for place in places],
                "training loss": [place.losses.mean() for place in places],
                "validation accuracy": [place.accuracies.mean() for place in places],
                f"rise at {RADII[SHARP]}": self.sharpness.mean(axis=1),
                "spread": self.sharpness.std(axis=1, ddof=1),
            }
        )

    def findings(self) -> list[str]:
        return [self._batches(), self._depth(), self._plateau(), self._reach()]

    def _batches(self) -> str:
        small, full = self.sharpness[:2]
        flatter = int((small < full).sum())
        losses = [place.losses.mean() for place in self.places]
        return (
            f"Mini-batches and full batch, after as many updates: the training loss is "
            f"{losses[0]:.2g} and {losses[1]:.2g}; where every neuron's weights are changed by "
            f"half of their length, it rises by {small.mean():.3g} and {full.mean():.3g}. "
            f"Mini-batches came to the flatter place from {flatter} of {len(small)} initial "
            "weights."
        )

    def _depth(self) -> str:
        shallow, deep = self.sharpness[0].mean(), self.sharpness[2].mean()
        reason = ": every layer passes on the changes of those before it" if deep > shallow else ""
        return (
            f"With {SETTINGS[2].hidden_layers} hidden layers in place of "
            f"{SETTINGS[0].hidden_layers} it rises by {deep:.3g}, {deep / shallow:.2g} times as "
            f"much{reason}."
        )

    def _plateau(self) -> str:
        loss, guess = self.places[3].losses.mean(), self.guess
        rise = self.sharpness[3].mean()
        if loss > _ON_PLATEAU * guess:
            return (
                f"Flat is not good by itself: around the deep sigmoid network the loss rises by "
                f"{rise:.2g} only, but from {loss:.3g}, no better than the {guess:.3g} of guessing "
                "by the classes' shares: a plateau that the training did not leave."
            )
        return (
            f"The deep sigmoid network left the plateau of the classes' shares ({guess:.3g}) for "
            f"a loss of {loss:.2g}, which rises by {rise:.2g}."
        )

    def _reach(self) -> str:
        ends = [f"{p.setting}: {p.loss.min():.2g} to {p.loss.max():.3g}" for p in self.places]
        return f"The least and the greatest loss over each landscape: {'; '.join(ends)}."

    def draw(self, say: Words) -> dict[str, Any]:
        return {
            "contours": drawing.contours(self, say),
            "surfaces": drawing.surfaces(self, say),
            "rises": drawing.rises(self, say),
        }
