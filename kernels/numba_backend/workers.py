"""Threads that run the same compiled function together and sleep in between."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from ..alignment import aligned
from ..interrupts import interrupts_later

BELL = aligned(1, "int64")
"""Changes when there is work: helper threads look at it for a while before they go to sleep."""


def together(threads: int, work: Callable[[int], Any], rings: bool = False) -> Any:
    """Call ``work(0)`` here and ``work(1)`` ... ``work(threads - 1)`` in helper threads at once.

    Returns ``work(0)``'s result, after all have returned. ``work`` must release the GIL where its
    threads wait for one another. Helpers are kept for the next call; calls from several Python
    threads get helpers of their own; after a fork new ones are made.

    With ``rings``, ``work(0)`` changes the bell itself, as soon as it has released the GIL that
    helpers need to begin; and it returns when the others have done their parts, so that nobody
    waits until they have returned. ``work`` must keep alive what it touches.
    """
    if threads == 1:
        return work(0)
    helpers = _borrow(threads - 1)
    taken = {_core()}
    with interrupts_later():
        done = None if rings else threading.Semaphore(0)
        for number, helper in enumerate(helpers, start=1):
            helper.begin(work, number, taken, done)
        if done:
            BELL[0] += 1
        try:
            return work(0)
        finally:
            if done:
                for _ in helpers:
                    done.acquire()
            _give_back(helpers)


def share(count: int, step: int, me: int, threads: int) -> tuple[int, int]:
    """The part [begin, end) of ``count`` that falls to thread ``me``, in multiples of ``step``."""
    if threads == 1:
        return 0, count
    units = (count + step - 1) // step
    return min(count, units * me // threads * step), min(count, units * (me + 1) // threads * step)


def _core() -> int:
    """The number of the core that this thread runs on; -1 where the system does not say."""
    return _sched_getcpu() if _sched_getcpu else -1


_sched_getcpu = getattr(ctypes.PyDLL(None), "sched_getcpu", None) if os.name == "posix" else None


def _take_core(taken: set[int]) -> None:
    """Move this thread to a core that no other of the run has taken, if there is one.

    A thread is often woken on the core of the one that woke it. There both would wait for each
    other, a switch at every barrier, until the system looks for imbalance: milliseconds.
    """
    if _core() in taken and hasattr(os, "sched_setaffinity"):
        # a system may refuse: then this thread stays, which is slower
        with contextlib.suppress(OSError):
            _leave(taken)
    taken.add(_core())


def _leave(taken: set[int]) -> None:
    allowed = os.sched_getaffinity(0)
    if free := allowed - taken:
        os.sched_setaffinity(0, free)
        # unless somebody has given this thread other cores meanwhile
        if os.sched_getaffinity(0) == free:
            os.sched_setaffinity(0, allowed)


class _Helper:
    """A daemon thread that does one piece of work at a time."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._loop, name="fastnn", daemon=True).start()

    def begin(
        self,
        work: Callable[[int], Any],
        number: int,
        taken: set[int],
        done: threading.Semaphore | None,
    ) -> None:
        self._work.put((work, number, taken, done))

    def _loop(self) -> None:
        while True:
            work, number, taken, done = self._work.get()
            try:
                _take_core(taken)
                work(number)
            finally:
                del work
                if done:
                    done.release()


_lock = threading.Lock()
_idle: list[_Helper] = []


def _borrow(count: int) -> list[_Helper]:
    with _lock:
        kept = [_idle.pop() for _ in range(min(count, len(_idle)))]
    return kept + [_Helper() for _ in range(count - len(kept))]


def _give_back(helpers: list[_Helper]) -> None:
    with _lock:
        _idle.extend(helpers)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _idle.clear()


os.register_at_fork(after_in_child=_after_fork)
