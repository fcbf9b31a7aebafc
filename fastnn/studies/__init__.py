"""Studies: questions about training that an experiment on real data answers in seconds.

Each is a module with a function ``study``, which makes the experiment and returns its numbers;
these write themselves as CSV, draw themselves, and say what they show.

>>> print(run("backprop"))  # doctest: +SKIP
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from .. import checks
from .results import Results as Results

STUDIES = {
    "batch-size": "What does the batch size change, and which one should I take?",
    "loss-surfaces": "Why do stochastic, mini-batch and full-batch descent behave so differently?",
    "learning-rate": "What happens when the learning rate is too small, right, too large?",
    "optimizers": "Where do momentum, Adagrad, RMSprop and Adam help?",
    "backprop": "What does backpropagation compute, number by number?",
    "activations": "What does an activation do, and which one should I take?",
    "overfitting": "When does a network learn its samples by heart, and what helps?",
    "schedules": "What does a learning rate schedule do?",
    "landscape": "What does the loss look like around a trained network?",
}
"""The question that each study answers, by the study's name."""

_SEEDS = 2**32
"""Each of a study's networks has a seed of its own, a small multiple of the study's."""


def run(name: str, data: Any = None, *, seed: int = 0) -> Results:
    """Make a study's experiment.

    Parameters
    ----------
    name : str
        A key of ``STUDIES``, such as "batch-size"; its value is the question.
    data : pair of arrays (X, y), optional
        Samples and class numbers to experiment on; the embedded digits by default.
    seed : int, default 0
        Below 2**32; of splits, weights and shuffles. The same seed gives the same numbers, but for
        seconds.

    Returns
    -------
    Results
        With ``summary()``, ``findings()``, ``to_csv(folder)``, ``plot()`` and ``save(folder)``.

    Raises
    ------
    ValueError
        For an unknown name, a seed out of range, for data that do not fit, or data for a study
        that takes none.

    Examples
    --------
    >>> run("backprop").name
    'backprop'
    """
    checks.integer("seed", seed, at_least=0)
    if seed >= _SEEDS:
        raise ValueError(f"seed is {seed}; expected less than 2**32")
    numbers: Results
    if takes_data(name):
        numbers = _study(name)(data, seed=seed)
    elif data is None:
        numbers = _study(name)(seed=seed)
    else:
        raise ValueError(f"data were given; the study {name} brings its own")
    return numbers


def takes_data(name: str) -> bool:
    """Whether a study's experiment is made on samples that can be given.

    Parameters
    ----------
    name : str
        As in :func:`run`.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        For an unknown name.

    >>> takes_data("batch-size"), takes_data("backprop")
    (True, False)
    """
    return "data" in inspect.signature(_study(name)).parameters


def _study(name: str) -> Callable[..., Results]:
    checks.lookup("study", name, STUDIES)
    study: Callable[..., Results] = import_module(f".{name.replace('-', '_')}", __name__).study
    return study
