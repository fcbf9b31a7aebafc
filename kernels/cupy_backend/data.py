"""The rows that a run trains on, on the device: whole, or in blocks that follow one another.

A data set that fits lies on the device once and for all, and an epoch's order is uploaded. One
that does not is gathered by the host into pinned memory, a block of steps at a time, and copied
while the device works on the block before: two blocks take turns.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..contract import Binding
from .device import Device

_SHARE_OF_MEMORY = 0.5
"""How much of the free memory a data set, or two blocks of it, may take; buffers need the rest."""


class Data(Protocol):
    """Rows, targets and weights of a run."""

    def begin(self, order: np.ndarray | None, rows: int, first_row: int) -> None:
        """Start an epoch of so many rows, from a place in its order."""

    def words(self, row: int) -> dict[str, int]:
        """The words of the run's table that say where data lie, from a place in the order on.

        Everything queued before is done by then; the current stream waits for the data.
        """

    def ready(self, row: int) -> int:
        """The place in the order up to which work can be queued, from ``row`` on."""

    def prefetch(self) -> None:
        """Get on with what comes next, while the device works on what is queued."""


def data_of(binding: Binding, rows_in_step: int, device: Device) -> Data:
    """The data of a run: on the device whole if they fit, else in blocks of whole steps.

    Where the rows lie there already, so must the little that belongs to them.
    """
    arrays = _arrays(binding)
    size = sum(array.nbytes for array in arrays.values())
    budget = int(_SHARE_OF_MEMORY * device.free_bytes())
    if device.is_array(binding.x) or size <= budget:
        return _Resident(arrays, device)
    return _Streamed(arrays, rows_in_step, budget // 2, device)


class _Resident:
    """Data that lie on the device whole."""

    def __init__(self, arrays: dict[str, Any], device: Device) -> None:
        self._device = device
        self._arrays = {word: device.array(array) for word, array in arrays.items()}
        self._order: Any = None
        self._rows = 0

    def begin(self, order: np.ndarray | None, rows: int, first_row: int) -> None:
        self._rows = rows
        if order is None:
            self._order = None
        elif self._order is not None and len(order) == len(self._order):
            self._order.set(order)
        else:
            self._order = self._device.array(order)

    def words(self, row: int) -> dict[str, int]:
        addresses = {word: array.data.ptr for word, array in self._arrays.items()}
        order = 0 if self._order is None else self._order.data.ptr
        return {**addresses, "ORDER": order, "FIRST": row}

    def ready(self, row: int) -> int:
        return self._rows

    def prefetch(self) -> None:
        """Nothing comes next."""


class _Streamed:
    """Data that pass through the device in two blocks of some bytes, each gathered in order."""

    def __init__(
        self, arrays: dict[str, Any], rows_in_step: int, block_bytes: int, device: Device
    ) -> None:
        self._arrays, self._device = arrays, device
        row_bytes = sum(array[:1].nbytes for array in arrays.values())
        self._block_rows = block_bytes // (row_bytes * rows_in_step) * rows_in_step
        if self._block_rows == 0:
            raise MemoryError(
                f"a step of {rows_in_step} rows takes {row_bytes * rows_in_step} bytes; the device "
                f"has {block_bytes} free for it: use a smaller batch_size"
            )
        self._copies = device.stream()
        # memory of the stream that fills it: where a run ends early, a copy may still be under way
        with self._copies:
            self._blocks = [_Block(arrays, self._block_rows, device) for _ in range(2)]

    def begin(self, order: np.ndarray | None, rows: int, first_row: int) -> None:
        self._order, self._rows, self._start = order, rows, first_row
        self._filled = -1
        self._fill(0)

    def words(self, row: int) -> dict[str, int]:
        number = (row - self._start) // self._block_rows
        block = self._blocks[number % 2]
        # the device waits for the copy, the host for nothing
        self._device.cupy.cuda.get_current_stream().wait_event(block.copied)
        self._number = number
        begin = self._start + number * self._block_rows
        return {**block.addresses(), "ORDER": 0, "FIRST": row - begin}

    def ready(self, row: int) -> int:
        number = (row - self._start) // self._block_rows
        return min(self._rows, self._start + (number + 1) * self._block_rows)

    def prefetch(self) -> None:
        if self._filled == self._number:
            self._fill(self._number + 1)

    def _fill(self, number: int) -> None:
        """Gather a block on the host and copy it; the work on the one before the last is over."""
        begin = self._start + number * self._block_rows
        end = min(self._rows, begin + self._block_rows)
        self._filled = number
        if begin >= end:
            return
        places = slice(begin, end) if self._order is None else self._order[begin:end]
        self._blocks[number % 2].fill(self._arrays, places, end - begin, self._copies)


class _Block:
    """A block's place on the device and in pinned memory."""

    def __init__(self, arrays: dict[str, Any], rows: int, device: Device) -> None:
        self._pinned, self._there = {}, {}
        for word, array in arrays.items():
            shape = (rows, *array.shape[1:])
            self._pinned[word] = device.pinned(shape, array.dtype)
            self._there[word] = device.empty(shape, array.dtype)
        self.copied = device.cupy.cuda.Event(disable_timing=True)

    def fill(self, arrays: dict[str, Any], places: Any, rows: int, stream: Any) -> None:
        """Gather rows and put their copy on a stream."""
        self.copied.synchronize()  # until then this pinned memory is being read
        for word, array in arrays.items():
            pinned = self._pinned[word][:rows]
            if isinstance(places, slice):
                pinned[...] = array[places]
            else:
                np.take(array, places, axis=0, out=pinned)
            self._there[word][:rows].set(pinned, stream=stream)
        self.copied.record(stream)

    def addresses(self) -> dict[str, int]:
        return {word: array.data.ptr for word, array in self._there.items()}


def _arrays(binding: Binding) -> dict[str, Any]:
    """What a step reads, by the word of the run's table that has its address."""
    named = {"X": binding.x, "TARGETS": binding.targets, "WEIGHTS": binding.weights}
    return {word: array for word, array in named.items() if array is not None}
