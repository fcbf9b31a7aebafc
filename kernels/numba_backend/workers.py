"""Threads that run the same compiled function together and sleep in between."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from ..interrupts import interrupts_later


def together(threads: int, work: Callable[[int], Any]) -> Any:
    """Call ``work(0)`` here and ``work(1)`` ... ``work(threads - 1)`` in helper threads at once.

    Returns ``work(0)``'s result, after all have returned. ``work`` must release the GIL where its
    threads wait for one another. Helpers are kept for the next call; calls from several Python
    threads get helpers of their own; after a fork new ones are made.
    """
    if threads == 1:
        return work(0)
    helpers = _borrow(threads - 1)
    with interrupts_later():
        for number, helper in enumerate(helpers, start=1):
            helper.begin(work, number)
        try:
            return work(0)
        finally:
            for helper in helpers:
                helper.wait()
            _give_back(helpers)


def share(count: int, step: int, me: int, threads: int) -> tuple[int, int]:
    """The part [begin, end) of ``count`` that falls to thread ``me``, in multiples of ``step``."""
    units = (count + step - 1) // step
    return min(count, units * me // threads * step), min(count, units * (me + 1) // threads * step)


class _Helper:
    """A daemon thread that does one piece of work at a time."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        self._done = threading.Semaphore(0)
        threading.Thread(target=self._loop, name="fastnn", daemon=True).start()

    def begin(self, work: Callable[[int], Any], number: int) -> None:
        self._work.put((work, number))

    def wait(self) -> None:
        self._done.acquire()

    def _loop(self) -> None:
        while True:
            work, number = self._work.get()
            try:
                work(number)
            finally:
                del work
                self._done.release()


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
