"""The figures of backpropagation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...words import Words
from ..network_drawing import NetworkDrawing
from .network import Edge

if TYPE_CHECKING:
    from . import Backprop

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


def forward(worked: Backprop, say: Words) -> Any:
    """The numbers of the forward pass, on the network."""
    title = say(
        "Forward: the loss is {before}, and {after} after one update",
        before=number(worked.before["L"]),
        after=number(worked.after["L"]),
    )
    sketch = NetworkDrawing((9.15, 4.2), title, radius=0.5)
    places = {node: (0.7 + 2.5 * x, 1.0 + 2.2 * y) for node, (x, y) in _NODES.items()}

    def equations(*names: str) -> list[str]:
        return [f"{_symbol(name)} = {number(worked.before[name])}" for name in names]

    for start, end, *weight in _LINKS:
        sketch.arrow(places[start], places[end], equations(*weight), _share(start, end))
    for node, place in places.items():
        sketch.node(place, equations(*node), beside=equations(*_BIASES.get(node, ())))
    return sketch.figure


def backward(worked: Backprop, say: Words) -> Any:
    """What flows back along every arrow, and what arrives in every circle."""
    title = say("Backward: along every arrow, upstream times local is downstream")
    sketch = NetworkDrawing((12.3, 5.0), title, radius=0.58)
    places = {node: (0.7 + 3.4 * x, 1.2 + 2.6 * y) for node, (x, y) in _NODES.items()}

    def products(start: tuple[str, ...], *ends: str) -> list[str]:
        return [_product(e) for e in worked.edges if e.start in start and e.end in ends]

    for end, start, *weight in _LINKS:
        words = products(start, *weight, *end)
        sketch.arrow(places[start], places[end], words, _share(start, end))
    for node, place in places.items():
        slopes = [name for name in node if name in worked.gradients]
        lines = [f"{_slope(name)} = {number(worked.gradients[name])}" for name in slopes]
        inner = products(node, *node, *_BIASES.get(node, ()))
        sketch.node(place, lines or [_symbol(name) for name in node], beside=inner)
    return sketch.figure


def number(value: float) -> str:
    """A number as the figures have it, and the findings."""
    return f"{value:.3g}"


def _share(start: tuple[str, ...], end: tuple[str, ...]) -> float:
    """Where on an arrow its text stands: away from where two arrows cross, or from the loss."""
    rows = abs(_NODES[start][1] - _NODES[end][1])
    return {0.0: 0.5, 0.5: 0.56, 1.0: 0.33}[rows]


def _symbol(name: str) -> str:
    """A name with its digits below the line, as matplotlib reads it."""
    return f"${name[0]}_{{{name[1:]}}}$" if name[1:] else f"${name}$"


def _slope(name: str) -> str:
    """The derivative of the loss by a quantity, likewise."""
    return r"$\partial L/\partial$" + _symbol(name)


def _product(edge: Edge) -> str:
    local = number(edge.local)
    factor = f"({local})" if edge.local < 0.0 else local
    product = rf"{number(edge.upstream)} $\times$ {factor} = {number(edge.downstream)}"
    return rf"$\to${_symbol(edge.end)}: {product}"
