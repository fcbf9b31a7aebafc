"""ReLUs that are off for every row: their gradient is 0, and they stay so.

Source: Maas, Hannun and Ng, 2013, "Rectifier nonlinearities improve neural network acoustic
models", section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ... import figures
from ...cli_data import Parts
from ...layers import Activation, Linear
from ...many import fit_many
from ...model import Sequential
from ...optim import Adam
from ...words import Words
from ..results import Table
from .part import Part, seeds, untrained

_ACTIVATIONS = ("relu", "leaky_relu")
_SETTINGS = {"usual": (1e-3, 0.0), "rate 0.1": (0.1, 0.0), "bias -5": (1e-3, -5.0)}
"""Adam's learning rate, and the bias that hidden layers start from."""


class Trained(NamedTuple):
    """Networks of one setting and activation: a number a network."""

    before: np.ndarray
    after: np.ndarray
    accuracy: np.ndarray


@dataclass(frozen=True)
class Dead(Part):
    """Shares of hidden units that are off for all training rows.

    Attributes
    ----------
    trained : dict of (setting, activation) to Trained
        The shares before and after the training, and the accuracy on the validation rows.
    """

    trained: dict[tuple[str, str], Trained]

    def tables(self) -> dict[str, Table]:
        rows = [
            (*setting, number, *numbers)
            for setting, trained in self.trained.items()
            for number, numbers in enumerate(zip(*trained, strict=True))
        ]
        titles = ("setting", "activation", "network", "off before", "off after", "accuracy")
        return {"dead": Table.of_rows(titles, rows)}

    def finding(self) -> str:
        def off(setting: str) -> str:
            shares = (
                f"{name} {self.trained[setting, name].after.mean():.1%}" for name in _ACTIVATIONS
            )
            return ", ".join(shares)

        usual, high_rate, low_bias = _SETTINGS
        rates, biases = zip(*_SETTINGS.values(), strict=True)
        return (
            f"Units that are off for every training row after training: {off(usual)}; at a "
            f"learning rate of {rates[1]:g} instead of {rates[0]:g} {off(high_rate)}; from biases "
            f"of {biases[2]:g} {off(low_bias)}. "
            "A ReLU that is off has no gradient to come back by; a leaky one has."
        )

    def draw(self, say: Words) -> dict[str, Any]:
        figure = figures.new(9.0, 3.8)
        shares, accuracies = figure.subplots(1, 2)
        places = np.arange(len(_SETTINGS))
        for name, shift in zip(_ACTIVATIONS, (-0.2, 0.2), strict=True):
            trained = [self.trained[setting, name] for setting in _SETTINGS]
            for axis, values in (
                (shares, [t.after for t in trained]),
                (accuracies, [t.accuracy for t in trained]),
            ):
                means, spreads = np.mean(values, axis=1), np.std(values, axis=1, ddof=1)
                axis.bar(places + shift, means, 0.38, yerr=spreads, capsize=3, label=name)
        labels = [
            say("biases from {bias}", bias=f"{bias:g}")
            if bias
            else say("learning rate {rate}", rate=f"{rate:g}")
            for rate, bias in _SETTINGS.values()
        ]
        for axis in (shares, accuracies):
            axis.set_xticks(places, labels)
            axis.set_ylim(0.0, 1.05)
        shares.set_ylabel(say("share of units that are off for every row"))
        accuracies.set_ylabel(say("validation accuracy"))
        shares.legend()
        title = say("mean and standard deviation of {count} networks", count=len(values[0]))
        figure.suptitle(title, size="medium")
        return {"dead": figure}


def measure(parts: Parts, networks: int, epochs: int, seed: int) -> Dead:
    """Networks of either activation, trained in each setting."""
    trained = {}
    numbers = seeds(seed, networks)
    for setting, (rate, bias) in _SETTINGS.items():
        for name in _ACTIVATIONS:
            models = untrained(name, parts, numbers)
            for model in models:
                _start_from(model, bias)
            before = [share_off(model, parts.train[0]) for model in models]
            fit_many(
                models,
                *parts.train,
                optimizers=Adam(rate),
                seeds=numbers,
                epochs=epochs,
                progress=False,
            )
            after = [share_off(model, parts.train[0]) for model in models]
            accuracy = [model.evaluate(*parts.validation)["accuracy"] for model in models]
            trained[setting, name] = Trained(*map(np.array, (before, after, accuracy)))
    return Dead(trained)


def share_off(model: Sequential, inputs: np.ndarray) -> float:
    """The share of hidden units whose z is 0 or less for every row.

    >>> from fastnn.layers import ReLU
    >>> model = Sequential(Linear(1, 2), ReLU(), Linear(2, 1))
    >>> model[0].weight, model[0].bias = [[1.0, 1.0]], [0.0, -9.0]
    >>> share_off(model, np.array([[-1.0], [1.0]]))
    0.5
    """
    values, off = np.ascontiguousarray(inputs, model.dtype), []
    for layer in model.layers:
        if isinstance(layer, Activation):
            off.append((values <= 0.0).all(axis=0))
        values = layer.forward(values)
    return float(np.concatenate(off).mean())


def _start_from(model: Sequential, bias: float) -> None:
    for layer in model.layers[:-1]:
        if isinstance(layer, Linear):
            layer.bias = np.full(layer.width, bias)
