"""Where a plan's parameters and buffers lie on the device.

Parameters lie in one flat array, those that weight decay touches first, and so do their gradients
and each optimizer slot: an update is one pass over each half. Every parameter begins on a cache
line; what lies between is zero, in weights and gradients alike.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from ..contract import Binding, Parameter, Plan
from .calls import PROGRESS

_LINE = 128
"""Bytes of a cache line."""


class Space(Protocol):
    """Where arrays can be made: the device's memory, or that of a block."""

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """An array of zeros."""

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """An array that holds anything."""


class Memory:
    """The arrays behind the names of a plan.

    Parameters
    ----------
    plan : Plan
    binding : Binding
    space : Space

    Attributes
    ----------
    arrays : dict
        Parameters, constants and buffers by name, and what steps keep between rows.
    grads, slots : dict
        By parameter name: the gradient; the optimizer's slots, in order.
    halves : list of (bool, slice)
        The two halves of the flat arrays, by whether weight decay touches them; no empty ones.
    weights, flat_grads, flat_slots
        The flat arrays.
    progress : array of int64
        See ``calls.PROGRESS``.
    """

    def __init__(self, plan: Plan, binding: Binding, space: Space) -> None:
        self._plan, self._binding = plan, binding
        self._layout = _Layout(plan)
        count = self._layout.count
        self.weights = space.zeros(count, plan.dtype)
        trains = plan.update is not None or plan.stores_gradients
        self.flat_grads = space.zeros(count if trains else 0, plan.dtype)
        self.flat_slots = [
            space.zeros(count, plan.dtype) for _ in (plan.update.slots if plan.update else ())
        ]
        self.arrays: dict[str, Any] = dict(self._layout.views(self.weights))
        self.grads = dict(self._layout.views(self.flat_grads)) if trains else {}
        slots = [dict(self._layout.views(flat)) for flat in self.flat_slots]
        self.slots = {p.name: [views[p.name] for views in slots] for p in plan.parameters}
        self.halves = self._layout.halves
        self._constants = {p.name: space.zeros(p.shape, plan.dtype) for p in plan.constants}
        self.arrays |= self._constants
        for buffer in plan.buffers:
            self.arrays[buffer.name] = space.empty(plan.shape(buffer.name), plan.dtype)
        for name in ("row_losses", "row_hits"):
            self.arrays[name] = space.empty(plan.chunk_rows, plan.dtype)
        for name in ("scale", "clip_scale", "norm"):
            self.arrays[name] = space.zeros(1, plan.dtype)
        self.progress = space.zeros(len(PROGRESS), np.int64)

    def lasting(self) -> list[Any]:
        """The arrays that steps change and that outlive them."""
        return [self.weights, self.flat_grads, *self.flat_slots, *self._constants.values()]

    def with_arrays(self, arrays: Mapping[str, Any]) -> Memory:
        """The same memory, but for these arrays."""
        other = copy.copy(self)
        other.arrays = {**self.arrays, **arrays}
        return other

    def load(self) -> None:
        """Read parameters, slots and constants from the arrays bound."""
        binding, host = self._binding, self._layout.host()
        for flat, arrays in self._bound():
            self._layout.fill(host, arrays)
            flat.set(host)
        for name, array in self._constants.items():
            array.set(np.ascontiguousarray(binding.arrays[name]))

    def store(self) -> None:
        """Write them back; gradients too, where the binding has arrays for them."""
        binding = self._binding
        for flat, arrays in self._bound():
            self._layout.take(flat.get(), arrays)
        if binding.grads and self.grads:
            self._layout.take(self.flat_grads.get(), binding.grads)
        for name, array in self._constants.items():
            binding.arrays[name][...] = array.get()

    def _bound(self) -> Iterator[tuple[Any, Mapping[str, np.ndarray]]]:
        """Each flat array that a binding has the like of, with its arrays there."""
        binding = self._binding
        yield self.weights, binding.arrays
        for number, flat in enumerate(self.flat_slots):
            yield flat, {p.name: binding.slots[p.name][number] for p in self._plan.parameters}


class _Layout:
    """The places of parameters in a flat array."""

    def __init__(self, plan: Plan) -> None:
        self._dtype = np.dtype(plan.dtype)
        self._places: list[tuple[Parameter, slice]] = []
        line, end = _LINE // self._dtype.itemsize, 0
        for parameter in sorted(plan.parameters, key=lambda parameter: not parameter.decayed):
            size = int(np.prod(parameter.shape))
            self._places.append((parameter, slice(end, end + size)))
            end += -(-size // line) * line
        self.count = end
        starts = [place.start for parameter, place in self._places if not parameter.decayed]
        middle = min(starts, default=end)
        halves = ((True, slice(0, middle)), (False, slice(middle, end)))
        self.halves = [(decayed, half) for decayed, half in halves if half.stop > half.start]

    def views(self, flat: Any) -> Iterator[tuple[str, Any]]:
        """Each parameter's part of a flat array, in its shape."""
        for parameter, place in self._places:
            yield parameter.name, flat[place].reshape(parameter.shape)

    def host(self) -> np.ndarray:
        """A flat array of zeros on the host."""
        return np.zeros(self.count, self._dtype)

    def fill(self, flat: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy parameters into a flat array of the host."""
        for name, view in self.views(flat):
            view[...] = arrays[name]

    def take(self, flat: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy them out of it."""
        for name, view in self.views(flat):
            if name in arrays:
                arrays[name][...] = view
