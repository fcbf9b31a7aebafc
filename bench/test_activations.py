"""Each activation, with its slope."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from checks import assert_close, poisoned

from fastnn.kernels.contract import Activation
from fastnn.kernels.formulas import ACTIVATIONS

from .cases import Case, placed, rounding, traffic
from .counts import count_activation

LEARNED = 0.25
"""The value that every learned parameter has."""


@pytest.mark.parametrize("shape", [(32, 128), (512, 512)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(time, backend, name, shape):
    time(activation(backend, "float32", name, *shape))


def activation(backend: Any, dtype: str, name: str, rows: int, columns: int) -> Case:
    """y = f(x), its slope, and its slopes by learned parameters."""
    x = np.random.default_rng(0).normal(0, 2, (rows, columns)).astype(dtype)
    x, y, slope = map(placed, (x, poisoned(x.shape, dtype), poisoned(x.shape, dtype)))
    parameters = ACTIVATIONS[name].learned
    learned = [np.full(columns, LEARNED, dtype) for _ in parameters]
    learned_slopes = [poisoned(x.shape, dtype) for _ in parameters]
    use = Activation(ACTIVATIONS[name])

    def run() -> None:
        backend.map(x, y, slope, use, learned, learned_slopes)

    def verify() -> None:
        run()
        bound = rounding(dtype, 1 + np.abs(x))
        settings = dict.fromkeys(parameters, LEARNED)
        assert_close(y, reference.activation(name, x, **settings), bound)
        assert_close(slope, reference.activation_derivative(name, x, **settings), bound)
        for by_parameter in learned_slopes:
            assert_close(by_parameter, reference.prelu_slope_derivative(x), bound)

    moved = traffic(x, y, slope, *learned, *learned_slopes)
    asked = count_activation(use.formula, use.keywords).of(x.size)
    return Case(run, verify, dtype, moved, moved, **asked)
