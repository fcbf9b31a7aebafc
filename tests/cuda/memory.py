"""Memory between guards, NaN until written: what a kernel reads or writes beside it shows."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

ALIGNMENT = 512
"""Of every buffer, as CuPy's."""
GUARD_BYTES = 1024
POISON = {4: np.uint64(0x7FA5A5A57FA5A5A5), 8: np.uint64(0x7FF5A5A57FA5A5A5)}
"""By item size, 8 bytes of signalling NaN: arithmetic on it gives NaN of other bits, so that also
a write of what was read shows."""


class Guarded:
    """A buffer of NaN between two guards.

    Parameters
    ----------
    size : int
        Its bytes.
    itemsize : int
        Those of its numbers, which are NaN at first; as doubles by default.

    Examples
    --------
    >>> buffer = Guarded(8)
    >>> buffer.bytes.view(np.float64)
    array([nan])
    >>> buffer.damaged()
    False
    """

    def __init__(self, size: int, itemsize: int = 8):
        self._poison = POISON[4 if itemsize == 4 else 8]
        whole = np.empty(size + 2 * GUARD_BYTES + ALIGNMENT, np.uint8)
        start = GUARD_BYTES + -(whole.ctypes.data + GUARD_BYTES) % ALIGNMENT
        self.bytes = whole[start : start + size]
        self.address = whole.ctypes.data + start
        # a word at a time; the last may be cut short
        self._words, self._rest = np.split(self.bytes, [size // 8 * 8])
        self._words = self._words.view(np.uint64)
        self._last = np.full(1, self._poison).view(np.uint8)[: self._rest.size]
        self._guards = (
            whole[start - GUARD_BYTES : start],
            whole[start + size : start + size + GUARD_BYTES],
        )
        self._guard = np.full(GUARD_BYTES // 8, self._poison).view(np.uint8)
        self._mend()
        self.poison()

    def damaged(self) -> bool:
        """Whether somebody wrote beside the buffer since this was asked last."""
        if all(np.array_equal(guard, self._guard) for guard in self._guards):
            return False
        self._mend()
        return True

    def _mend(self) -> None:
        for guard in self._guards:
            guard[...] = self._guard

    def poison(self) -> None:
        """Make the buffer NaN again."""
        self._words[...] = self._poison
        self._rest[...] = self._last

    def poisoned(self) -> bool:
        """Whether the buffer is as nobody has written to it yet."""
        return bool((self._words == self._poison).all()) and np.array_equal(self._rest, self._last)


@contextmanager
def guarded(arrays: Sequence[np.ndarray], what: str) -> Iterator[list[int]]:
    """Copy arrays between guards, yield where they lie there, and copy them back.

    Arrays that overlap stay one piece of memory. What lies between the elements of a view comes
    along.

    Raises
    ------
    MemoryError
        Something was written beside a piece, or into an array that is not writeable; `what` is
        named, and nothing is copied back.
    """
    spans = [_span(array) for array in arrays]
    pieces: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if pieces and first < pieces[-1][1]:
            pieces[-1] = (pieces[-1][0], max(last, pieces[-1][1]))
        else:
            pieces.append((first, last))
    home = [
        next(i for i, (start, end) in enumerate(pieces) if start <= first and last <= end)
        for first, last in spans
    ]
    buffers = [
        Guarded(last - first, arrays[home.index(i)].itemsize)
        for i, (first, last) in enumerate(pieces)
    ]
    for buffer, (first, last) in zip(buffers, pieces, strict=True):
        buffer.bytes[...] = _memory(first, last)
    yield [
        buffers[i].address + first - pieces[i][0] for i, (first, _) in zip(home, spans, strict=True)
    ]
    for place, i in enumerate(home):
        if buffers[i].damaged():
            raise MemoryError(f"{what}: wrote beside array {place} of its arguments")
    for buffer, (first, last) in zip(buffers, pieces, strict=True):
        if bytes(buffer.bytes) != bytes(_memory(first, last)):
            owners = [i for i, span in enumerate(spans) if first <= span[0] < last]
            if not all(arrays[i].flags.writeable for i in owners):
                raise MemoryError(f"{what}: wrote into one of the read-only arrays {owners}")
            _memory(first, last)[...] = buffer.bytes


def _span(array: np.ndarray) -> tuple[int, int]:
    """The addresses of the first byte of an array and of the one behind its last."""
    first = last = array.ctypes.data
    if array.size:
        reaches = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
        first += sum(min(0, reach) for reach in reaches)
        last += sum(max(0, reach) for reach in reaches) + array.itemsize
    return first, last


def _memory(first: int, last: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * (last - first)).from_address(first))
