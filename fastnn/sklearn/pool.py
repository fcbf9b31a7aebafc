"""Runs that wait for another training like the one they did.

To start a run takes longer than a small training: networks that are fitted again and again, and
``partial_fit`` with its batches, go on with one that is there.
"""

from __future__ import annotations

import threading
from typing import Any

from .samples import Samples
from .steps import CompiledEpochs, TheirEpochs, key_of

MOST_BYTES = 1 << 22
"""Rows of a training, and weights with their state, of more bytes are worked on where they lie:
then the work outweighs the start, and copies would cost memory."""
MOST_IDLE = 8
"""Runs that wait at most."""

_lock = threading.Lock()
_idle: list[CompiledEpochs] = []


def epochs_of(
    estimator: Any, samples: Samples, batch_rows: int, most_threads: int
) -> CompiledEpochs:
    """Epochs of a training: by a run that waits, if there is one for it, else by a new one."""
    size = samples.x.nbytes + 3 * sum(weight.nbytes for weight in estimator.coefs_)
    if size > MOST_BYTES:
        return CompiledEpochs(estimator, samples, batch_rows, most_threads, staged=False)
    key, rows = key_of(estimator, samples, batch_rows, most_threads), len(samples.x)
    with _lock:
        fitting = [it for it in _idle if it.key == key and len(it.x) >= rows]
        if fitting:
            _idle.remove(fitting[0])
    if not fitting:
        return CompiledEpochs(estimator, samples, batch_rows, most_threads, staged=True)
    fitting[0].refill(estimator, samples)
    return fitting[0]


def give_back(epochs: CompiledEpochs | TheirEpochs) -> None:
    """Let a run wait for the next training, if it can."""
    if not (isinstance(epochs, CompiledEpochs) and epochs.staged):
        return
    epochs.release()
    with _lock:
        _idle.append(epochs)
        del _idle[:-MOST_IDLE]
