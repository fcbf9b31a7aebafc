"""Networks from plain arrays of weights, and back to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import arrays, checks
from ..layers import ACTIVATIONS, Activation, Dropout, Flatten, Identity, Layer, Linear, Softmax
from ..model import Sequential

Weights = tuple[ArrayLike, ArrayLike | None]


def from_numpy(
    weights: Sequence[Weights], activations: Sequence[str | Layer], *, dtype: str | None = None
) -> Sequential:
    """A network from arrays of weights.

    Parameters
    ----------
    weights : sequence of (W, b)
        For each layer ``W`` (I, O) and ``b`` (O,), or None for no bias; copied.
    activations : sequence of str or Layer
        What follows each layer: a name such as "relu", "sigmoid", "softmax" or "identity", or an
        activation with its settings such as ``fastnn.LeakyReLU(0.2)``.
    dtype : "float32" or "float64", optional
        By default float64 if an array is or is wider, else float32.

    Returns
    -------
    Sequential

    Raises
    ------
    ValueError, TypeError
        Shapes do not fit one another, an array does not hold finite numbers, or a name is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> W1, b1 = np.array([[1.0, -1.0]]), np.zeros(2)
    >>> W2, b2 = np.array([[1.0], [1.0]]), np.array([0.5])
    >>> model = from_numpy([(W1, b1), (W2, b2)], activations=["relu", "identity"])
    >>> model.predict([[-3.0]])
    array([[3.5]])
    """
    pairs = [_pair(number, pair) for number, pair in enumerate(_listed("weights", weights))]
    if not pairs:
        raise ValueError("weights is empty; expected (W, b) for each layer")
    listed = _listed("activations", activations)
    following = [_following(number, given) for number, given in enumerate(listed)]
    if len(following) != len(pairs):
        raise ValueError(
            f"activations has {len(following)} entries; expected {len(pairs)}, one for each (W, b) "
            "('identity' for none)"
        )
    for number in range(1, len(pairs)):
        width, inputs = pairs[number - 1][0].shape[1], pairs[number][0].shape[0]
        if width != inputs:
            raise ValueError(
                f"weights[{number}] takes {inputs} inputs; the one before gives {width}"
            )
    floats = [a.dtype for pair in pairs for a in pair if a is not None and a.dtype.kind == "f"]
    kind = dtype or ("float64" if any(found.itemsize >= 8 for found in floats) else "float32")
    layers: list[Layer] = []
    for (weight, bias), activation in zip(pairs, following, strict=True):
        layers += [Linear(weight.shape[0], weight.shape[1], bias=bias is not None), activation]
    layers = [layer for layer in layers if not isinstance(layer, Identity)]
    model = Sequential(*layers, dtype=kind)
    linears = [layer for layer in layers if isinstance(layer, Linear)]
    for linear, (weight, bias) in zip(linears, pairs, strict=True):
        linear.weight = weight
        if bias is not None:
            linear.bias = bias
    return model


def to_numpy(
    model: Sequential,
) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], list[str]]:
    """The weights of a network, and names; see :meth:`Sequential.to_numpy`."""
    pairs: list[tuple[np.ndarray, np.ndarray | None]] = []
    names: list[str] = []
    for number, layer in enumerate(model.layers):
        if isinstance(layer, Linear):
            weight, bias = (
                None if array is None else arrays.to_host("weight", array).copy()
                for array in (layer.weight, layer.bias)
            )
            assert weight is not None
            pairs.append((weight, bias))
            names.append("identity")
        elif not isinstance(layer, (Dropout, Flatten, Identity)):  # those change no prediction
            if not pairs or names[-1] != "identity":
                raise ValueError(
                    f"to_numpy does not cover layer {number}, {layer!r}: an activation follows a "
                    "Linear, and no other activation"
                )
            names[-1] = _name(number, layer)
    if not pairs:
        raise ValueError("to_numpy found no Linear in the network")
    return pairs, names


def _pair(number: int, pair: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """The weight and bias of a layer, checked."""
    name = f"weights[{number}]"
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"{name} is a {type(pair).__name__}; expected (W, b)")
    weight = checks.matrix(f"{name}[0]", arrays.to_host(f"{name}[0]", pair[0]))
    if not weight.size:
        raise ValueError(
            f"{name}[0] has shape {weight.shape}; expected one input and output at least"
        )
    bias = None if pair[1] is None else arrays.to_host(f"{name}[1]", pair[1])
    if bias is not None and (bias.dtype.kind not in "fiub" or bias.shape != weight.shape[1:]):
        raise ValueError(
            f"{name}[1] must hold numbers of shape ({weight.shape[1]},), got {bias.dtype} of shape "
            f"{bias.shape}"
        )
    for place, array in enumerate((weight, bias)):
        if array is not None and not np.isfinite(array).all():
            raise ValueError(f"{name}[{place}] contains NaN or infinity; expected finite numbers")
    return weight, bias


def _listed(name: str, given: Any) -> list[Any]:
    if isinstance(given, (str, Mapping)) or not hasattr(given, "__iter__"):
        one = "(W, b) for each layer" if name == "weights" else "one for each (W, b)"
        raise TypeError(f"{name} is {given!r}; expected a list, {one}")
    return list(given)


def _following(number: int, activation: Any) -> Layer:
    """The layer that follows a Linear."""
    if isinstance(activation, (Activation, Softmax)):
        return activation
    if isinstance(activation, Layer):
        raise TypeError(f"activations[{number}] is {activation!r}; expected an activation")
    return checks.lookup("activation", activation, ACTIVATIONS)()


def _name(number: int, layer: Layer) -> str:
    """The name that makes the same activation again."""
    for name, make in ACTIVATIONS.items():
        again = make()
        if type(again) is type(layer) and again.arguments() == layer.arguments():
            if layer.parameters():
                break
            return name
    raise ValueError(
        f"to_numpy does not cover layer {number}, {layer!r}: no name of an activation says all "
        "about it"
    )
