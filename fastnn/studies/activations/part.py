"""What the parts of the study share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from ... import layers
from ...cli_data import Parts
from ...model import Sequential
from ...perceptron import network
from ...words import Words
from ..results import Table

ELEMENTWISE: dict[str, Callable[[], layers.Layer]] = {
    name: make for name, make in layers.ACTIVATIONS.items() if isinstance(make(), layers.Activation)
}
"""The activations that work on each number by itself: all but Softmax."""

_HIDDEN = (64, 64)
"""Widths of the hidden layers of networks that are trained on the data."""


def seeds(seed: int, networks: int) -> range:
    """The seeds of the networks of one setting; another seed of the study has others."""
    return range(seed * networks, (seed + 1) * networks)


def untrained(activation: str, parts: Parts, numbers: Sequence[int]) -> list[Sequential]:
    """A network with an activation after each hidden layer, for each of some seeds."""
    return [network(parts, _HIDDEN, ELEMENTWISE[activation], seed=number) for number in numbers]


class Part(ABC):
    """One question of the study, with the numbers that answer it."""

    @abstractmethod
    def tables(self) -> dict[str, Table]:
        """All numbers, as tables by name."""

    @abstractmethod
    def finding(self) -> str:
        """What the numbers show."""

    @abstractmethod
    def draw(self, say: Words) -> dict[str, Any]:
        """The figures by name."""
