"""Schedules: the learning rate of every update by each of fastnn's, and what it does to the loss.

One network is trained with every schedule that ``fit(schedule=...)`` knows by name, from the same
starts and with the same base rate. That is a bit too high for a rate that stays as it is, so that
the last updates are too long for the place that they have come to.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import Any, ClassVar

import numpy as np

from .. import checks, figures
from ..cli_data import Parts
from ..history import History
from ..optim import Adam
from ..perceptron import network
from ..schedules import BY_NAME
from ..words import Words
from .results import Results, Table
from .samples import parts_of, with_first
from .sweeps import by_epoch, sweep

REFERENCE = "constant"
"""The schedule that the others are compared with."""

_COLOURS = dict(zip(BY_NAME, cycle(("0.45", *figures.COLOURS)), strict=False))


def study(
    data: Any = None,
    *,
    seed: int = 0,
    rows: int = 2000,
    epochs: int = 20,
    networks: int = 10,
    rate: float = 0.03,
    batch_size: int = 16,
    width: int = 32,
) -> Schedules:
    """Train networks with each schedule.

    Parameters
    ----------
    data : pair of arrays (X, y) or Parts, optional
        Samples and class numbers; the embedded digits by default.
    seed : int, default 0
        Of the split and of the first network; the others have the seeds after it.
    rows : int, default 2000
        The most samples to train on.
    epochs : int, default 20
        What the schedules are fitted to.
    networks : int, default 10
        How many are trained with each schedule.
    rate : float, default 0.03
        Adam's, at its highest.
    batch_size : int, default 16
    width : int, default 32
        Of the one hidden layer.

    Returns
    -------
    Schedules

    Raises
    ------
    ValueError, TypeError
        For data or sizes that do not fit.

    Examples
    --------
    >>> results = study(epochs=2, networks=1)
    >>> [effect.name for effect in results.effects][:3]
    ['constant', 'step', 'exponential']
    """
    checks.positive_ints(epochs=epochs, networks=networks, batch_size=batch_size, width=width)
    checks.number("rate", rate, above=0.0)
    parts = with_first(parts_of(data, seed), rows)
    seeds = range(seed, seed + networks)
    effects = []
    for name in BY_NAME:
        histories = _trained(name, parts, seeds, epochs, rate, batch_size, width)
        effects.append(
            Effect(
                name,
                np.array(histories[0].updates["lr"]),
                by_epoch(histories, "loss", epochs),
                by_epoch(histories, "val_loss", epochs),
                by_epoch(histories, "val_accuracy", epochs, missing=0.0)[:, -1],
            )
        )
    return Schedules(rate, effects)


@dataclass(frozen=True)
class Effect:
    """What one schedule did; what a training that diverged did not come to is infinite.

    Attributes
    ----------
    name : str
        In ``schedules.BY_NAME``.
    rates : ndarray (U,)
        Of every update, in the first of the trainings.
    training_losses, validation_losses : ndarray (networks, epochs)
    validation_accuracies : ndarray (networks,)
        After the last epoch; 0 for a training that diverged.
    """

    name: str
    rates: np.ndarray
    training_losses: np.ndarray
    validation_losses: np.ndarray
    validation_accuracies: np.ndarray

    @property
    def training_loss(self) -> float:
        """In the last epoch, the mean over networks."""
        return float(self.training_losses[:, -1].mean())

    @property
    def validation_loss(self) -> float:
        """After the last epoch, the mean over networks."""
        return float(self.validation_losses[:, -1].mean())


@dataclass(frozen=True)
class Schedules(Results):
    """What each schedule did.

    Attributes
    ----------
    rate : float
        The base rate.
    effects : list of Effect
    """

    name: ClassVar[str] = "schedules"

    rate: float
    effects: list[Effect]

    @property
    def reference(self) -> Effect:
        """What the rate did that stays as it is."""
        return next(effect for effect in self.effects if effect.name == REFERENCE)

    @property
    def falling(self) -> list[Effect]:
        """Those whose last rate was below the base rate."""
        return [effect for effect in self.effects if effect.rates[-1] < self.rate]

    def summary(self) -> Table:
        ends = [effect.validation_losses[:, -1] for effect in self.effects]
        return Table(
            {
                "schedule": [effect.name for effect in self.effects],
                "last rate": [effect.rates[-1] for effect in self.effects],
                "training loss": [effect.training_loss for effect in self.effects],
                "validation loss": [effect.validation_loss for effect in self.effects],
                "lowest": [losses.min() for losses in ends],
                "highest": [losses.max() for losses in ends],
                "validation accuracy": [e.validation_accuracies.mean() for e in self.effects],
            }
        )

    def tables(self) -> dict[str, Table]:
        epochs = self.reference.training_losses.shape[1]
        return {
            "summary": self.summary(),
            "rates": Table(
                {
                    "schedule": [e.name for e in self.effects for _ in e.rates],
                    "update": [t for e in self.effects for t in range(1, len(e.rates) + 1)],
                    "learning rate": np.concatenate([e.rates for e in self.effects]),
                }
            ),
            "losses": Table(
                {
                    "schedule": [e.name for e in self.effects for _ in range(epochs)],
                    "epoch": [t for _ in self.effects for t in range(1, epochs + 1)],
                    "training loss": _means([e.training_losses for e in self.effects]),
                    "validation loss": _means([e.validation_losses for e in self.effects]),
                }
            ),
        }

    def findings(self) -> list[str]:
        constant, networks = self.reference, len(self.reference.validation_accuracies)
        best = min(self.effects, key=lambda effect: effect.validation_loss)
        trained = sum(e.training_loss < constant.training_loss for e in self.falling)
        validated = sum(e.validation_loss < constant.validation_loss for e in self.falling)
        found = [
            f"At the constant rate {self.rate:g} the last epoch's training loss is "
            f"{constant.training_loss:.2g} and the validation loss after it "
            f"{constant.validation_loss:.2g}, as the mean of {networks} networks.",
            f"Of the {len(self.falling)} schedules whose rate falls, {trained} end with a lower "
            f"training loss than the constant rate, and {validated} with a lower validation loss.",
            f"The lowest validation loss is that of {best.name}: {best.validation_loss:.2g}, and "
            f"{best.validation_accuracies.mean():.1%} of the validation rows right; at the "
            f"constant rate {constant.validation_accuracies.mean():.1%} are.",
        ]
        rising = next((e for e in self.effects if e.name == "warmup"), None)
        if rising is not None and rising.rates[-1] == self.rate:
            order = "above" if rising.validation_loss > constant.validation_loss else "not above"
            found.append(
                "Warm-up alone changes the first updates, and leaves the last as long as they "
                f"were: its validation loss, {rising.validation_loss:.2g}, is {order} the constant "
                "rate's."
            )
        return found

    def draw(self, say: Words) -> dict[str, Any]:
        return {"rates": self._draw_rates(say), "losses": self._draw_losses(say)}

    def _draw_rates(self, say: Words) -> Any:
        figure = figures.new(10.0, 4.2)
        axes = figure.subplots(2, -(-len(self.effects) // 2), sharex=True, sharey=True)
        for axis, effect in zip(axes.flat, self.effects, strict=False):
            axis.plot(effect.rates, color=_COLOURS[effect.name], lw=2.0)
            axis.set(title=effect.name, ylim=(0.0, 1.1 * self.rate))
        for axis in axes[-1]:
            axis.set_xlabel(say("update"))
        for axis in axes[:, 0]:
            axis.set_ylabel(say("learning rate"))
        return figure

    def _draw_losses(self, say: Words) -> Any:
        figure = figures.new(10.0, 4.2)
        curves, ends = figure.subplots(1, 2, width_ratios=(3, 2))
        for place, effect in enumerate(self.effects):
            colour, last = _COLOURS[effect.name], effect.validation_losses[:, -1]
            losses = effect.training_losses.mean(axis=0)
            curves.plot(range(1, len(losses) + 1), losses, color=colour, label=effect.name)
            ends.plot(last, [place] * len(last), "o", color=colour, alpha=0.4, ms=4, mew=0)
            ends.plot(effect.validation_loss, place, "|", color=colour, ms=16, mew=3)
        curves.set(yscale="log", xlabel=say("epoch"), ylabel=say("training loss, mean"))
        figures.whole_ticks(curves)
        curves.legend(ncols=2)
        ends.set(xscale="log", xlabel=say("validation loss: each network, and mean"))
        ends.xaxis.get_major_locator().set_params(subs=(1.0, 2.0, 5.0))
        ends.xaxis.set_major_formatter("{x:g}")
        ends.xaxis.set_minor_formatter("")
        ends.set_yticks(range(len(self.effects)), [effect.name for effect in self.effects])
        ends.invert_yaxis()
        return figure


def _trained(
    name: str,
    parts: Parts,
    seeds: range,
    epochs: int,
    rate: float,
    batch_size: int,
    width: int,
) -> list[History]:
    """A network of each seed, trained with a schedule."""
    return sweep(
        [network(parts, [width], seed=seed) for seed in seeds],
        parts,
        optimizers=Adam(rate),
        seeds=list(seeds),
        schedule=BY_NAME[name](epochs),
        epochs=epochs,
        batch_size=batch_size,
        validation_data=parts.validation,
        history="update",
    )


def _means(losses: list[np.ndarray]) -> np.ndarray:
    """Over networks, one schedule's epochs after the other's."""
    return np.concatenate([each.mean(axis=0) for each in losses])
