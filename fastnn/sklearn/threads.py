"""How many threads a fit or a prediction takes, beside others in the same process."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from .. import backend as backends

_lock = threading.Lock()
_at_work = 0


@contextlib.contextmanager
def granted(n_threads: int | None) -> Iterator[int]:
    """The most threads that work may take which begins here and ends with the block.

    An estimator's own number, else its share of the machine's, less where ``OMP_NUM_THREADS`` asks
    scikit-learn's products for less, as joblib does in its processes. Fits that run at once in
    several Python threads share the cores.
    """
    global _at_work
    with _lock:
        _at_work += 1
        sharers = _at_work
    try:
        yield n_threads or max(1, min(backends.get_num_threads(), _asked_for()) // sharers)
    finally:
        with _lock:
            _at_work -= 1


def _asked_for() -> int:
    """What the environment grants products, or a number that limits nothing."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) else backends.get_num_threads()
