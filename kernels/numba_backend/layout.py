"""Where everything that a plan names lies in memory while a program runs."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from itertools import chain
from operator import is_

import numpy as np

from ..alignment import ALIGNMENT, aligned
from ..contract import Binding, Plan
from . import memory


class Layout:
    """Buffers, and panels of parameters, optimizer slots and gradients, for one binding.

    Parameters
    ----------
    plan : Plan
    binding : Binding
    in_place : bool
        Read weights where the binding has them, C-contiguous, rather than from panels.

    Attributes
    ----------
    biases : dict of str to str
        For a weight, the bias that is packed behind it.
    itemsize : int
        Bytes of an element.
    trained : int
        Elements of the panels of everything that is trained.
    """

    def __init__(self, plan: Plan, binding: Binding, in_place: bool) -> None:
        self._plan, self._binding, self._in_place = plan, binding, in_place
        self._dtype, self.itemsize = plan.dtype, np.dtype(plan.dtype).itemsize
        self._alive: list[np.ndarray] = []
        self._scratch: dict[str, np.ndarray] = {}
        self._copies: list[Layout] = []
        self.biases = {
            row.reads[1]: row.reads[2]
            for row in plan.chunk
            if row.op == "linear" and len(row.reads) == 3
        }
        self._lay_out_buffers()
        self._lay_out_parameters()

    def _lay_out_buffers(self) -> None:
        plan = self._plan
        self._buffers: dict[str, np.ndarray] = {}
        for buffer in plan.buffers:
            if buffer.per_row:
                stride = memory.leading_dimension(buffer.width, self._dtype)
                rows = self.zeros(plan.chunk_rows * stride)
                self._buffers[buffer.name] = rows.reshape(-1, stride)
            else:
                width = memory.padded(buffer.width, self._dtype)
                self._buffers[buffer.name] = self.zeros(width).reshape(1, -1)
        for name in ("row_losses", "row_hits") if plan.loss else ():
            self._buffers[name] = self.zeros(plan.chunk_rows).reshape(1, -1)

    def _lay_out_parameters(self) -> None:
        """One flat buffer for the parameters, one for each slot, one for gradients: same places."""
        plan, line = self._plan, ALIGNMENT // self.itemsize
        packed = set(self.biases.values())
        self._places: dict[str, tuple[int, int]] = {}
        total = self.trained = 0
        for group in (plan.parameters, plan.constants):
            for parameter in group:
                if parameter.name in packed:
                    continue
                if len(parameter.shape) == 2:
                    size = memory.panel_size(*parameter.shape, self._dtype)
                else:
                    size = memory.padded(parameter.shape[0], self._dtype)
                self._places[parameter.name] = (total, size)
                total += -(-size // line) * line
            self.trained = self.trained or total
        self._views: list[tuple[np.ndarray, np.ndarray | None]] = []
        self._viewed: list[np.ndarray] = []
        slots = len(plan.update.slots) if plan.update else 0
        self._weights = self.zeros(0 if self._in_place else total)
        self._slots = [self.zeros(self.trained) for _ in range(slots)]
        stores = plan.stores_gradients or self._binding.grads
        self._grads = self.zeros(self.trained if stores else 0)
        bases = [] if self._in_place else [self._weights, *self._slots]
        self._parts = {
            name: [self._part(base, name) for base in bases if begin < base.size]
            for name, (begin, _) in self._places.items()
        }

    def with_own(self, names: Collection[str]) -> Layout:
        """The layout of one more thread, which has the buffers and parameters named for itself."""

        def own(array: np.ndarray) -> np.ndarray:
            return self.zeros(array.size).reshape(array.shape)

        other = copy.copy(self)
        other._buffers = self._buffers | {
            name: own(array) for name, array in self._buffers.items() if name in names
        }
        other._parts = self._parts | {
            name: [own(part) for part in parts]
            for name, parts in self._parts.items()
            if name in names
        }
        self._copies.append(other)
        return other

    def bind(self, binding: Binding) -> None:
        """Load from, and store to, the arrays of another binding of the plan."""
        self._binding = binding

    # -- memory --

    def zeros(self, count: int, dtype: str | None = None) -> np.ndarray:
        """Aligned zeros, of the plan's dtype by default, that live as long as this does."""
        array = aligned(max(1, count), dtype or self._dtype)
        self._alive.append(array)
        return array

    def scratch(self, name: str, count: int) -> int:
        """Where ``count`` elements begin that operations of all threads know by this name."""
        if name not in self._scratch:
            self._scratch[name] = self.zeros(count)
        return self._scratch[name].ctypes.data

    def number(self, value: float) -> int:
        """The address of one number."""
        array = self.zeros(1)
        array[0] = value
        return array.ctypes.data

    def keep(self, words: np.ndarray) -> int:
        """Keep a block of words alive; its address."""
        self._alive.append(words)
        return words.ctypes.data

    # -- addresses --

    def address(self, name: str) -> int:
        """Where a buffer, parameter or constant begins."""
        if name in self._buffers:
            return self._buffers[name].ctypes.data
        if self._in_place:
            return self._binding.arrays[name].ctypes.data
        return self._parts[name][0].ctypes.data

    def stride(self, name: str) -> int:
        """Elements from one row of a buffer to the next; 0 for what has no rows."""
        return self._buffers[name].shape[1] if name in self._buffers else 0

    def grad(self, name: str) -> int:
        """Where the stored gradient by a parameter begins."""
        return self._part(self._grads, name).ctypes.data

    def grads(self) -> int:
        """Where all stored gradients begin, ``trained`` elements."""
        return self._grads.ctypes.data

    def slots(self, name: str) -> list[int]:
        """Where each optimizer slot of a parameter begins."""
        return [part.ctypes.data for part in self._parts[name][1:]]

    def _part(self, base: np.ndarray, name: str) -> np.ndarray:
        begin, size = self._places[name]
        return base[begin : begin + size]

    # -- to and from the caller's arrays --

    def load(self) -> None:
        """Take parameters, constants and slots from the arrays of the binding."""
        for ours, theirs in self._state:
            ours[...] = 0 if theirs is None else theirs
        for other in self._copies:
            for name, parts in self._parts.items():
                for part, own in zip(parts, other._parts[name], strict=True):
                    if own is not part:
                        own[...] = part

    def store(self) -> None:
        """Give them back; gradients too, where the binding has arrays for them."""
        for ours, theirs in (*self._state, *self._pairs(self._grads, self._binding.grads)):
            if theirs is not None:
                theirs[...] = ours

    @property
    def _state(self) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """What is both read and written: views of our memory and of the caller's arrays."""
        binding = self._binding
        arrays = [*binding.arrays.values(), *chain.from_iterable(binding.slots.values())]
        if len(arrays) != len(self._viewed) or not all(map(is_, arrays, self._viewed)):
            self._views, self._viewed = self._views_of_state(), arrays
        return self._views

    def _views_of_state(self) -> list[tuple[np.ndarray, np.ndarray | None]]:
        binding = self._binding
        views = self._pairs(self._weights, binding.arrays)
        for number, base in enumerate(self._slots):
            arrays = {name: slots[number] for name, slots in binding.slots.items()}
            views += self._pairs(base, arrays)
        return views

    def _pairs(
        self, base: np.ndarray, arrays: Mapping[str, np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Views of a part of our memory, each beside the caller's array that it stands for.

        None is beside the bias that a layer has not, which is zero.
        """
        views: list[tuple[np.ndarray, np.ndarray | None]] = []
        for name, (begin, size) in self._places.items():
            array, part = arrays.get(name), base[begin : begin + size]
            if array is None or begin >= base.size:
                continue
            if array.ndim == 2:
                bias = arrays.get(self.biases[name]) if name in self.biases else None
                views += memory.counterparts(part, array, bias)
            else:
                views.append((part[: array.size], array))
        return views
