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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ... import checks
from ...words import Words
from ..results import Results, Table
from . import drawing
from .drawing import number
from .network import INPUTS, WEIGHTS, Edge, backward, computed, forward, inputs_and_weights
from .other_means import by_fastnn, central_difference


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
    given, target = inputs_and_weights(seed)
    before = forward(given, target)
    edges, gradients = backward(before, target)
    updated = {name: given[name] - learning_rate * gradients[name] for name in WEIGHTS}
    return Backprop(
        target=target,
        learning_rate=learning_rate,
        before=before,
        after=forward(given | updated, target),
        edges=edges,
        gradients=gradients,
        central={name: central_difference(given, target, name) for name in WEIGHTS},
        fastnn=by_fastnn(given, target),
    )


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
        steps = list(computed(self.before, self.target))
        quantities = [*INPUTS, *(name for name, _, _ in steps)]
        values: dict[str, list[Any]] = {
            "quantity": quantities,
            "formula": [*("given" for _ in INPUTS), *(formula for _, formula, _ in steps)],
            "value": [self.before[name] for name in quantities],
            "after the update": [self.after[name] for name in quantities],
        }
        edges: dict[str, list[Any]] = {
            "edge": [f"{edge.start} -> {edge.end}" for edge in self.edges],
            "upstream": [edge.upstream for edge in self.edges],
            "local": [edge.local for edge in self.edges],
            "downstream": [edge.downstream for edge in self.edges],
        }
        return {"forward": Table(values), "edges": Table(edges), "gradients": self.summary()}

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
        first, second = (number(e.downstream) for e in self.edges if e.end == "h1")
        return [
            f"The logits {number(before['o1'])} and {number(before['o2'])} give class "
            f"{self.target}, the right one, the probability {number(before['p' + self.target])}: "
            f"the loss is {number(before['L'])}.",
            "Upstream x local = downstream, at V11: "
            f"{number(edge.upstream)} x {number(edge.local)} = {number(edge.downstream)}. Where "
            f"edges meet they add up, at h1: {first} and {second} make "
            f"{number(self.gradients['h1'])}.",
            f"One update, W = W - {self.learning_rate:g} dL/dW for every weight, takes the loss "
            f"from {number(before['L'])} to {number(after['L'])}.",
            "The largest difference of a gradient, relative to the largest gradient, is "
            f"{self.difference(self.central):.1e} to central differences and "
            f"{self.difference(self.fastnn):.1e} to fastnn's own backward pass.",
        ]

    def draw(self, say: Words) -> dict[str, Any]:
        return {"forward": drawing.forward(self, say), "backward": drawing.backward(self, say)}
