"""The plain backend: every operation and every plan in NumPy, on any machine that has NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..contract import (
    CHUNK_ROWS,
    Backend,
    Binding,
    Plan,
    Predictor,
    Run,
    check_precision,
    documented_by,
)
from ..prediction import predictor_by_runs
from .operations import Operations
from .run import NumpyRun


@documented_by(Backend)
class NumpyBackend(Operations):
    """The operations of :class:`fastnn.kernels.contract.Backend` on NumPy arrays.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.empty((1, 2))
    >>> NumpyBackend().softmax(np.zeros((1, 2)), y)
    >>> y
    array([[0.5, 0.5]])
    """

    name = "numpy"
    module: Any = np
    chunk_rows = CHUNK_ROWS

    def start(self, plan: Plan, binding: Binding, spare: Run | None = None) -> NumpyRun:
        check_precision(plan.precision, plan.dtype, self.name)
        return NumpyRun(plan, binding, self)

    def predictor(self, plan: Plan, arrays: Mapping[str, np.ndarray]) -> Predictor:
        return predictor_by_runs(self, plan, arrays)
