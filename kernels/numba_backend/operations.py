"""One kernel over a caller's arrays: called by address, and shared out over threads."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable

from . import library, support
from .blocks import Block
from .workers import share, together

ELEMENTS_PER_THREAD = 1 << 18
"""Fewer elements than this are not worth another thread."""
_LINE = 64
"""Elements in which a long row is shared out: whole cache lines."""


def apply(kernel: int, *arguments: int) -> int:
    """Call a kernel with integers, denormals flushed, without the GIL."""
    call, pack = _applier(len(arguments))
    return call(pack(kernel, *arguments))


def apply_by_blocks(
    kernel: int, values: int, count: int, block: int, itemsize: int, out: int
) -> None:
    """Call ``kernel(values, count, out)`` for each ``block`` values, with the next place of out."""
    for number in range(-(-count // block)):
        begin = number * block
        apply(kernel, values + begin * itemsize, min(block, count - begin), out + number * itemsize)


@functools.cache
def _applier(count: int) -> tuple[Callable[[bytes], int], Callable[..., bytes]]:
    """What calls a kernel with ``count`` integers, given as words in a row, and what packs them.

    ctypes takes four times as long for as many arguments.
    """
    address = library.support_kernels()[support.applier(count)]
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)(address)
    return call, struct.Struct(f"{count + 1}q").pack


def threads_for(work: int, least: int, most: Callable[[], int]) -> int:
    """How many of ``most()`` threads have at least ``least`` of the work each.

    Whoever has work for one is not asked how many there are, which takes longer than a small
    operation.
    """
    paying = work // least
    return min(most(), paying) if paying > 1 else 1


def by_parts(
    threads: Callable[[], int],
    b: Block,
    work: Callable[[int, int, int, int], None],
    step: int = _LINE,
) -> None:
    """Call ``work(row, column, rows, columns)`` for parts of a block, a part a thread.

    Parts are whole rows, or pieces of the only one, in multiples of ``step``.
    """
    most = threads_for(b.size, ELEMENTS_PER_THREAD, threads)
    if most == 1:
        if b.size:
            work(0, 0, b.rows, b.columns)
    elif b.rows == 1:
        shared_out(most, b.columns, step, lambda begin, count: work(0, begin, 1, count))
    else:
        shared_out(most, b.rows, 1, lambda begin, count: work(begin, 0, count, b.columns))


def by_rows(threads: Callable[[], int], b: Block, work: Callable[[int, int], None]) -> None:
    """Call ``work(row, rows)`` for parts of a block, a part a thread."""
    shared_out(threads_for(b.size, ELEMENTS_PER_THREAD, threads), b.rows, 1, work)


def by_columns(threads: Callable[[], int], b: Block, work: Callable[[int, int], None]) -> None:
    """Call ``work(column, columns)`` for parts of a block that have all of its rows."""
    shared_out(threads_for(b.size, ELEMENTS_PER_THREAD, threads), b.columns, _LINE, work)


def shared_out(threads: int, count: int, step: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(begin, count)`` for a part a thread, in multiples of ``step``."""
    if threads == 1:
        if count:
            work(0, count)
        return

    def mine(me: int) -> None:
        begin, end = share(count, step, me, threads)
        if begin < end:
            work(begin, end - begin)

    together(threads, mine)
