"""Each optimizer's update of a flat array of parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from checks import assert_close

import fastnn

from .cases import Case, rounding
from .counts import count_update
from .roofline import available_memory

OPTIMIZERS = ("SGD", "Momentum", "Nesterov", "Adagrad", "RMSprop", "Adam", "AdamW")
COUNTS = (10**3, 10**4, 10**5, 10**6, 10**7, pytest.param(10**8, marks=pytest.mark.slow))
LEARNING_RATE = 0.01
_BLOCK = 1 << 20
"""Parameters that are verified at once: the truth takes several times their memory."""


@pytest.fixture(autouse=True)
def enough_memory(name: str, count: int) -> None:
    """Skip what the memory that is free does not hold."""
    needed, free = memory_needed("float32", name, count), available_memory()
    if free is not None and needed > free:
        pytest.skip(f"{count} parameters need {needed >> 20} MiB of memory; {free >> 20} are free")


@pytest.mark.parametrize("count", COUNTS, ids="{:.0e}".format)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update(time, backend, name, count):
    time(update(backend, "float32", name, count))


def memory_needed(dtype: str, name: str, count: int) -> int:
    """Bytes for weights, their copy, gradients and slots, and as much again for temporaries."""
    arrays = 3 + len(getattr(fastnn, name)(LEARNING_RATE).formula.slots)
    return 2 * arrays * count * np.dtype(dtype).itemsize


def update(backend: Any, dtype: str, name: str, count: int) -> Case:
    """An optimizer's update, in place; it is verified from a new state."""
    optimizer = getattr(fastnn, name)(LEARNING_RATE)
    formula = optimizer.formula
    rng = np.random.default_rng(0)
    grad, weight = (rng.standard_normal(count, dtype) for _ in range(2))
    before = weight.copy()
    starts = formula.initial_slots(**optimizer.settings)
    slots = [np.full(count, start, dtype) for start in starts]
    scalars = optimizer.scalars(0, np.array([LEARNING_RATE]), dtype)[0, 1]

    def run() -> None:
        backend.update(weight, grad, slots, scalars, formula)

    def verify() -> None:
        weight[:] = before
        for slot, start in zip(slots, starts, strict=True):
            slot.fill(start)
        run()
        check_first_update(name, before, grad, weight)

    return Case(
        run,
        verify,
        dtype,
        arrays_moved(name) * weight.nbytes,
        (2 + len(slots)) * weight.nbytes,
        **count_update(formula).of(count),
    )


def arrays_moved(name: str) -> int:
    """Arrays that an update reads or writes: weights and slots count twice, gradients once."""
    return 3 + 2 * len(getattr(fastnn, name)(LEARNING_RATE).formula.slots)


def check_first_update(name: str, before: np.ndarray, grad: np.ndarray, after: np.ndarray) -> None:
    """Raise AssertionError unless a new optimizer moves flat weights so."""
    for begin in range(0, len(before), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        expected = getattr(reference, name)(LEARNING_RATE).step(before[part], grad[part])
        bound = rounding(before.dtype.name, np.abs(before[part]) + np.abs(expected))
        assert_close(after[part], expected, bound)
