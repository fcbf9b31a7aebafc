"""What does backpropagation compute, number by number?

A network of two inputs, two sigmoids and two classes is worked through on one sample. Forward:

    z = x W + b,  h = sigmoid(z),  o = h V + c,  p = softmax(o),  L = -ln p[target]

Backward, from the loss, every edge of this computation multiplies the gradient that arrives
(upstream) by its own derivative (local); what comes out (downstream) goes on, and where several
edges end it adds up. ``W12`` is the weight from input 1 to hidden unit 2.

Source: Rumelhart, Hinton and Williams, 1986, "Learning representations by back-propagating errors",
equations 4 to 7; with softmax and cross-entropy in place of their squared error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import checks
from ..layers import Linear, Sigmoid
from ..losses import CrossEntropyLoss
from ..model import Sequential
from ..words import Words
from .network_drawing import NetworkDrawing
from .results import Results, Table

INPUTS = ("x1", "x2")
WEIGHTS = ("W11", "W12", "W21", "W22", "b1", "b2", "V11", "V12", "V21", "V22", "c1", "c2")
"""Layer by layer, the weight row by row, then the bias."""

_ROUND = (1.0, 0.5, 0.6, -0.4, -0.8, 1.2, 0.1, -0.3, 1.0, -0.5, -0.7, 0.9, 0.2, -0.2)
"""Inputs and weights that can be followed on paper."""
_STEP = float(np.cbrt(np.finfo(np.float64).eps))
"""Where rounding and curvature disturb a central difference about equally."""


def study(*, seed: int = 0, learning_rate: float = 0.5) -> Backprop:
    """Work the network through: forward, backward, one update, and forward again.

    Parameters
    ----------
    seed : int, default 0
        0 takes round numbers; any other draws the inputs, the weights and the class.
    learning_rate : float, default 0.5
        Of the update.

    Returns
    -------
    Backprop

    Raises
    ------
    ValueError, TypeError
        For a seed below 0, or a learning rate that is not above 0.

    Examples
    --------
    >>> numbers = study()
    >>> round(numbers.before["L"], 4), round(numbers.after["L"], 4)
    (0.9751, 0.4125)
    """
    seed = checks.integer("seed", seed, at_least=0)
    learning_rate = checks.number("learning_rate", learning_rate, above=0.0)
    given, target = _given(seed)
    before = _values(given, target)
    edges, gradients = _backward(before, target)
    updated = {name: given[name] - learning_rate * gradients[name] for name in WEIGHTS}
    return Backprop(
        target=target,
        learning_rate=learning_rate,
        before=before,
        after=_values(given | updated, target),
        edges=edges,
        gradients=gradients,
        central={name: _central_difference(given, target, name) for name in WEIGHTS},
        fastnn=_by_fastnn(given, target),
    )


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


@dataclass(frozen=True)
class Backprop(Results):
    """A network worked through.

    Attributes
    ----------
    target : "1" or "2"
        The sample's class.
    learning_rate : float
    before, after : dict of str to float
        Every number of the forward pass by name, before and after the update.
    edges : list of Edge
        The backward pass, in its order.
    gradients : dict of str to float
        The derivative of the loss by each quantity: the sum of what its edges brought.
    central, fastnn : dict of str to float
        The derivatives by the weights as central differences, and by fastnn's own backward pass.
    """

    name: ClassVar[str] = "backprop"
    target: str
    learning_rate: float
    before: dict[str, float]
    after: dict[str, float]
    edges: list[Edge]
    gradients: dict[str, float]
    central: dict[str, float]
    fastnn: dict[str, float]

    def difference(self, others: Mapping[str, float]) -> float:
        """The largest difference of a gradient to others', relative to the largest gradient."""
        largest = max(abs(self.gradients[name]) for name in WEIGHTS)
        return max(abs(self.gradients[name] - others[name]) for name in WEIGHTS) / largest

    def tables(self) -> dict[str, Table]:
        computed = list(_computed(self.before, self.target))
        quantities = [*INPUTS, *(name for name, _, _ in computed)]
        forward: dict[str, list[Any]] = {
            "quantity": quantities,
            "formula": [*("given" for _ in INPUTS), *(formula for _, formula, _ in computed)],
            "value": [self.before[name] for name in quantities],
            "after the update": [self.after[name] for name in quantities],
        }
        edges: dict[str, list[Any]] = {
            "edge": [f"{edge.start} -> {edge.end}" for edge in self.edges],
            "upstream": [edge.upstream for edge in self.edges],
            "local": [edge.local for edge in self.edges],
            "downstream": [edge.downstream for edge in self.edges],
        }
        return {"forward": Table(forward), "edges": Table(edges), "gradients": self.summary()}

    def summary(self) -> Table:
        columns = {
            "value": self.before,
            "backprop": self.gradients,
            "central difference": self.central,
            "fastnn": self.fastnn,
            "after the update": self.after,
        }
        numbers = {title: [of[name] for name in WEIGHTS] for title, of in columns.items()}
        return Table({"weight": list(WEIGHTS), **numbers})

    def findings(self) -> list[str]:
        before, after = self.before, self.after
        edge = next(e for e in self.edges if e.end == "V11")
        first, second = (_number(e.downstream) for e in self.edges if e.end == "h1")
        return [
            f"The logits {_number(before['o1'])} and {_number(before['o2'])} give class "
            f"{self.target}, the right one, the probability {_number(before['p' + self.target])}: "
            f"the loss is {_number(before['L'])}.",
            "Upstream x local = downstream, at V11: "
            f"{_number(edge.upstream)} x {_number(edge.local)} = {_number(edge.downstream)}. Where "
            f"edges meet they add up, at h1: {first} and {second} make "
            f"{_number(self.gradients['h1'])}.",
            f"One update, W = W - {self.learning_rate:g} dL/dW for every weight, takes the loss "
            f"from {_number(before['L'])} to {_number(after['L'])}.",
            "The largest difference of a gradient, relative to the largest gradient, is "
            f"{self.difference(self.central):.1e} to central differences and "
            f"{self.difference(self.fastnn):.1e} to fastnn's own backward pass.",
        ]

    def draw(self, say: Words) -> dict[str, Any]:
        return {"forward": self._draw_forward(say), "backward": self._draw_backward(say)}

    def _draw_forward(self, say: Words) -> Any:
        title = say(
            "Forward: the loss is {before}, and {after} after one update",
            before=_number(self.before["L"]),
            after=_number(self.after["L"]),
        )
        drawing = NetworkDrawing((9.15, 4.2), title, radius=0.5)
        places = {node: (0.7 + 2.5 * x, 1.0 + 2.2 * y) for node, (x, y) in _NODES.items()}

        def equations(*names: str) -> list[str]:
            return [f"{_symbol(name)} = {_number(self.before[name])}" for name in names]

        for start, end, *weight in _LINKS:
            drawing.arrow(places[start], places[end], equations(*weight), _share(start, end))
        for node, place in places.items():
            drawing.node(place, equations(*node), beside=equations(*_BIASES.get(node, ())))
        return drawing.figure

    def _draw_backward(self, say: Words) -> Any:
        title = say("Backward: along every arrow, upstream times local is downstream")
        drawing = NetworkDrawing((12.3, 5.0), title, radius=0.58)
        places = {node: (0.7 + 3.4 * x, 1.2 + 2.6 * y) for node, (x, y) in _NODES.items()}

        def products(start: tuple[str, ...], *ends: str) -> list[str]:
            return [_product(e) for e in self.edges if e.start in start and e.end in ends]

        for end, start, *weight in _LINKS:
            words = products(start, *weight, *end)
            drawing.arrow(places[start], places[end], words, _share(start, end))
        for node, place in places.items():
            slopes = [name for name in node if name in self.gradients]
            lines = [f"{_slope(name)} = {_number(self.gradients[name])}" for name in slopes]
            inner = products(node, *node, *_BIASES.get(node, ()))
            drawing.node(place, lines or [_symbol(name) for name in node], beside=inner)
        return drawing.figure


# ---- the network, number by number ----


def _given(seed: int) -> tuple[dict[str, float], str]:
    """Inputs and weights, and the sample's class."""
    names = INPUTS + WEIGHTS
    if seed == 0:
        return dict(zip(names, _ROUND, strict=True)), "2"
    generator = np.random.Generator(np.random.Philox(seed))
    drawn = generator.normal(size=len(names)).round(1)
    return dict(zip(names, drawn.tolist(), strict=True)), str(generator.integers(1, 3))


def _values(given: Mapping[str, float], target: str) -> dict[str, float]:
    """All numbers of the forward pass."""
    values = dict(given)
    for name, _, value in _computed(values, target):
        values[name] = value
    return values


def _computed(values: Mapping[str, float], target: str) -> Iterator[tuple[str, str, float]]:
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


def _backward(values: Mapping[str, float], target: str) -> tuple[list[Edge], dict[str, float]]:
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


# ---- the same by other means ----


def _central_difference(given: Mapping[str, float], target: str, name: str) -> float:
    """The slope of the loss by one weight, from the losses on both sides."""
    above, below = (
        _values({**given, name: given[name] + step}, target)["L"] for step in (_STEP, -_STEP)
    )
    return (above - below) / (2.0 * _STEP)


def _by_fastnn(given: Mapping[str, float], target: str) -> dict[str, float]:
    """What a network of fastnn's layers leaves in its gradients."""
    model = Sequential(Linear(2, 2), Sigmoid(), Linear(2, 2), dtype="float64")
    places = [f"{layer}.{array}" for layer in (0, 2) for array in ("weight", "bias")]
    weights = np.array([given[name] for name in WEIGHTS])
    for place, values in zip(places, np.split(weights, (4, 6, 10)), strict=True):
        model.arena[place][...] = values.reshape(model.arena[place].shape)
    logits = model([[given[name] for name in INPUTS]])
    _, grad = CrossEntropyLoss()(logits, [int(target) - 1])
    model.backward(grad)
    gradients = np.concatenate([model.grads[place].ravel() for place in places])
    return dict(zip(WEIGHTS, gradients.tolist(), strict=True))


# ---- how it is drawn ----

_NODES = {
    ("x1",): (0.0, 1.0),
    ("x2",): (0.0, 0.0),
    ("z1", "h1"): (1.0, 1.0),
    ("z2", "h2"): (1.0, 0.0),
    ("o1",): (2.0, 1.0),
    ("o2",): (2.0, 0.0),
    ("p1", "p2", "L"): (3.1, 0.5),
}
"""What stands in each circle, and its column and row."""
_X1, _X2, _H1, _H2, _O1, _O2, _L = _NODES
_LINKS = (
    (_X1, _H1, "W11"),
    (_X1, _H2, "W12"),
    (_X2, _H1, "W21"),
    (_X2, _H2, "W22"),
    (_H1, _O1, "V11"),
    (_H1, _O2, "V12"),
    (_H2, _O1, "V21"),
    (_H2, _O2, "V22"),
    (_O1, _L),
    (_O2, _L),
)
"""Between which circles arrows run, and the weight on each."""
_BIASES = {_H1: ("b1",), _H2: ("b2",), _O1: ("c1",), _O2: ("c2",)}


def _share(start: tuple[str, ...], end: tuple[str, ...]) -> float:
    """Where on an arrow its text stands: away from where two arrows cross, or from the loss."""
    rows = abs(_NODES[start][1] - _NODES[end][1])
    return {0.0: 0.5, 0.5: 0.56, 1.0: 0.33}[rows]


def _number(value: float) -> str:
    return f"{value:.3g}"


def _symbol(name: str) -> str:
    """A name with its digits below the line, as matplotlib reads it."""
    return f"${name[0]}_{{{name[1:]}}}$" if name[1:] else f"${name}$"


def _slope(name: str) -> str:
    """The derivative of the loss by a quantity, likewise."""
    return r"$\partial L/\partial$" + _symbol(name)


def _product(edge: Edge) -> str:
    local = _number(edge.local)
    factor = f"({local})" if edge.local < 0.0 else local
    product = rf"{_number(edge.upstream)} $\times$ {factor} = {_number(edge.downstream)}"
    return rf"$\to${_symbol(edge.end)}: {product}"
