"""A plugin of pytest: tests run under fastnn.sklearn.patch(), and engines are counted.

``python -m pytest -p sklearn_patched ...`` ends with a line ``trained by: fastnn 70, ...``.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import fastnn.sklearn

trained_by: Counter[str] = Counter()
"""How many trainings each engine did."""


def counted(fit: Callable[..., Any]) -> Callable[..., Any]:
    """The method that trains, which also looks up who did it; an estimator that keeps it to itself
    is an AttributeError."""

    @functools.wraps(fit)
    def fit_and_count(self: Any, *arguments: Any, **keywords: Any) -> Any:
        result = fit(self, *arguments, **keywords)
        trained_by[self.engine_] += 1
        return result

    return fit_and_count


def pytest_configure() -> None:
    """Before any test module is imported."""
    for estimator in (fastnn.sklearn.MLPClassifier, fastnn.sklearn.MLPRegressor):
        estimator._fit = counted(estimator._fit)  # what fit and partial_fit both call
    fastnn.sklearn.patch()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say who trained."""
    counts = ", ".join(f"{engine} {count}" for engine, count in trained_by.most_common())
    terminalreporter.write_line(f"trained by: {counts}")
