"""The network for a data set in parts: a multilayer perceptron of standardised inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import layers
from .cli_data import Parts
from .model import Sequential


def network(
    parts: Parts,
    widths: Sequence[int],
    activation: Callable[[], layers.Layer] = layers.ReLU,
    *,
    dropout: float = 0.0,
    seed: int = 0,
) -> Sequential:
    """Standardised inputs, hidden layers, each with an activation, and an output for each class.

    Parameters
    ----------
    parts : Parts
        The inputs of the training part are what is standardised.
    widths : sequence of int
        Of the hidden layers.
    activation : callable without arguments, default ReLU
        Makes the layer after each of them.
    dropout : float, default 0
        After each activation; 0 for none.
    seed : int, default 0
        Of the weights.

    Returns
    -------
    Sequential
        With as many outputs as the parts' targets need.

    Examples
    --------
    >>> from fastnn import cli_data
    >>> network(cli_data.read_parts("digits", None, False, seed=0), [32]).parameter_count
    2410
    """
    inputs = parts.train[0]
    stack: list[layers.Layer] = [standardize(inputs)]
    width = inputs.shape[1]
    for hidden in widths:
        stack += [layers.Linear(width, hidden), activation()]
        if dropout:
            stack.append(layers.Dropout(dropout))
        width = hidden
    return Sequential(*stack, layers.Linear(width, parts.outputs), seed=seed)


def standardize(inputs: np.ndarray) -> layers.Standardize:
    """The layer that brings inputs to mean 0 and deviation about 1.

    Columns have units of their own and get a scale each; but those that all lie between 0 and 1,
    as pixels do, share one, lest a pixel that is nearly always blank be blown up to noise.

    Parameters
    ----------
    inputs : array (B, I)

    Returns
    -------
    Standardize

    Examples
    --------
    >>> standardize(np.array([[0.0, 0.2], [1.0, 0.2]]))
    Standardize(2)
    """
    deviation = inputs.std(dtype=np.float64)
    if deviation > 0.0 and inputs.min() >= 0.0 and inputs.max() <= 1.0:
        mean = inputs.mean(axis=0, dtype=np.float64)
        return layers.Standardize(mean, np.full_like(mean, deviation))
    return layers.Standardize.fit(inputs)
