"""Memory: nothing copies the data set, and what training needs besides does not grow with it.

Numbers that a row must have are allowed by name: its place in a shuffled epoch, its outputs, the
record of its step. All else is working memory, which full batches have by the chunk.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from processes import run_python

import fastnn
from fastnn.kernels.contract import CHUNK_ROWS

INPUTS, OUTPUTS, BATCH = 256, 10, 32
FEW, MANY = 8 * CHUNK_ROWS, 64 * CHUNK_ROWS
"""Whole chunks, so that both have chunks of the same size."""
SLACK = 1 << 16
"""Bytes that Python may have more of, one time or another."""
A_PLACE = 2 * 8
"""Bytes a row: its place in the order, and in what the order is made from."""
A_STEP = 128
"""Bytes a step: its scalars, with and without weight decay, its loss and its hits."""


def network():
    return fastnn.Sequential(
        fastnn.Linear(INPUTS, 32), fastnn.ReLU(), fastnn.Linear(32, OUTPUTS), seed=0
    )


def data(rows):
    rng = np.random.default_rng(0)
    return rng.random((rows, INPUTS), np.float32), rng.integers(0, OUTPUTS, rows)


def fit(**arguments):
    return lambda X, y: network().fit(X, y, **arguments)


def fit_beside_validation(X, y):
    network().fit(X[:BATCH], y[:BATCH], validation_data=(X, y))


ACTIONS = {  # what is done, and the bytes that each row may take
    "full batch": (fit(batch_size="full", shuffle=False), 0),
    "full batch, shuffled": (fit(batch_size="full"), A_PLACE),
    "mini-batches": (fit(batch_size=BATCH, shuffle=False), A_STEP / BATCH),
    "mini-batches, shuffled": (fit(batch_size=BATCH), A_PLACE + A_STEP / BATCH),
    "rows drawn anew": (fit(batch_size=BATCH, sampling="replacement"), A_PLACE + A_STEP / BATCH),
    "validation": (fit_beside_validation, 0),
    "evaluate": (lambda X, y: network().evaluate(X, y), 0),
    "predict": (lambda X, y: network().predict(X), 4 * OUTPUTS),
}


def peak(work, rows):
    """The most bytes that Python and NumPy had allocated at once meanwhile, above those before."""
    X, y = data(rows)
    work(X, y)  # what is kept from call to call is there
    tracemalloc.start()
    try:
        work(X, y)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ACTIONS)
def test_memory_does_not_grow_with_the_rows(name):
    work, of_a_row = ACTIONS[name]
    few, many = (peak(work, rows) for rows in (FEW, MANY))
    assert many - few <= of_a_row * (MANY - FEW) + SLACK


def test_a_copy_of_the_data_would_be_seen():
    few, many = (peak(lambda X, y: X.copy(), rows) for rows in (FEW, MANY))
    assert many - few > 4 * INPUTS * (MANY - FEW) - SLACK


PROCESS_SLACK = 4 << 20
"""Bytes that an allocator and other threads' stacks may have more of."""
IN_A_PROCESS = """
    import sys
    sys.path.insert(0, {tests!r})
    import test_memory as tests

    def status(name):
        lines = open("/proc/self/status").read().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(name))) * 1024

    def resident_peak(work, X, y):
        before = status("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        work(X, y)
        return status("VmHWM") - before

    for work, of_a_row in tests.ACTIONS.values():
        peaks = []
        for rows in (tests.FEW, tests.MANY):
            X, y = tests.data(rows)
            work(X, y)
            peaks.append(resident_peak(work, X, y))
        print(*peaks, of_a_row)
    X, y = tests.data(tests.MANY)
    print(resident_peak(lambda X, y: X.copy(), X, y))
"""


def can_reset_the_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


@pytest.mark.skipif(not can_reset_the_peak(), reason="needs Linux's record of resident memory")
def test_a_process_does_not_grow_with_the_rows():
    """What compiled code allocates is not in Python's books, but in the system's."""
    folder = str(Path(__file__).parent)
    *lines, copied = run_python(IN_A_PROCESS.format(tests=folder)).splitlines()
    assert int(copied) > 4 * INPUTS * MANY - PROCESS_SLACK
    assert len(lines) == len(ACTIONS)
    for name, line in zip(ACTIONS, lines, strict=True):
        few, many, of_a_row = map(float, line.split())
        assert many - few <= of_a_row * (MANY - FEW) + PROCESS_SLACK, (name, line)
