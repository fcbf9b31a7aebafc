"""Runs of plans, kept for the next network that is like the one they were made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .kernels.contract import Backend, Binding, Plan, Run


class Runs:
    """The runs that one thread has started, the last of each kind.

    To lay a plan out in memory takes longer than a small network takes to train; the next of its
    kind over the same data takes the place of one that is done with it.
    """

    def __init__(self) -> None:
        self._last: dict[tuple, Run] = {}

    def start(self, backend: Backend, plan: Plan, binding: Binding) -> Run:
        """A run of a plan; the last one of this kind must not be in use any more."""
        kind = plan.dtype, plan.batch_rows, plan.update is None, plan.parameters
        run = backend.start(plan, binding, self._last.get(kind))
        self._last[kind] = run
        return run
