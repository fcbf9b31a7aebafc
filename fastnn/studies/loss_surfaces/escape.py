"""Who leaves a local minimum: descent from many starts on a loss that is a mean over samples.

The model is a sine of one frequency, fitted to samples of a sine. Each sample's loss is a wave over
the frequency, the longer the nearer its position is to 0; all have a valley at the true frequency,
and their other valleys lie apart. So their mean has one deep minimum and several shallow ones. In a
shallow one the samples' gradients pull in all directions, in the deep one hardly at all: noise
drives descent out of the first and not out of the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ... import checks, figures
from ...optim import SGD
from ...words import Words
from .. import drawing
from ..descent import descend
from ..results import Table
from ..wording import kind_of_descent, series

_FREQUENCY = 3.0
_ERROR = 0.1
"""Deviation of the values from the sine."""
_POSITIONS = (0.1, 3.0)
"""Least and largest; between them their logarithms are spread evenly."""
_STARTS = (0.0, 9.0)
"""Frequencies that descent starts from."""


@dataclass(frozen=True)
class Sine:
    """The loss of a frequency: the mean over samples of (sin(frequency x) - y)^2.

    Attributes
    ----------
    x, y : ndarray (N,)

    Examples
    --------
    >>> sine = Sine(np.array([1.0, 2.0]), np.sin([1.5, 3.0]))
    >>> sine.loss(np.array([1.5]))
    array([0.])
    """

    x: np.ndarray
    y: np.ndarray

    def losses(self, frequencies: np.ndarray) -> np.ndarray:
        """Of each frequency (F,) on each sample, (F, N)."""
        return (np.sin(np.multiply.outer(frequencies, self.x)) - self.y) ** 2

    def loss(self, frequencies: np.ndarray) -> np.ndarray:
        """Of each frequency (F,) on all samples, (F,)."""
        return self.losses(frequencies).mean(axis=1)

    def gradient(self, frequencies: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """By each of the frequencies (S, 1), on the mean loss of its own samples (S, B)."""
        x, phase = self.x[rows], frequencies * self.x[rows]
        slopes = 2.0 * (np.sin(phase) - self.y[rows]) * np.cos(phase) * x
        return slopes.mean(axis=1, keepdims=True)

    @cached_property
    def frequencies(self) -> np.ndarray:
        """A fine grid over the starts and somewhat beyond."""
        low, high = _STARTS
        return np.linspace(low - 2.0, high + 2.0, 4001)

    @cached_property
    def minima(self) -> np.ndarray:
        """Frequencies of all minima among the starts."""
        loss = self.loss(self.frequencies)
        inner = self.frequencies[1:-1]
        is_lowest = (loss[1:-1] < loss[:-2]) & (loss[1:-1] < loss[2:])
        return inner[is_lowest & (inner >= _STARTS[0]) & (inner <= _STARTS[1])]

    @cached_property
    def basin(self) -> tuple[float, float]:
        """Where the slope leads to the global minimum: from one hilltop beside it to the other."""
        loss = self.loss(self.frequencies)
        falls, deepest = np.diff(loss) < 0.0, int(loss.argmin())
        left = np.flatnonzero(~falls[:deepest])
        right = np.flatnonzero(falls[deepest:])
        low = left[-1] + 1 if len(left) else 0
        high = deepest + right[0] if len(right) else len(loss) - 1
        return float(self.frequencies[low]), float(self.frequencies[high])

    def share_in_basin(self, frequencies: np.ndarray) -> float:
        """The share of frequencies from which the slope leads to the global minimum."""
        low, high = self.basin
        return float(np.mean((frequencies > low) & (frequencies < high)))


@dataclass(frozen=True)
class Escape:
    """Shares of starts that end in the global minimum's valley.

    Attributes
    ----------
    sine : Sine
    updates : int
        Of every descent.
    learning_rates : tuple of float
    starts : ndarray (S,)
    shares : dict of (momentum, batch size) to list of float
        For each learning rate.
    ways : dict of int to ndarray (updates + 1, S)
        By batch size: without momentum, at ``shown_rate``.
    shown_rate : float
        At which most of the stochastic descents without momentum arrive.
    """

    sine: Sine
    updates: int
    learning_rates: tuple[float, ...]
    starts: np.ndarray
    shares: dict[tuple[float, int], list[float]]
    ways: dict[int, np.ndarray]
    shown_rate: float

    @property
    def begun(self) -> float:
        """The share of starts that lie in the global minimum's valley already."""
        return self.sine.share_in_basin(self.starts)

    def shown(self, momentum: float, batch_size: int) -> float:
        """The share at ``shown_rate``."""
        return self.shares[momentum, batch_size][self.learning_rates.index(self.shown_rate)]

    def best(self, momentum: float, batch_size: int) -> float:
        """The share at the best learning rate."""
        return max(self.shares[momentum, batch_size])

    def table(self) -> Table:
        """Every share."""
        rows = [
            (momentum, size, rate, share)
            for (momentum, size), shares in self.shares.items()
            for rate, share in zip(self.learning_rates, shares, strict=True)
        ]
        names = ("momentum", "batch size", "learning rate", "share in the global minimum")
        return Table.of_rows(names, rows)

    def findings(self) -> list[str]:
        """What noise does, and what momentum does."""
        samples = len(self.sine.x)
        plain, fast = sorted({momentum for momentum, _ in self.shares})
        sizes = list(self.ways)
        at_rate = ", ".join(
            f"{self.shown(plain, size):.0%} with batches of {size}" for size in sizes
        )
        with_momentum = series(
            [
                f"{self.best(plain, size):.0%} and {self.best(fast, size):.0%} with batches of "
                f"{size}"
                for size in sizes
            ]
        )
        return [
            f"On a loss of {samples} samples with {len(self.sine.minima)} minima, {self.begun:.0%} "
            f"of {len(self.starts)} starts lie in the valley of the global one. After "
            f"{self.updates} updates at learning rate {self.shown_rate:g}, the best for batches of "
            f"{sizes[0]} without momentum, there are {at_rate}.",
            f"At the best of {len(self.learning_rates)} learning rates, without momentum and with "
            f"momentum {fast:g}, it is {with_momentum}.",
        ]

    def draw(self, say: Words) -> dict[str, Any]:
        """The loss with its parts, the shares, and the ways at one rate."""
        return {"escape": self._draw_shares(say), "ways": self._draw_ways(say)}

    def _draw_shares(self, say: Words) -> Any:
        figure = figures.new(10.5, 4.2)
        left, right = figure.subplots(1, 2)
        grid, sine = self.sine.frequencies, self.sine
        by_size = np.argsort(sine.x)[:: max(1, len(sine.x) // 4)]
        for row in by_size:
            (line,) = left.plot(grid, sine.losses(grid)[:, row], color="0.7", lw=0.8)
        line.set_label(say("single samples"))
        left.plot(grid, sine.loss(grid), color="black", lw=2, label=say("all samples"))
        left.plot(sine.minima, sine.loss(sine.minima), "o", color="black", mfc="white")
        left.set(xlabel=say("frequency"), ylabel=say("loss"), xlim=_STARTS, ylim=(-0.2, 4.6))
        left.legend(loc="upper right", ncols=2)
        colours = dict(zip(self.ways, figures.COLOURS, strict=False))
        for (momentum, size), shares in self.shares.items():
            name = kind_of_descent(say, size, len(sine.x))
            line, fill = ("o--", "white") if momentum else ("o-", colours[size])
            if momentum:
                name = say("{descent}, momentum {momentum}", descent=name, momentum=momentum)
            right.semilogx(
                self.learning_rates, shares, line, color=colours[size], mfc=fill, label=name
            )
        right.set(
            xlabel=say("learning rate"),
            ylabel=say("share of starts in the global minimum"),
            ylim=(-0.02, 1.02),
        )
        right.set_xticks(self.learning_rates, [f"{rate:g}" for rate in self.learning_rates])
        right.minorticks_off()
        drawing.shared_legend(figure, right, 2)
        return figure

    def _draw_ways(self, say: Words) -> Any:
        figure = figures.new(10.5, 4.0)
        axes = figure.subplots(1, len(self.ways), sharey=True)
        for axis, (size, way), colour in zip(
            axes, self.ways.items(), figures.COLOURS, strict=False
        ):
            axis.axhspan(*self.sine.basin, color="0.9", lw=0)
            axis.plot(way[:, :: max(1, way.shape[1] // 40)], color=colour, lw=0.5, alpha=0.7)
            share = f"{self.shown(0.0, size):.0%}"
            name = kind_of_descent(say, size, len(self.sine.x))
            axis.set(title=f"{name}: {share}", xlabel=say("updates"), xlim=(0, self.updates))
        axes[0].set(ylabel=say("frequency"), ylim=(_STARTS[0] - 1.0, _STARTS[1] + 1.0))
        return figure


def escape(
    *,
    samples: int,
    starts: int,
    updates: int,
    batch_sizes: Sequence[int],
    momentum: float,
    learning_rates: Sequence[float],
    seed: int,
) -> Escape:
    """Descend from many starts in every way, by as many updates, at the same learning rates.

    The other arguments are those of the study.
    """
    momentum = checks.number("momentum", momentum, above=0.0, below=1.0)
    rates = tuple(checks.number("learning_rates", rate, above=0.0) for rate in learning_rates)
    if not rates:
        raise ValueError("learning_rates is empty; expected learning rates")
    smaller = [size for size in batch_sizes if size < samples]
    sizes = [*(checks.positive_int("batch_sizes", size) for size in smaller), samples]
    generator = np.random.default_rng(seed)
    least, largest = np.log(_POSITIONS)
    x = np.exp(generator.uniform(least, largest, samples))
    sine = Sine(x, np.sin(_FREQUENCY * x) + _ERROR * generator.standard_normal(samples))
    begin = generator.uniform(*_STARTS, (starts, 1))

    def ways(rate: float, momentum: float, size: int) -> np.ndarray:
        drawn = np.random.default_rng([seed, size])

        def gradient(points: np.ndarray, _: int) -> np.ndarray:
            if size == samples:
                return sine.gradient(points, np.arange(samples)[np.newaxis])
            return sine.gradient(points, drawn.integers(samples, size=(starts, size)))

        return descend(SGD(rate, momentum), gradient, begin, updates)[:, :, 0]

    shares = {
        (momentum, size): [sine.share_in_basin(ways(rate, momentum, size)[-1]) for rate in rates]
        for momentum in (0.0, momentum)
        for size in sizes
    }
    shown_rate = rates[int(np.argmax(shares[0.0, sizes[0]]))]
    return Escape(
        sine,
        updates,
        rates,
        begin[:, 0],
        shares,
        {size: ways(shown_rate, 0.0, size) for size in sizes},
        shown_rate,
    )
