"""What formulas cost: floating-point operations, square roots and divisions of an element.

They are counted in the vector instructions that a formula is read into, functions included, so that
a formula's cost stands nowhere but in the formula.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from fastnn.kernels.formulas import ActivationFormula, UpdateFormula
from fastnn.kernels.numba_backend.emit import only_kernel
from fastnn.kernels.tracing import VectorMath, value_and_derivative

_SINGLE = re.compile(r" (fadd|fsub|fmul) ")
_FUSED, _ROOT, _DIVISION = '@"llvm.fma.', '@"llvm.sqrt.', " fdiv "


class Counts(NamedTuple):
    """Operations of an element; a fused multiply-add is two."""

    flops: int = 0
    roots: int = 0
    divisions: int = 0

    def of(self, elements: int) -> dict[str, int]:
        """Those of so many elements, as a Case takes them."""
        return {name: count * elements for name, count in self._asdict().items()}

    def divided(self, elements: int) -> dict[str, int]:
        """The same without flops, for work that is measured by those of its products."""
        return {name: count for name, count in self.of(elements).items() if name != "flops"}


def count(function: Callable[..., Any], numbers: int) -> Counts:
    """The operations of a formula ``function(m, *numbers)``."""
    kernel = only_kernel("", "float32")
    math = VectorMath(kernel.builder, "float32", kernel.lanes)
    function(math, *(math.vector(1.0) for _ in range(numbers)))
    text = str(kernel.function)
    flops = len(_SINGLE.findall(text)) + 2 * text.count(_FUSED)
    return Counts(flops, text.count(_ROOT), text.count(_DIVISION))


def count_activation(formula: ActivationFormula, settings: Mapping[str, float]) -> Counts:
    """The operations of an activation and its slope."""

    def function(m: Any, *numbers: Any) -> Any:
        return formula.function(m, *numbers, **settings)

    return count(value_and_derivative(function), 1 + len(formula.learned))


def count_update(formula: UpdateFormula) -> Counts:
    """The operations of an optimizer's update."""
    slots, scalars = len(formula.slots), formula.scalars

    def function(m: Any, weight: Any, grad: Any, *others: Any) -> Any:
        names = SimpleNamespace(**dict(zip(scalars, others[slots:], strict=True)))
        return formula.function(m, weight, grad, others[:slots], names)

    return count(function, 2 + slots + len(scalars))
