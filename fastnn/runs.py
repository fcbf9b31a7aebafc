"""Plans and their runs, kept for the next network that is like the one they were made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .layers import Layer
from .plan import kind, lower

if TYPE_CHECKING:
    from .kernels.contract import Backend, Binding, Plan, Run


class Runs:
    """The runs that one thread has started, the last of each kind, and their plans.

    To lower a network and to lay its plan out in memory takes as long as a small one takes to
    train; the next of its kind over the same data takes the place of one that is done with it.
    """

    def __init__(self) -> None:
        self._last: dict[tuple, Run] = {}
        self._plans: dict[tuple, Plan] = {}

    def lower(self, layers: Sequence[Layer], *arguments: Any, **keywords: Any) -> Plan:
        """The plan of some layers; see :func:`fastnn.plan.lower`."""
        key = kind(layers), arguments, *keywords.items()
        if key not in self._plans:
            self._plans[key] = lower(layers, *arguments, **keywords)
        return self._plans[key]

    def start(self, backend: Backend, plan: Plan, binding: Binding) -> Run:
        """A run of a plan; the last one of this kind must not be in use any more."""
        key = plan.dtype, plan.batch_rows, plan.update is None, plan.parameters
        run = backend.start(plan, binding, self._last.get(key))
        self._last[key] = run
        return run
