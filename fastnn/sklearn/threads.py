"""How many threads a fit or a prediction takes, beside others in the same process."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from .. import backend as backends

LEAST_CALL_FLOPS = 20_000_000
"""Work of a compiled call from which a second thread saves more than it takes to wake it: some
100 µs, and a core does 10^11 flops a second."""

_lock = threading.Lock()
_at_work = 0
_mine = threading.local()


@contextlib.contextmanager
def granted(n_threads: int | None, call_flops: int) -> Iterator[int]:
    """The most threads for work which begins here and ends with the block.

    Calls of so many flops take one thread where others would not pay, else an estimator's own
    number, else the machine's, less where ``OMP_NUM_THREADS`` asks scikit-learn's products for
    less, as joblib does in its processes. Work at once in several Python threads shares the cores.
    """
    global _at_work
    is_first = not getattr(_mine, "at_work", False)  # a fit may predict, which is its own work
    with _lock:
        _at_work += is_first
        sharers = _at_work
    _mine.at_work = True
    try:
        if call_flops < LEAST_CALL_FLOPS:
            yield 1
        else:
            yield n_threads or max(1, _of_this_process() // sharers)
    finally:
        if is_first:
            _mine.at_work = False
            with _lock:
                _at_work -= 1


def _of_this_process() -> int:
    """What the machine grants, or the environment where that is less."""
    most, text = backends.get_num_threads(), os.environ.get("OMP_NUM_THREADS", "")
    return min(most, int(text)) if text.isdecimal() and int(text) else most
