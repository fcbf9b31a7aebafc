"""What several studies say alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..words import Words


def series(values: Sequence[Any]) -> str:
    """Values in a row, as a sentence has them.

    >>> series([1, 10, 1000])
    '1, 10 and 1,000'
    """
    words = [f"{value:,}" if isinstance(value, int) else str(value) for value in values]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def kind_of_descent(say: Words, batch_size: int, samples: int) -> str:
    """What descent by batches of a size is called, where so many samples are the whole set.

    >>> kind_of_descent(Words(), 10, 500)
    'mini-batches of 10'
    """
    if batch_size == samples:
        return say("full batch: all {samples} samples", samples=f"{samples:,}")
    if batch_size == 1:
        return say("stochastic: one sample at a time")
    return say("mini-batches of {size}", size=batch_size)
