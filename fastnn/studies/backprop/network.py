"""The network, number by number: forward, and backward along every edge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

INPUTS = ("x1", "x2")
WEIGHTS = ("W11", "W12", "W21", "W22", "b1", "b2", "V11", "V12", "V21", "V22", "c1", "c2")
"""Layer by layer, the weight row by row, then the bias."""

_ROUND = (1.0, 0.5, 0.6, -0.4, -0.8, 1.2, 0.1, -0.3, 1.0, -0.5, -0.7, 0.9, 0.2, -0.2)
"""Inputs and weights that can be followed on paper."""


class Edge(NamedTuple):
    """A step of the backward pass: from a quantity to one that it was computed from."""

    start: str
    end: str
    upstream: float
    local: float

    @property
    def downstream(self) -> float:
        """What this edge adds to the gradient at its end."""
        return self.upstream * self.local


def inputs_and_weights(seed: int) -> tuple[dict[str, float], str]:
    """Those that the seed gives, by name, and the sample's class."""
    names = INPUTS + WEIGHTS
    if seed == 0:
        return dict(zip(names, _ROUND, strict=True)), "2"
    generator = np.random.Generator(np.random.Philox(seed))
    drawn = generator.normal(size=len(names)).round(1)
    return dict(zip(names, drawn.tolist(), strict=True)), str(generator.integers(1, 3))


def forward(given: Mapping[str, float], target: str) -> dict[str, float]:
    """All numbers of the forward pass, from inputs and weights by name."""
    values = dict(given)
    for name, _, value in computed(values, target):
        values[name] = value
    return values


def computed(values: Mapping[str, float], target: str) -> Iterator[tuple[str, str, float]]:
    """Every quantity that is computed, its formula and its value from ``values`` before it."""
    v = values
    for j in "12":
        z = v["x1"] * v[f"W1{j}"] + v["x2"] * v[f"W2{j}"] + v[f"b{j}"]
        yield f"z{j}", f"x1 W1{j} + x2 W2{j} + b{j}", z
    for j in "12":
        yield f"h{j}", f"1 / (1 + exp(-z{j}))", 1.0 / (1.0 + math.exp(-v[f"z{j}"]))
    for k in "12":
        o = v["h1"] * v[f"V1{k}"] + v["h2"] * v[f"V2{k}"] + v[f"c{k}"]
        yield f"o{k}", f"h1 V1{k} + h2 V2{k} + c{k}", o
    for k in "12":
        p = math.exp(v[f"o{k}"]) / (math.exp(v["o1"]) + math.exp(v["o2"]))
        yield f"p{k}", f"exp(o{k}) / (exp(o1) + exp(o2))", p
    yield "L", f"-ln p{target}", -math.log(v[f"p{target}"])


def backward(values: Mapping[str, float], target: str) -> tuple[list[Edge], dict[str, float]]:
    """The edges with what flows along them, and by quantity the sum of what arrives."""
    edges: list[Edge] = []
    gradients = {"L": 1.0}
    for start, end, local in _local_derivatives(values, target):
        edges.append(Edge(start, end, gradients[start], local))
        gradients[end] = gradients.get(end, 0.0) + edges[-1].downstream
    return edges, gradients


def _local_derivatives(
    values: Mapping[str, float], target: str
) -> Iterator[tuple[str, str, float]]:
    """Of every edge, from the loss back: start, end, and the derivative of the start by the end."""
    probability = values[f"p{target}"]
    yield "L", f"p{target}", -1.0 / probability
    for k in "12":
        yield f"p{target}", f"o{k}", probability * ((k == target) - values[f"p{k}"])
    for k in "12":
        for j in "12":
            yield f"o{k}", f"V{j}{k}", values[f"h{j}"]
        yield f"o{k}", f"c{k}", 1.0
        for j in "12":
            yield f"o{k}", f"h{j}", values[f"V{j}{k}"]
    for j in "12":
        yield f"h{j}", f"z{j}", values[f"h{j}"] * (1.0 - values[f"h{j}"])
        for i in "12":
            yield f"z{j}", f"W{i}{j}", values[f"x{i}"]
        yield f"z{j}", f"b{j}", 1.0
