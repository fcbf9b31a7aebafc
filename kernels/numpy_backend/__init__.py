"""The plain backend: every operation and every plan in NumPy, on any machine that has NumPy."""

from __future__ import annotations

from ..contract import Binding, Plan
from .operations import Operations
from .run import NumpyRun


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

    def start(self, plan: Plan, binding: Binding) -> NumpyRun:
        return NumpyRun(plan, binding, self)
